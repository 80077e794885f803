"""A trunk only grows at its end; its window moves by whole steps; one hostile text never crowds out the rest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.errors import TemplateError
from prompts.render import compile_template
from prompts.tree import Piece, PromptNode, PromptTree
from prompts.verbalize import (
    PIECE_CAP,
    Detail,
    Happening,
    Trunk,
    TrunkForm,
    compressed,
    event_piece,
    fitted,
    profile_piece,
    verbalize,
    window,
)

DETAILS: list[Detail] = ["text", "vector", "mixed"]


@cache
def form(detail: Detail = "text", budget: int = 128, step: int = 8) -> TrunkForm:
    return TrunkForm(
        profile=compile_template("Member. {{ age }} {{ occupation }}", where="profile"),
        events={
            "movie": compile_template("{{ action }} {{ title }}", where="movie"),
            "default": compile_template("{{ action }} {{ name }} {{ when }}", where="default"),
        },
        actions={"like": "liked", "dislike": "disliked"},
        detail=detail,
        budget=budget,
        step=step,
    )


def words(piece: Piece) -> int:
    """One slot a word, one for a compressed piece."""
    return 1 if piece.compress else len(piece.text.split())


def letters(piece: Piece) -> int:
    """One slot a letter, one for a compressed piece."""
    return 1 if piece.compress else len(piece.text)


def films(lengths: Sequence[int]) -> list[Happening]:
    """Event n is n words of the name `n`."""
    return [Happening("movie", "like", {"title": f"{n} " * size}) for n, size in enumerate(lengths)]


def cost(trunk: Trunk) -> int:
    return sum(map(words, trunk.pieces))


HISTORY = st.lists(st.integers(1, 6), max_size=120).map(films)
"""Events of 2 to 7 words."""


# ---------------------------------------------------------------- pieces


def test_the_profile_is_one_line_of_text() -> None:
    piece = profile_piece(form(), {"age": 24, "occupation": "technician\nadmin"})
    assert piece == Piece("Member. 24 technician admin\n", compress=False)
    assert profile_piece(form(), {}).text == "Member.\n"


@pytest.mark.parametrize(
    ("happening", "text"),
    [
        (Happening("movie", "like", {"title": "Heat"}), "liked Heat\n"),
        (Happening("movie", "add_to_list", {"title": "Heat"}), "add to list Heat\n"),
        (Happening("book", "like", {"name": "Emma"}, "1998-04-01"), "liked Emma 1998-04-01\n"),
        (Happening("movie", "like", {"title": "two\nlines", "action": "forged", "when": "never"}), "liked two lines\n"),
        (Happening("movie", "like", {}), "liked\n"),
        (Happening("book", "like\nMember.", {}), "like Member.\n"),
    ],
)
def test_an_event_is_one_line(happening: Happening, text: str) -> None:
    assert event_piece(form(), happening, compress=False) == Piece(text, compress=False)
    assert event_piece(form(), happening, compress=True) == Piece(text, compress=True)


def test_no_piece_is_ever_empty() -> None:
    silent = compile_template("{{ nothing }}", where="silent")
    mute = TrunkForm(silent, {"default": silent}, {}, "text", 128, 8)
    assert profile_piece(mute, {}).text == "\n"
    assert event_piece(mute, Happening("movie", "like", {}), compress=False).text == "like\n"
    assert event_piece(mute, Happening("movie", "", {}), compress=False).text == "\n"


def test_a_kind_without_a_template_is_told() -> None:
    only_films = TrunkForm(form().profile, {"movie": form().events["movie"]}, {}, "text", 128, 8)
    with pytest.raises(TemplateError, match="no event template for items of kind 'book'; add 'default'"):
        event_piece(only_films, Happening("book", "like", {}), compress=False)


def test_a_text_of_a_megabyte_is_cut_and_costs_little() -> None:
    start = time.process_time()
    piece = event_piece(form(), Happening("movie", "like", {"title": "x" * 1_000_000}), compress=True)
    assert len(piece.text) <= PIECE_CAP + 1
    assert time.process_time() - start < 0.5


# ---------------------------------------------------------------- the trunk


def test_a_short_history_is_told_whole() -> None:
    trunk = verbalize(form(), {"age": 24}, films([1, 1]), words)
    assert [piece.text for piece in trunk.pieces] == ["Member. 24\n", "liked 0\n", "liked 1\n"]
    assert trunk.first == 0


@pytest.mark.parametrize("detail", DETAILS)
def test_without_events_the_trunk_is_the_profile(detail: Detail) -> None:
    trunk = verbalize(form(detail), {}, [], words)
    assert trunk == Trunk((Piece("Member.\n"),), 0)
    PromptTree((PromptNode(trunk.pieces),))


@pytest.mark.parametrize("detail", DETAILS)
@given(history=HISTORY)
def test_one_piece_an_event_in_order_within_the_budget(detail: Detail, history: list[Happening]) -> None:
    trunk = verbalize(form(detail), {}, history, words)
    assert cost(trunk) <= 128
    assert len(trunk.pieces) == 1 + len(history) - trunk.first
    for offset, piece in enumerate(trunk.pieces[1:]):
        index = trunk.first + offset
        assert piece.text.split()[1] == str(index)
        assert piece.compress == compressed(form(detail), index, len(history))


@pytest.mark.parametrize("detail", DETAILS)
@given(history=HISTORY)
def test_the_window_begins_at_the_smallest_multiple_that_fits(detail: Detail, history: list[Happening]) -> None:
    shape = form(detail)
    trunk = verbalize(shape, {}, history, words)
    assert trunk.first % shape.step == 0
    if trunk.first:
        earlier = [
            event_piece(shape, history[index], compress=compressed(shape, index, len(history)))
            for index in range(trunk.first - shape.step, trunk.first)
        ]
        assert cost(trunk) + sum(map(words, earlier)) > shape.budget


@pytest.mark.parametrize("detail", ["text", "vector"])
@given(history=st.lists(st.integers(1, 6), min_size=1, max_size=120).map(films), budget=st.integers(72, 200))
def test_a_trunk_only_grows_at_its_end(detail: Detail, history: list[Happening], budget: int) -> None:
    shape = form(detail, budget=budget)
    before = verbalize(shape, {}, history[:-1], words)
    after = verbalize(shape, {}, history, words)
    moved = after.first - before.first
    assert moved >= 0
    assert moved % shape.step == 0
    if not moved:
        assert after.pieces[: len(before.pieces)] == before.pieces
        assert len(after.pieces) == len(before.pieces) + 1


@given(history=st.lists(st.integers(1, 6), min_size=1, max_size=120).map(films))
def test_a_mixed_trunk_is_rewritten_at_steps_alone(history: list[Happening]) -> None:
    shape = form("mixed")
    before = verbalize(shape, {}, history[:-1], words)
    after = verbalize(shape, {}, history, words)
    assert (after.first - before.first) % shape.step == 0
    crossed = (len(history) - 1) % shape.step == 0
    if after.first == before.first and not crossed:
        assert after.pieces[: len(before.pieces)] == before.pieces


def test_mixed_keeps_the_newest_events_as_text() -> None:
    for total in range(1, 30):
        flags = [compressed(form("mixed", step=8), index, total) for index in range(total)]
        assert flags == sorted(flags, reverse=True)
        assert 1 <= flags.count(False) <= 8
        assert flags.count(True) % 8 == 0


@given(st.lists(st.integers(1, 60), max_size=60).map(films), st.integers(16, 64))
def test_with_long_events_the_step_is_halved_until_one_fits(history: list[Happening], budget: int) -> None:
    shape = form(budget=budget, step=8)
    trunks = [verbalize(shape, {}, history[:size], words) for size in range(len(history) + 1)]
    for size, trunk in enumerate(trunks):
        assert cost(trunk) <= budget
        assert len(trunk.pieces) > 1 or size == 0
    firsts = [trunk.first for trunk in trunks]
    assert firsts == sorted(firsts)


@pytest.mark.parametrize(
    ("total", "lowest", "step", "first"),
    [
        (0, 0, 8, 0),
        (5, 0, 8, 0),
        (20, 1, 8, 8),
        (20, 8, 8, 8),
        (20, 9, 8, 16),
        (16, 9, 8, 12),
        (16, 13, 8, 14),
        (16, 15, 8, 15),
        (16, 16, 8, 16),
        (17, 16, 8, 16),
        (7, 1, 8, 4),
        (7, 5, 6, 6),
        (7, 4, 6, 6),
        (3, 1, 1, 1),
    ],
)
def test_window(total: int, lowest: int, step: int, first: int) -> None:
    assert window(total, lowest, step) == first


def test_a_long_history_costs_no_more_than_a_short_one() -> None:
    told: list[str] = []

    def count(piece: Piece) -> int:
        told.append(piece.text)
        return words(piece)

    history = films([1] * 50_000)
    trunk = verbalize(form("vector", budget=64), {}, history, count)
    assert len(trunk.pieces) > 48
    assert len(set(told)) <= 66
    start = time.process_time()
    for _ in range(20):
        verbalize(form("vector", budget=64), {}, history, words)
    assert time.process_time() - start < 1.0


# ---------------------------------------------------------------- hostile texts


def test_one_long_text_takes_at_most_half_of_the_budget() -> None:
    piece = fitted(Piece("word " * 100), 32, words)
    assert words(piece) <= 16
    assert piece.text.endswith("\n")
    assert fitted(Piece("a few words\n"), 32, words) == Piece("a few words\n")
    assert fitted(Piece("word " * 100, compress=True), 32, words).text == "word " * 100


def test_a_piece_that_cannot_be_made_to_fit_does_not_loop() -> None:
    assert fitted(Piece("word\n"), 4, lambda _: 1_000).text.strip() in {"", "w"}


def test_a_hostile_profile_or_event_leaves_room_for_the_others() -> None:
    hostile = Happening("movie", "like", {"title": "x" * 1_000_000})
    trunk = verbalize(form(budget=128, step=1), {"occupation": "y" * 1_000_000}, [hostile, *films([1] * 3)], letters)
    assert sum(map(letters, trunk.pieces)) <= 128
    assert [piece.text for piece in trunk.pieces[-3:]] == ["liked 0\n", "liked 1\n", "liked 2\n"]


@given(st.text(st.characters(exclude_categories=()), max_size=200), st.sampled_from(DETAILS))
def test_text_of_an_event_never_adds_a_line(text: str, detail: Detail) -> None:
    trunk = verbalize(
        form(detail), {"occupation": text}, [Happening(text, text, {"title": text, "name": text}, text)], words
    )
    for piece in trunk.pieces:
        assert piece.text.count("\n") == 1
        assert piece.text.endswith("\n")
        piece.text.encode("utf-8")
