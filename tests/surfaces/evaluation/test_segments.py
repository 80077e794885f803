"""Segments, and what is recommended for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from surfaces.evaluation.protocols import Split, global_time, leave_one_out
from surfaces.evaluation.recommend import FEWEST, Advice, advise, routing
from surfaces.evaluation.segments import segments
from surfaces.ledger.store import Ledger
from surfaces.spec import SurfaceSpec
from surfaces.traffic import Traits
from tests.surfaces.evaluation.shelf import DAY, event, fill, movies


def inside(split: Split) -> dict[str, list[bool]]:
    return {segment.name: segment.inside_M.tolist() for segment in segments(split)}


def test_by_history_and_by_item(shelf: Ledger) -> None:
    found = inside(leave_one_out(shelf, movies()))
    # Histories of ann 2, bob 1, dan 2. Learned: b three times, a and c once; so b alone is the head.
    assert found["members: up to 5 events"] == [True] * 3
    assert found["members: up to 100 events"] == [True] * 3
    assert "members: no events" not in found, "no segment without cases"
    assert found["items: tail"] == [True, True, True]
    assert "items: head (half of events)" not in found
    assert not any(name.startswith("since training") for name in found), "leave-one-out has no such moment"


def test_items_that_nobody_learned_of_are_cold(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/cold.sqlite") as ledger:
        fill(ledger, [event("ann", "a", 1.0), event("ann", "j", 2.0), event("bob", "b", 1.0), event("bob", "a", 2.0)])
        assert inside(leave_one_out(ledger, movies()))["items: cold (not in training)"] == [True, False]


def test_by_the_time_since_training(tmp_path: Path) -> None:
    old = [event("cy", item, n) for item in "abcdefgh" for n in (1.0, 2.0, 3.0)]
    new = [
        event("ann", "a", DAY),
        event("bob", "b", 1.5 * DAY),
        event("dan", "c", 5 * DAY),
        event("new", "d", 90 * DAY),
    ]
    with Ledger.open(f"sqlite:///{tmp_path}/gaps.sqlite") as ledger:
        fill(ledger, [*old, *new])
        found = inside(global_time(ledger, movies(), share=0.12))
    assert found["since training: up to a day"] == [True, True, False, False]
    assert found["since training: up to a week"] == [False, False, True, False]
    assert found["since training: over 30 days"] == [False, False, False, True]
    assert found["members: no events"] == [True] * 4


def test_a_segment_of_members_is_what_routing_calls_it(movielens: Ledger) -> None:
    """The condition of a segment holds for just the visits in it."""
    split = leave_one_out(movielens, movies(), members=200)
    for segment in segments(split):
        if segment.when is None:
            continue
        content = {
            **movies().model_dump(mode="json"),
            "routing": {"rules": [{"when": segment.when, "to": "classical"}]},
        }
        rule = SurfaceSpec.model_validate(content).routing.rules[0]
        lengths = [len(split.train.history(case.history)) for case in split.cases]
        assert [rule.when.holds(Traits(length, 0.0, 0.0, None)) for length in lengths] == segment.inside_M.tolist()


# Advice

SECONDS = {"foundation": 0.04, "fused": 0.05, "ease": 0.001, "popular": 0.0001}


def values(members: int, **shifts: float) -> dict[str, np.ndarray]:
    """By method, figures that differ by so much, member by member, with some noise."""
    rng = np.random.default_rng(0)
    hard = rng.random(members)
    return {name: hard + shift + 0.05 * rng.normal(size=members) for name, shift in shifts.items()}


def test_the_cheap_way_wins_unless_a_dearer_one_is_better() -> None:
    found = advise(values(200, foundation=0.0, fused=0.002, ease=0.0), SECONDS, ["ease"])
    assert (found.route, found.method, found.seconds) == ("classical", "ease", 0.001)
    assert "nothing dearer is above it beyond chance (foundation " in found.reason


def test_of_two_that_are_better_the_cheaper_one_unless_it_is_behind() -> None:
    level = advise(values(200, foundation=0.1, fused=0.1, ease=0.0), SECONDS, ["ease"])
    assert (level.route, level.seconds) == ("foundation", 0.04)
    assert level.gain is not None
    assert level.gain.low > 0
    assert level.reason.startswith("above ease by +0.")
    ahead = advise(values(200, foundation=0.1, fused=0.2, ease=0.0), SECONDS, ["ease"])
    assert ahead.route == "fused"
    alone = advise(values(200, foundation=-0.1, fused=0.2, ease=0.0), SECONDS, ["ease"])
    assert alone.route == "fused"


def test_what_the_sources_bring_together_is_no_merit_of_the_model() -> None:
    """A fusion that is above the best single method, but not above the sources' own sum, is not worth the model."""
    rivals = ["ease", "fused_sources"]
    told = {**SECONDS, "fused_sources": 0.002}
    found = advise(values(200, foundation=0.0, fused=0.2, ease=0.0, fused_sources=0.2), told, rivals)
    assert (found.route, found.method) == ("classical", "fused_sources")
    better = advise(values(200, foundation=0.0, fused=0.3, ease=0.0, fused_sources=0.2), told, rivals)
    assert (better.route, better.reason[:23]) == ("fused", "above fused_sources by ")


def test_few_members_tell_nothing() -> None:
    found = advise(values(FEWEST - 1, foundation=0.5, ease=0.0), SECONDS, ["ease"])
    assert found.route is None
    assert f"too few members to tell ({FEWEST - 1}; {FEWEST} are needed)" in found.reason


def test_with_nothing_to_compare() -> None:
    assert advise(values(50, foundation=0.0), SECONDS, []).route == "foundation"
    assert advise(values(50, ease=0.0), SECONDS, ["ease"]).route == "classical"


COLD, SHORT, LONG = ({"history": {"max": 0}}, {"history": {"max": 5}}, {"history": {"min": 101}})


def said(route: str | None) -> Advice:
    return Advice(route, "", "")  # type: ignore[arg-type]


def test_routing_follows_the_advice_and_loads() -> None:
    advice = [(COLD, said("classical")), (SHORT, said(None)), (LONG, said("fused"))]
    found = routing(advice, said("foundation"), {"foundation": 1.0, "popular": 0.5, "embedding": 0.0})
    assert found == {
        "rules": [{"when": COLD, "to": "classical"}, {"when": LONG, "to": "fused"}],
        "default": "foundation",
        "fused": {"foundation": 1.0, "popular": 0.5},
    }
    spec = SurfaceSpec.model_validate({**movies().model_dump(mode="json"), "routing": found})
    assert spec.routing.default == "foundation"


def test_a_fusion_without_the_model_is_no_way_that_asks_it() -> None:
    found = routing([(LONG, said("fused"))], said("foundation"), {"foundation": 0.0, "popular": 0.5})
    assert found == {"rules": [{"when": LONG, "to": "classical"}], "default": "foundation"}


@pytest.mark.parametrize("route", ["classical", "foundation"])
def test_rules_that_say_what_the_default_says_are_left_out(route: str) -> None:
    found = routing([(COLD, said(route)), (LONG, said(route))], said(route), {})
    assert found == {"rules": [], "default": route}


def test_no_routing_where_nothing_is_known() -> None:
    assert routing([], said(None), {}) is None
