"""What every policy keeps to, whatever the slate holds. A package that brings a kind can run `check_kind` on it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from surfaces.kinds import kinds
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger
from surfaces.policies.base import Entry, Policy, PolicyKind
from surfaces.sources.base import Materials
from surfaces.sources.fit import interactions_of
from surfaces.spec import SurfaceSpec
from surfaces.visit import Visit

EXAMPLES: dict[str, list[dict[str, object]]] = {
    "seen": [{}],
    "cap": [{"by": "tag", "max": 1}, {"by": "item_id", "max": 2}],
    "diversity": [{"strength": 0}, {"strength": 0.5}, {"strength": 1}],
    "freshness": [{"half_life": "2d", "strength": 0.3}, {"by": "tag", "half_life": "1s", "strength": 1}],
    "boost": [
        {"where": "item.tag == member.tag or 'a' in item.tag", "strength": 0.4},
        {"where": "not item.tag | length > context.query", "strength": -1},
    ],
    "explore": [{"rate": 0}, {"rate": 0.3}, {"rate": 1, "every": "1h", "seed": 7}],
    "pin": [{"items": ["c"]}, {"items": ["f", "a", "z"], "position": 3}],
    "match": [{"slots": 2, "capacity": 1}, {"slots": 3, "capacity": 3, "candidates": 4}],
}
"""Settings of every kind that is shipped."""

ITEMS, DAY = "abcdef", 86_400.0
ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.sampled_from(["", "a", "2026-01-02", "2026-01-02T03:04:05+14:00", "0001-01-01", "9999-12-31", "\ud800", "a\n"])
    | st.sampled_from([0, 1, -1, 10**400, -(10**400), 1 << 63, 1e308, -1e308]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)
ATTRIBUTES = st.dictionaries(st.sampled_from(["tag", "posted_at", "item_id", "query"]), ODD)
VECTORS = st.none() | st.integers(0, 7).map(lambda n: np.array([math.cos(n), math.sin(n)], dtype=np.float32))
CHANCES = st.floats(0.01, 1.0)


@st.composite
def slates(draw: st.DrawFn) -> list[Entry]:
    """Up to six entries, best first, level ones among them."""
    ids = draw(st.lists(st.sampled_from(ITEMS), unique=True, max_size=6))
    levels = sorted(draw(st.lists(st.sampled_from([0.0, 0.3, 1.0]) | st.floats(0, 1), min_size=6, max_size=6)))
    return [Entry(name, levels.pop(), draw(ATTRIBUTES), draw(VECTORS), draw(CHANCES)) for name in ids]


EVENTS = st.builds(
    Event, st.just("a"), st.sampled_from(ITEMS), st.just("s"), st.sampled_from(["show", "like"]), CHANCES
)
VISITS = st.builds(
    Visit,
    timeline=st.lists(EVENTS, max_size=4),
    member_id=st.sampled_from(["", "of a", "of b", "unknown"]),
    profile=ATTRIBUTES,
    context=ATTRIBUTES,
    now=st.sampled_from([0.0, 1_767_312_000.0, 1e300]),
)


def check_kind(kind: PolicyKind, materials: Materials) -> None:
    """What the entry of a surface file keeps to, and the policy that is made of it."""
    check_settings(kind)
    check_policy(kind.build(materials), drops=kind.drops)


def check_settings(kind: PolicyKind) -> None:
    """The settings are the same when they are written and read again, and the schema says what each is for."""
    assert type(kind).model_validate(kind.model_dump()) == kind
    assert type(kind).model_validate_json(kind.model_dump_json()) == kind
    fields = type(kind).model_json_schema()["properties"]
    assert [name for name, field in fields.items() if name != "type" and not field.get("description")] == []
    assert type(kind).__doc__
    with pytest.raises(ValidationError, match="no_such_key"):
        type(kind).model_validate({**kind.model_dump(), "no_such_key": 1})


def check_policy(policy: Policy, *, drops: bool, phases: Sequence[Phase] = tuple(Phase)) -> None:
    """Properties that hold for every slate, visit and k; `drops` is whether the policy may take entries away."""

    @settings(deadline=None, phases=phases)
    @given(slates(), VISITS, st.integers(1, 9))
    def check(slate: list[Entry], visit: Visit, k: int) -> None:
        before, told = list(slate), [_told(entry) for entry in slate]
        after = policy.apply(slate, visit, k)
        assert slate == before, "the caller's list was changed"
        assert [_told(entry) for entry in slate] == told, "an entry of the caller was changed"
        assert [_told(entry) for entry in policy.apply(slate, visit, k)] == [_told(entry) for entry in after]
        check_slate(slate, after, drops=drops)

    assert policy.apply([], Visit(), 5) == []
    check()


def check_slate(slate: Sequence[Entry], after: Sequence[Entry], *, drops: bool) -> None:
    """What came out is made of what went in."""
    given = {entry.item_id: entry for entry in slate}
    names = [entry.item_id for entry in after]
    assert len(set(names)) == len(names), "an entry came out twice"
    assert set(names) <= set(given), "an entry was added"
    assert drops or len(names) == len(slate), "an entry was dropped"
    for entry in after:
        assert math.isfinite(entry.relevance)
        assert 0 < entry.propensity <= 1
        assert entry.attributes is given[entry.item_id].attributes
        assert entry.vector is given[entry.item_id].vector


def _told(entry: Entry) -> tuple[object, ...]:
    vector = None if entry.vector is None else entry.vector.tolist()
    return entry.item_id, entry.relevance, entry.propensity, repr(entry.attributes), vector


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Materials]:
    """A surface of people, each of whom chose the next two."""
    spec = SurfaceSpec.model_validate(
        {
            "surface": "people", "description": "People", "item_kind": "person",
            "prompt": {"instruction": "Who?", "item": "{{ name }}"},
            "sources": [{"type": "popular", "k": 5}], "heads": [{"name": "like", "type": "choice", "weight": 1.0}],
        }
    )  # fmt: skip
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('people')}/ledger.sqlite") as ledger:
        ledger.write(
            members=[Member(f"of {name}", {}) for name in ITEMS],
            items=[Item(name, "person", {"name": name.upper()}, f"of {name}") for name in ITEMS],
            events=[
                Event(f"of {name}", ITEMS[(place + step) % len(ITEMS)], "people", "like", DAY * step)
                for place, name in enumerate(ITEMS)
                for step in (1, 2)
            ],
        )
        yield Materials(spec, interactions_of(spec, ledger), ledger)


def test_every_kind_has_an_example() -> None:
    assert set(EXAMPLES) == set(kinds("policies"))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        pytest.param(name, given, id=f"{name} {json.dumps(given)}")
        for name in kinds("policies")
        for given in EXAMPLES.get(name, [])
    ],
)
def test_every_policy_keeps_the_contract(name: str, given: dict[str, object], materials: Materials) -> None:
    kind = kinds("policies")[name].model_validate({"type": name, **given})
    assert isinstance(kind, PolicyKind)
    check_kind(kind, materials)


class Faulty:
    """A policy that does one thing wrong."""

    def __init__(self, fault: str) -> None:
        self.fault, self.turn = fault, 0

    def apply(self, slate: Sequence[Entry], visit: Visit, k: int) -> list[Entry]:
        self.turn += 1
        faults = {
            "doubles": [*slate, *slate[:1]],
            "adds": [*slate, Entry("new", 0.5)] if slate else [],
            "drops": list(slate[1:]),
            "is not finite": [Entry(one.item_id, math.nan, one.attributes, one.vector) for one in slate],
            "has no propensity": [Entry(one.item_id, 0.5, one.attributes, one.vector, 0.0) for one in slate],
            "forgets the vector": [Entry(one.item_id, 0.5, one.attributes) for one in slate],
            "changes attributes": [Entry(one.item_id, 0.5, {}, one.vector) for one in slate],
            "answers differently": [Entry(o.item_id, 1 / self.turn, o.attributes, o.vector) for o in slate],
        }
        if self.fault == "empties the list" and isinstance(slate, list):
            slate.clear()
        return faults.get(self.fault, list(slate))


@pytest.mark.parametrize(
    "fault",
    ["doubles", "adds", "drops", "is not finite", "has no propensity", "forgets the vector", "changes attributes",
     "answers differently", "empties the list"],
)  # fmt: skip
def test_the_contract_finds(fault: str) -> None:
    with pytest.raises(AssertionError):
        check_policy(Faulty(fault), drops=False, phases=[Phase.generate])  # the smallest example is nobody's question


def test_the_contract_passes_a_policy_that_does_nothing() -> None:
    check_policy(Faulty("nothing"), drops=False)
