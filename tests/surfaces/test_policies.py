"""What every policy keeps to, and what each of them does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surfaces.policies import POLICIES, build_policies
from surfaces.policies.base import Policy
from surfaces.policies.seen import Seen
from surfaces.registry import Registry
from surfaces.spec import PolicySpec, SurfaceSpec, surface_schema


class Entry(NamedTuple):
    item_id: str
    utility: float = 0.0


class Act(NamedTuple):
    item_id: str
    action: str


SPECS = [PolicySpec.model_validate({"type": name}) for name in POLICIES]
ITEMS = st.sampled_from("abcdef")
SLATES = st.lists(ITEMS, unique=True, max_size=6).map(lambda ids: [Entry(item, n) for n, item in enumerate(ids)])
HISTORIES = st.lists(st.builds(Act, ITEMS, st.sampled_from(["show", "watch", "like"])), max_size=8)


@pytest.fixture(params=SPECS, ids=lambda spec: spec.type)
def policy(request: pytest.FixtureRequest) -> Policy:
    (built,) = build_policies([request.param])
    return built


class TestEveryPolicy:
    def test_empty_slates_stay_empty(self, policy: Policy) -> None:
        assert policy.apply([], [Act("a", "watch")]) == []

    def test_without_history_nothing_is_lost(self, policy: Policy) -> None:
        slate = [Entry("a", 2.0), Entry("b", 1.0)]
        assert policy.apply(slate, []) == slate

    def test_it_adds_changes_and_doubles_nothing(self, policy: Policy) -> None:
        @given(SLATES, HISTORIES)
        def check(slate: list[Entry], history: list[Act]) -> None:
            before = list(slate)
            after = policy.apply(slate, history)
            assert slate == before
            assert set(after) <= set(slate)
            assert len(set(after)) == len(after)
            assert policy.apply(after, history) == after

        check()


def test_every_policy_of_the_schema_is_built() -> None:
    kinds = surface_schema()["$defs"]["SeenSpec"]["properties"]["type"]
    assert kinds["const"] in POLICIES
    assert set(POLICIES) == {"seen"}


def test_policies_keep_the_order_of_the_file() -> None:
    movies: SurfaceSpec = Registry.shipped().surface("movies")
    assert build_policies(movies.policies) == [Seen()]
    assert build_policies(()) == []


@pytest.mark.parametrize(
    ("history", "left"),
    [
        ([], "abc"),
        ([Act("b", "watch")], "ac"),
        ([Act("b", "show")], "abc"),
        ([Act("b", "show"), Act("b", "dislike")], "ac"),
        ([Act("b", "dislike"), Act("b", "show")], "ac"),
        ([Act("a", "like"), Act("b", "like"), Act("c", "like")], ""),
        ([Act("z", "like")], "abc"),
    ],
)
def test_seen(history: Sequence[Act], left: str) -> None:
    slate = [Entry("a", 3.0), Entry("b", 2.0), Entry("c", 1.0)]
    assert "".join(entry.item_id for entry in Seen().apply(slate, history)) == left


@given(SLATES, HISTORIES)
def test_seen_keeps_the_order(slate: list[Entry], history: list[Act]) -> None:
    kept = Seen().apply(slate, history)
    assert kept == [entry for entry in slate if entry in kept]
