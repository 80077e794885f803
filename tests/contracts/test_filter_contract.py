"""What every filter does, whatever it drops.

A package that brings its own kind runs the same check: `check_filter(kind)`, on a filter that it made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surfaces.filters.base import FilterKind
from surfaces.kinds import kinds
from surfaces.ledger.records import Event, Item
from surfaces.visit import NOBODY, Visit

EXAMPLES: Mapping[str, Sequence[Mapping[str, object]]] = {
    "seen": [{}, {"actions": ["like"], "within": "1h"}],
    "available": [{}, {"flag": "a", "from": "b", "until": "c", "stock": "d"}],
    "blocked": [{}, {"actions": ["like", "hide"], "by": "a"}],
    "where": [
        {"keep": "item.a == member.a or item.b in context.c"},
        {"keep": "item.a < 3 and not item.d or item.item_id == member.member_id or item.kind != context.kind"},
    ],
}
"""Settings of every kind, to be checked; `type` is added."""

NAMES = ["a", "b", "c", "d", "available", "available_from", "expires_at", "item_id", "kind"]
IDS = ["x", "y", "z"]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 10**400, -(10**400), "no", "0", "1e999", "-1", "2020-01-01", "0001-01-01T00:00:00+14:00"])
    | st.floats()
    | st.text(max_size=8)
    | st.dates().map(str)
    | st.datetimes().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
attributes = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), values, max_size=6)
items = st.builds(
    Item, st.sampled_from(IDS), st.sampled_from(["job", "post"]), attributes, st.none() | st.sampled_from(IDS)
)
events = st.builds(
    Event,
    st.just("m"),
    st.sampled_from([*IDS, "gone"]),
    st.just("s"),
    st.sampled_from(["show", "like", "hide", "block"]),
    st.floats(0, 1e10),
)


def visited(told: Mapping[str, object], known: Sequence[Item], timeline: Sequence[Event], now: float) -> Visit:
    by_id = {item.item_id: item for item in known}

    def lookup(ids: Iterable[str]) -> Mapping[str, Item]:
        return {name: by_id[name] for name in ids if name in by_id}

    return Visit(timeline, "m", told, told, now, lookup)


visits = st.just(NOBODY) | st.builds(
    visited, attributes, st.lists(items, max_size=3), st.lists(events, max_size=5), st.sampled_from([0.0, 1e9, 1e10])
)


def check_filter(kind: FilterKind) -> None:
    """Total, repeatable, and only reading; what it excludes are ids."""

    @settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
    @given(visit=visits, candidates=st.lists(items, max_size=4))
    def check(visit: Visit, candidates: list[Item]) -> None:
        before = deepcopy((candidates, visit.profile, visit.timeline))
        excluded, test = frozenset(kind.excludes(visit)), kind.test(visit)
        kept = [test(item) for item in candidates]
        assert all(type(answer) is bool for answer in kept)
        assert all(isinstance(name, str) for name in excluded)
        assert [test(item) for item in candidates] == kept, "asked again"
        assert [kind.test(visit)(item) for item in reversed(candidates)] == kept[::-1], "made again, in another order"
        assert frozenset(kind.excludes(visit)) == excluded
        assert repr((candidates, visit.profile, visit.timeline)) == repr(before), "everything is only read"

    check()
    vast = Item("x", "job", dict.fromkeys(NAMES, 10**5_000))  # too long to be written down
    assert type(kind.test(Visit(profile=vast.attributes, context=vast.attributes, now=1.0))(vast)) is bool


def make(entry: Mapping[str, object]) -> FilterKind:
    return cast("type[FilterKind]", kinds("filters")[str(entry["type"])]).model_validate(entry)


ENTRIES = [{"type": kind, **example} for kind, examples in EXAMPLES.items() for example in examples]


def test_every_kind_is_here() -> None:
    assert set(EXAMPLES) == set(kinds("filters")), "give each kind of filter an example, so that it is checked"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: " ".join(map(str, entry.values()))[:40])
def test_filter(entry: Mapping[str, object]) -> None:
    check_filter(make(entry))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: " ".join(map(str, entry.values()))[:40])
def test_an_entry_says_the_same_when_it_is_written_again(entry: Mapping[str, object]) -> None:
    kind = make(entry)
    written = kind.model_dump(mode="json")
    keys = type(kind).model_json_schema()["properties"]
    assert set(written) == set(keys)
    assert all("description" in keys[key] or "anyOf" in keys[key] for key in keys if key != "type")
    assert make(written) == kind
