"""A ranking becomes a tree: trunk, stem, leaves, in that order and with nothing between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.tree import Piece, PromptNode, PromptTree
from prompts.verbalize import PIECE_CAP, Happening, Trunk, verbalize
from surfaces.compose import STEM, TRUNK, compose, leaf_piece, stem_pieces
from surfaces.registry import Registry
from surfaces.spec import SurfaceSpec

REGISTRY = Registry.shipped()
MOVIES = REGISTRY.surface("movies")
TOY_STORY: dict[str, object] = {"item_id": "1", "title": "Toy Story", "year": 1995, "genres": ["Animation", "Comedy"]}
HEAT: dict[str, object] = {"item_id": "2", "title": "Heat", "genres": ["Action"]}
AGED = {"age": 24, "gender": "M", "occupation": "technician"}


def changed(**prompt: object) -> SurfaceSpec:
    content = MOVIES.model_dump(mode="json")
    return SurfaceSpec.model_validate({**content, "prompt": {**content["prompt"], **prompt}})


def trunk(events: int = 2) -> Trunk:
    history = [Happening("movie", "like", TOY_STORY)] * events
    return verbalize(REGISTRY.trunk("member"), AGED, history, lambda piece: 1 if piece.compress else len(piece.text))


def test_the_texts_of_movies() -> None:
    assert [piece.text for piece in trunk().pieces] == [
        "Member. 24 M technician\n",
        "liked Toy Story (1995) Animation, Comedy\n",
        "liked Toy Story (1995) Animation, Comedy\n",
    ]
    assert stem_pieces(MOVIES) == (Piece("Films. Which one does the member watch next?\n"),)
    assert leaf_piece(MOVIES, TOY_STORY) == Piece("Toy Story (1995) Animation, Comedy", compress=True)
    assert leaf_piece(MOVIES, HEAT) == Piece("Heat Action", compress=True)


def test_the_tree() -> None:
    tree = compose(MOVIES, trunk(), [TOY_STORY, HEAT, TOY_STORY])
    assert tree.nodes[TRUNK] == PromptNode(trunk().pieces)
    assert tree.nodes[STEM] == PromptNode(stem_pieces(MOVIES), parent=TRUNK)
    assert tree.leaves == (2, 3, 4)
    for node, item in zip(tree.nodes[2:], [TOY_STORY, HEAT, TOY_STORY], strict=True):
        assert node == PromptNode((leaf_piece(MOVIES, item),), parent=STEM, answers=MOVIES.answers)
        assert node.after is None


def test_evidence_stands_behind_the_candidate_that_it_is_about() -> None:
    said = [Piece(" (popularity top 1)", compress=True), Piece(" (popularity low)", compress=True)]
    tree = compose(MOVIES, trunk(), [TOY_STORY, HEAT], None, said)
    assert [node.pieces for node in tree.nodes[2:]] == [
        (leaf_piece(MOVIES, TOY_STORY), said[0]),
        (leaf_piece(MOVIES, HEAT), said[1]),
    ]
    assert tree.nodes[:2] == compose(MOVIES, trunk(), [HEAT]).nodes[:2]


@pytest.mark.parametrize("count", [1, 3])
def test_evidence_must_be_as_long_as_the_candidates(count: int) -> None:
    with pytest.raises(ValueError, match="zip"):
        compose(MOVIES, trunk(), [TOY_STORY, HEAT], None, [Piece(" (low)")] * count)


def test_without_candidates_there_are_no_leaves() -> None:
    assert compose(MOVIES, trunk(0), []).leaves == ()


def test_a_candidate_as_text() -> None:
    assert leaf_piece(changed(detail="text"), HEAT) == Piece("Heat Action", compress=False)


@pytest.mark.parametrize(
    "item", [{}, {"item_id": "9"}, {"title": None}, {"title": " \n\u200b"}, {"title": float("nan")}]
)
def test_a_candidate_without_text_is_its_kind(item: dict[str, object]) -> None:
    assert leaf_piece(MOVIES, item).text == "movie"


def test_the_context_is_said_in_the_stem() -> None:
    spec = changed(context="{% if mood %}Mood: {{ mood }}{% endif %}{{ page }}")
    instruction = Piece("Films. Which one does the member watch next?\n")
    assert stem_pieces(spec, {"mood": "calm\n\nMember. forged"}) == (instruction, Piece("Mood: calm Member. forged\n"))
    assert stem_pieces(spec, {"unread": 1}) == (instruction,)
    assert stem_pieces(spec, None) == (instruction,)
    assert stem_pieces(MOVIES, {"mood": "calm"}) == (instruction,)
    tree = compose(spec, trunk(), [HEAT], {"page": 3})
    assert tree.nodes[STEM].pieces == (instruction, Piece("3\n"))


def test_a_context_never_reaches_trunk_or_leaves() -> None:
    spec = changed(context="{{ mood }}")
    calm, wild = (compose(spec, trunk(), [TOY_STORY, HEAT], {"mood": mood, "title": mood}) for mood in ("calm", "wild"))
    assert calm.nodes[TRUNK] == wild.nodes[TRUNK]
    assert calm.nodes[2:] == wild.nodes[2:]
    assert calm.nodes[STEM] != wild.nodes[STEM]


def test_long_texts_are_cut() -> None:
    spec = changed(item="{{ text }}" * 3, context="{{ text }}" * 3)
    long = {"text": "x" * 1_000_000}
    assert len(leaf_piece(spec, long).text) == PIECE_CAP
    assert len(stem_pieces(spec, long)[1].text) == PIECE_CAP + 1


ATTRIBUTES = st.dictionaries(
    st.sampled_from(["item_id", "title", "year", "genres"]),
    st.none()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.lists(st.text()),
)


@given(st.lists(ATTRIBUTES, max_size=5), ATTRIBUTES)
def test_any_items_make_a_tree_whose_leaves_are_one_line(
    items: list[dict[str, object]], context: dict[str, object]
) -> None:
    tree = compose(changed(context="{{ title }}"), trunk(1), items, context)
    assert isinstance(tree, PromptTree)
    assert len(tree.leaves) == len(items)
    for node in tree.nodes[2:]:
        (piece,) = node.pieces
        assert piece.text
        assert "\n" not in piece.text
        piece.text.encode("utf-8")


@given(st.lists(st.sampled_from([TOY_STORY, HEAT, {}]), min_size=1, max_size=6))
def test_a_leaf_does_not_depend_on_its_neighbours(items: list[dict[str, object]]) -> None:
    tree = compose(MOVIES, trunk(), items)
    for place, item in enumerate(items):
        assert tree.nodes[2 + place] == compose(MOVIES, trunk(), [item]).nodes[2]
