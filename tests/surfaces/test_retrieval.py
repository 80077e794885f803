"""How sources are fitted, asked together and put in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.engine.torch import TorchEngine
from prompts.errors import ConfigError, SpecError
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from surfaces.sources.base import Indices, Interactions, Materials
from surfaces.sources.fit import fit_sources
from surfaces.sources.merge import RRF, Candidate, fallback_order, fuse, parts, shares
from surfaces.visit import NOBODY, Visit
from tests.surfaces.test_sources import names, retrieval, surface, visit_of
from tests.surfaces.world import chosen, fill_few


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A few films and members."""
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite") as opened:
        fill_few(opened)
        yield opened


# Lists as one: reciprocal-rank fusion


def test_fusion_is_the_sum_of_reciprocal_ranks() -> None:
    lists = {"one": ["a", "b", "c"], "two": ["c", "d"]}
    found = fuse(lists, {"one": 1.0, "two": 1.0})
    right = {"a": 1 / 61, "b": 1 / 62, "c": 1 / 63 + 1 / 61, "d": 1 / 62}
    assert names(found) == ["c", "a", "b", "d"], "b and d are level: in the order of sources"
    assert {one.item_id: sum(parts(one, {}).values()) for one in found} == pytest.approx(right)
    assert found[0] == Candidate("c", {"one": 3, "two": 1})
    assert RRF == 60


def test_weights_of_sources_count() -> None:
    lists = {"one": ["a", "b"], "two": ["c", "d"]}
    assert names(fuse(lists, {"one": 1.0, "two": 2.0})) == ["c", "d", "a", "b"]
    assert names(fuse(lists, {"one": 1.0, "two": 61 / 62 - 1e-9})) == ["a", "b", "c", "d"]
    assert names(fuse(lists, {"one": 1.0, "two": 1.0})) == ["a", "c", "b", "d"]
    assert fuse({}, {}) == fuse({"one": []}, {}) == []


@given(st.lists(st.lists(st.sampled_from("abcdef"), unique=True, max_size=6), max_size=4), st.floats(0.1, 10))
def test_any_lists_fuse(found: list[list[str]], weight: float) -> None:
    lists = {f"s{number}": item_ids for number, item_ids in enumerate(found)}
    weights = dict.fromkeys(lists, 1.0) | {"s0": weight}
    merged = fuse(lists, weights)
    assert sorted(names(merged)) == sorted({item for item_ids in found for item in item_ids})
    sums = [sum(weights[name] / (60 + rank) for name, rank in one.sources.items()) for one in merged]
    assert sums == sorted(sums, reverse=True)
    assert sum(shares(merged, weights).values()) == pytest.approx(1.0 if merged else 0.0)


def test_shares_tell_what_each_source_brought() -> None:
    weights = {"one": 2.0, "two": 1.0, "three": 1.0}
    found = shares([Candidate("a", {"one": 1}), Candidate("b", {"two": 1})], weights)
    assert found == pytest.approx({"one": 2 / 3, "two": 1 / 3, "three": 0.0})
    assert shares([], weights) == {"one": 0.0, "two": 0.0, "three": 0.0}


# A surface's sources together


BOTH = ("type: co_visitation, k: 2", "type: popular, k: 3")
SEEN = "filters: [seen]"


def test_sources_are_fused(ledger: Ledger) -> None:
    found = retrieval(ledger, *BOTH).gather(Visit(chosen("x", "d")))
    assert found == [
        Candidate("b", {"co_visitation": 1, "popular": 2}),
        Candidate("a", {"co_visitation": 2, "popular": 1}),
        Candidate("c", {"popular": 3}),
    ]


def test_the_order_of_sources_decides_between_level_ones(ledger: Ledger) -> None:
    assert names(retrieval(ledger, *BOTH[::-1]).gather(Visit(chosen("x", "d")))) == ["a", "b", "c"]


def test_a_weight_in_the_file_decides(ledger: Ledger) -> None:
    found = retrieval(ledger, "type: co_visitation, k: 2, weight: 5", "type: popular, k: 3")
    assert names(found.gather(Visit(chosen("x", "d")))) == ["b", "a", "c"]
    found = retrieval(ledger, "type: co_visitation, k: 2", "type: popular, k: 3, weight: 5")
    assert names(found.gather(Visit(chosen("x", "d")))) == ["a", "b", "c"]


def test_two_sources_of_one_type_have_names(ledger: Ledger) -> None:
    lately = "type: popular, name: lately, k: 2, half_life: 1s"
    found = retrieval(ledger, lately, "type: popular, k: 1").gather(NOBODY)
    assert found == [Candidate("a", {"lately": 2, "popular": 1}), Candidate("c", {"lately": 1})]
    with pytest.raises(SpecError, match="'popular' is listed twice; give one of the two another 'name'"):
        surface("type: popular, k: 2", "type: popular, k: 1")


def test_what_was_seen_gives_its_place_to_others(ledger: Ledger) -> None:
    acted = [*chosen("x", "d"), Event("x", "a", "movies", "dismiss", 5.0), Event("x", "gone", "movies", "watch", 6.0)]
    found = retrieval(ledger, *BOTH, more=SEEN).gather(visit_of(ledger, acted))
    assert names(found) == ["b", "c", "e"]
    everything = [Event("x", name, "movies", "watch", 1.0) for name in "abcdef"]
    assert retrieval(ledger, *BOTH, more=SEEN).gather(visit_of(ledger, everything)) == []


@pytest.mark.parametrize(
    "timeline", [[], chosen("x", "f"), chosen("x", "unknown"), [Event("x", "a", "m", "show", 1.0)]]
)
def test_nobody_leaves_empty_handed(ledger: Ledger, timeline: list[Event]) -> None:
    found = retrieval(ledger, "type: co_visitation, k: 2").gather(Visit(timeline))
    assert found == [Candidate("a", {"popular": 1}), Candidate("b", {"popular": 2})]


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Ledger]:
    """200 films; the first 150, in the order of popularity, are sold out."""
    with Ledger.open(f"sqlite:///{tmp_path}/many.sqlite") as opened:
        films = [f"film {place:03}" for place in range(200)]
        opened.write(
            items=[Item(name, "movie", {"left": int(place >= 150)}) for place, name in enumerate(films)],
            members=[Member("m", {})],
            events=[
                Event("m", name, "movies", "watch", float(time))
                for place, name in enumerate(films)
                for time in range(1 + (200 - place) // 50)
            ],
        )
        yield opened


SOLD_OUT = "filters: [{type: available, stock: left}]"


@pytest.mark.parametrize("k", [1, 10, 30, 50])
def test_a_source_whose_best_are_filtered_out_still_brings_k(many: Ledger, k: int) -> None:
    found = retrieval(many, f"type: popular, k: {k}", more=SOLD_OUT).gather(visit_of(many))
    assert names(found) == [f"film {place}" for place in range(150, 150 + k)]
    assert [one.sources["popular"] for one in found] == list(range(1, k + 1))


def test_a_source_brings_no_more_than_pass(many: Ledger) -> None:
    assert len(retrieval(many, "type: popular, k: 100", more=SOLD_OUT).gather(visit_of(many))) == 50


def test_items_that_policies_bring_come_last(many: Ledger) -> None:
    found = retrieval(many, "type: popular, k: 2", more=SOLD_OUT)
    brought = ["film 199", "film 000", "film 151", "unknown"]
    assert found.gather(visit_of(many), brought) == [
        Candidate("film 150", {"popular": 1}),
        Candidate("film 151", {"popular": 2}),
        Candidate("film 199", {}),
    ]


def test_candidates_of_the_request_join_the_others(many: Ledger) -> None:
    found = retrieval(many, "type: request, k: 3", "type: popular, k: 2", more=SOLD_OUT)
    given = ["film 160", "film 000", "film 150", "film 160", "unknown", "film 161", "film 162"]
    assert found.gather(visit_of(many, given=given)) == [
        Candidate("film 150", {"request": 2, "popular": 1}),
        Candidate("film 160", {"request": 1}),
        Candidate("film 151", {"popular": 2}),
        Candidate("film 161", {"request": 3}),
    ]
    assert names(found.gather(visit_of(many))) == ["film 150", "film 151"]
    placed = found.place(visit_of(many, given=["film 003", "film 001"]), ["film 001", "film 003"])
    assert [one.sources.get("request") for one in placed] == [2, 1]


def test_a_policy_that_drops_what_was_seen_leaves_it_out_early(ledger: Ledger) -> None:
    found = retrieval(ledger, "type: popular, k: 2", more="policies: [{type: seen}]")
    assert names(found.gather(visit_of(ledger, chosen("x", "a")))) == ["b", "c"]


def test_placing_given_items(ledger: Ledger) -> None:
    found, visit = retrieval(ledger, *BOTH), Visit(chosen("x", "d"))
    placed = found.place(visit, ["f", "c", "unknown", "a", "b"])
    assert placed == [
        Candidate("f", {"popular": 4}),
        Candidate("c", {"popular": 2}),
        Candidate("unknown", {}),
        Candidate("a", {"co_visitation": 2, "popular": 1}),
        Candidate("b", {"co_visitation": 1, "popular": 3}),
    ]
    assert names(fallback_order(placed, ["popular"])) == ["a", "c", "b", "f", "unknown"], "c and b tie: as given"
    assert found.place(NOBODY, []) == []


def test_the_order_of_the_fallback() -> None:
    candidates = [
        Candidate("p2", {"popular": 2}),
        Candidate("c1", {"co_visitation": 1}),
        Candidate("both", {"popular": 1, "co_visitation": 2}),
        Candidate("e1", {"embedding": 1}),
        Candidate("p1", {"popular": 1}),
    ]
    assert names(fallback_order(candidates, ["co_visitation", "popular"])) == ["c1", "both", "p1", "p2", "e1"]
    assert names(fallback_order(candidates, ["popular", "embedding"])) == ["both", "p1", "p2", "e1", "c1"]
    assert names(fallback_order(candidates, [])) == names(candidates)


# Evidence


def test_evidence_is_what_the_sources_say(ledger: Ledger) -> None:
    found = retrieval(ledger, "type: popular, k: 2", more="evidence: [co_visitation, popular, recent]")
    pieces = found.evidence(Visit(chosen("x", "d")), ["a", "f", "unknown"], compress=True)
    assert [piece.text for piece in pieces] == [
        " (chosen together top 2, popularity top 1, newness top 2)",
        " (chosen together none, popularity top 4, newness none)",
        " (chosen together none, popularity none, newness none)",
    ]
    assert all(piece.compress for piece in pieces)
    assert retrieval(ledger, "type: popular, k: 2").evidence(NOBODY, ["a"], compress=False) == []


# With a model


def test_embedding_needs_a_model(ledger: Ledger) -> None:
    with pytest.raises(ConfigError, match="surface 'films': the items' vectors need a model; name one"):
        retrieval(ledger, "type: embedding, k: 3")


def test_embedding_with_a_real_model(ledger: Ledger, tiny_engine: TorchEngine) -> None:
    data = Interactions.of(ledger, "movie")
    fitted = fit_sources(Materials(surface("type: embedding, k: 3", more=SEEN), data, ledger, tiny_engine))
    found = fitted.gather(visit_of(ledger, chosen("x", "c")))
    assert len(found) == 3
    vectors = tiny_engine.embed([name.upper() for name in "abcdef"])
    near: Indices = np.argsort(-(vectors @ vectors[2]), kind="stable")
    assert names(found) == ["abcdef"[place] for place in near if place != 2][:3]
    assert names(fitted.gather(visit_of(ledger))) == ["a", "b", "c"], "without a history, the last resort"


def test_the_shipped_surface_on_movielens(movielens: Ledger) -> None:
    spec = Registry.shipped().surface("movies")
    spec = spec.model_copy(update={"sources": spec.sources[:2], "evidence": ()})
    fitted = fit_sources(Materials(spec, Interactions.of(movielens, "movie"), movielens, None))
    timeline = movielens.timeline("196")
    found = fitted.gather(visit_of(movielens, timeline))
    assert len(found) >= 100
    assert not {event.item_id for event in timeline} & set(names(found))
    assert {source for candidate in found for source in candidate.sources} == {"popular", "co_visitation"}
