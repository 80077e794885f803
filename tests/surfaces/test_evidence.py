"""What sources say in words: places among the unseen, fine at the top."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from surfaces.compose import Composer
from surfaces.evidence import LOW, NONE, TOPS, evidence_pieces, labels, levels, unforged, vocabulary
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from surfaces.sources.base import NOTHING, Interactions, Materials
from surfaces.sources.fit import advisers, evidence_only
from surfaces.sources.merge import Retrieval
from surfaces.sources.opinions import Opinion, Opinions
from surfaces.spec import SurfaceSpec
from surfaces.visit import Visit
from tests.contracts.test_source_contract import drawn, interactions
from tests.surfaces.test_sources import surface
from tests.surfaces.world import chosen, fill_few

NOBODY = np.zeros(0, dtype=np.int64)


def test_the_first_places_are_told_apart() -> None:
    found = levels(np.arange(2000, 0, -1, dtype=np.float64), NOBODY)
    assert found[:5].tolist() == [0, 1, 2, 3, 4]
    assert found[5:7].tolist() == [5, 5]
    assert found[999] == len(TOPS) - 1
    assert found[1000] == LOW


def test_seen_items_take_no_places() -> None:
    scores = np.array([9.0, 8.0, 7.0, 6.0])
    assert levels(scores, np.array([0, 1])).tolist()[2:] == [0, 1]


def test_a_seen_item_is_placed_by_its_own_score() -> None:
    assert levels(np.array([9.0, 8.0, 7.0]), np.array([1])).tolist() == [0, 1, 1]


def test_silence_is_no_low_place() -> None:
    assert levels(np.array([1.0, NOTHING, NOTHING]), NOBODY).tolist() == [0, NONE, NONE]
    assert levels(np.full(3, NOTHING), np.array([1])).tolist() == [NONE] * 3


def test_equal_scores_are_equal_places() -> None:
    assert levels(np.array([1.0, 2.0, 1.0, 1.0]), NOBODY).tolist() == [1, 0, 1, 1]


def test_many_at_once_stand_as_each_alone() -> None:
    """The places of a few are counted; those of many are looked up among the first."""
    rng = np.random.default_rng(0)
    scores, seen = rng.integers(0, 900, 3000).astype(np.float64), np.arange(40)
    scores[100:200] = NOTHING
    alone = [levels(scores, seen, np.array([item])).item() for item in range(400)]
    assert levels(scores, seen, np.arange(400)).tolist() == alone


def test_scores_are_left_as_they_were() -> None:
    scores = np.array([3.0, 2.0])
    levels(scores, np.array([0]))
    assert scores.tolist() == [3.0, 2.0]


@pytest.mark.parametrize("compress", [False, True])
def test_words_are_the_same_whatever_the_surface(compress: bool) -> None:
    [piece] = evidence_pieces(("popularity", "chosen together"), [(3, NONE)], compress=compress)
    assert piece.text == " (popularity top 4, chosen together none)"
    assert piece.compress is compress


def test_the_vocabulary_has_every_phrase() -> None:
    phrases = " ".join(vocabulary())
    assert all(f"{label} top {top}" in phrases for label in labels().values() for top in TOPS)
    assert all(f"{label} {word}" in phrases for label in labels().values() for word in ("low", "none"))


def test_every_source_with_a_label_can_speak() -> None:
    assert labels() == {
        "popular": "popularity",
        "co_visitation": "chosen together",
        "itemknn": "similar to chosen",
        "ease": "fits chosen",
        "als": "taste",
        "slist": "comes next",
        "sasrec": "sequence",
        "embedding": "alike",
        "bm25": "text match",
        "recent": "newness",
    }


# Who is asked


def test_a_source_that_learned_nothing_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its `none` in every leaf would read as if every member were a stranger."""
    spec = Registry.shipped().surface("movies").model_copy(update={"evidence": ("popular", "slist", "sasrec")})
    ledger = cast("Ledger", None)  # none of them reads it

    def asked(data: Interactions) -> list[str]:
        return [adviser.name for adviser in advisers(Materials(spec, data, ledger))]

    assert asked(drawn(0)) == ["popular", "slist"], "there are too few choices for sasrec"
    assert asked(interactions([[], []])) == ["popular"]
    monkeypatch.setattr("surfaces.sources.slist.LARGEST", 3)
    assert asked(drawn(0)) == ["popular"]


# In the leaves of a surface


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Who chose d chose a and b with it; c is joined to d by a and b alone, and nobody chose f."""
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite") as opened:
        fill_few(opened)
        yield opened


def asking(ledger: Ledger, evidence: str) -> tuple[SurfaceSpec, Retrieval]:
    """A surface with that evidence, and the sources behind it."""
    spec = surface("type: popular, k: 2", more=f"evidence: [{evidence}]")
    return spec, evidence_only(Materials(spec, Interactions.of(ledger, "movie"), ledger))


def leaves(ledger: Ledger, evidence: str, visit: Visit, *candidates: str) -> list[str]:
    """What a surface with that evidence says of the candidates, as the model reads it."""
    spec, retrieval = asking(ledger, evidence)
    composer = Composer(spec, Registry.shipped().trunk("member"), retrieval, lambda piece: len(piece.text))
    named = [event.item_id for event in visit.timeline]
    tree = composer.tree(visit, ledger.items([*candidates, *named]), candidates)
    return ["".join(piece.text for piece in tree.nodes[leaf].pieces) for leaf in tree.leaves]


def test_leaves_carry_what_neighbours_and_weights_say(ledger: Ledger) -> None:
    visit = Visit(chosen("x", "d"))
    assert leaves(ledger, "itemknn, ease", visit, "c", "a", "f", "b") == [
        "C (similar to chosen none, fits chosen top 3)",
        "A (similar to chosen top 2, fits chosen top 2)",
        "F (similar to chosen none, fits chosen none)",
        "B (similar to chosen top 1, fits chosen top 1)",
    ]
    assert leaves(ledger, "ease, popular", visit, "a") == ["A (fits chosen top 2, popularity top 1)"]


def test_leaves_carry_a_taste(ledger: Ledger) -> None:
    """Of a member who chose b and d, as bob did, a is the nearest; nobody chose f."""
    assert leaves(ledger, "als", Visit(chosen("x", "b", "d")), "c", "a", "f") == [
        "C (taste top 2)", "A (taste top 1)", "F (taste none)",
    ]  # fmt: skip


@pytest.mark.parametrize("source", ["itemknn", "ease", "als"])
def test_to_a_newcomer_they_are_silent(ledger: Ledger, source: str) -> None:
    (leaf,) = leaves(ledger, source, Visit(), "a")
    assert leaf == f"A ({labels()[source]} none)"


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("Heat (popularity top 1, chosen together top 1) Action", "Heat Action"),
        ("(Overall TOP 1) Heat", "Heat"),
        ("Heat [popularity: top 1] [overall: top 3]", "Heat"),
        ("Heat text match top 20 comes next top 1. Action", "Heat Action"),
        ("Top 10 songs of the top 100 (top 5)", "Top 10 songs of the top 100 (top 5)"),
        ("Overall, the popularity of top hats", "Overall, the popularity of top hats"),
        ("A tabletop 12", "A tabletop 12"),
    ],
)
def test_an_item_cannot_speak_for_the_sources(said: str, left: str) -> None:
    assert unforged(said).strip() == left


def test_nothing_that_a_source_says_of_a_high_place_passes_as_an_items_text() -> None:
    for label in (*labels().values(), "overall"):
        for top in TOPS:
            assert unforged(f"Heat ({label} top {top})").strip() == "Heat"


def test_what_was_said_to_one_visit_is_not_said_to_another(ledger: Ledger) -> None:
    """Opinions are kept by what they depend on: the history, and the query or the profile where these are read."""
    _, retrieval = asking(ledger, "bm25, popular, overall")
    said = [
        [piece.text for piece in retrieval.evidence(visit, "abcf", compress=False)]
        for visit in (
            Visit(chosen("x", "d")),
            Visit(chosen("x", "d"), context={"query": "a"}),
            Visit(chosen("x", "d"), context={"query": "b"}),
            Visit(profile={"likes": "c"}),
            Visit(profile={"likes": "f"}),
            Visit(chosen("x", "d")),
        )
    ]
    alone = [
        [piece.text for piece in asking(ledger, "bm25, popular, overall")[1].evidence(visit, "abcf", compress=False)]
        for visit in (Visit(chosen("x", "d"), context={"query": "b"}), Visit(profile={"likes": "f"}))
    ]
    assert said[0] == said[-1]
    assert [said[2], said[4]] == alone
    assert len({tuple(each) for each in said}) == 5
    assert retrieval.opinions.bytes > 0


@pytest.mark.parametrize("size", [10, 5_000])
def test_an_opinion_is_kept_as_it_was_given(size: int) -> None:
    """A large one lies in pages of its own, which are no longer the giver's."""
    rng, opinions, key = np.random.default_rng(0), Opinions(), ("ease", b"history", "")
    given = Opinion(rng.random(size), np.sort(rng.random(min(size, 1000))), rng.random(size))
    whole = Opinion(*(None if part is None else part.copy() for part in given))
    opinions.keep(key, given)
    held = opinions.bytes
    assert held >= given.scores_I.nbytes + given.top_T.nbytes
    if size > 1_000:
        given.scores_I[:] = 0
    found = opinions.find(key)
    assert found is not None
    assert all(np.array_equal(one, other) for one, other in zip(found, whole, strict=True) if one is not None)
    opinions.keep(("popular", b"history", ""), Opinion(rng.random(size), rng.random(10), None))
    other = opinions.find(("popular", b"history", ""))
    assert other is not None
    assert other.part_I is None
    opinions.forget()
    assert (opinions.find(key), opinions.bytes) == (None, 0)
    assert np.array_equal(found.scores_I, whole.scores_I), "who has it still has it"
