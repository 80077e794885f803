"""Team draft, one slate and many."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.errors import ConfigError
from surfaces.experiments.interleave import Placed, credit, team_draft, team_drafts

A, B = ["a", "b", "c", "d"], ["b", "d", "e", "a"]


def drafts(rankings: dict[str, list[str]], k: int, times: int = 2000) -> list[list[Placed]]:
    rng = np.random.default_rng(0)
    return [team_draft(rankings, k, rng) for _ in range(times)]


def test_all_slates_of_two_short_rankings() -> None:
    """By hand: two coins, four drafts, all as likely."""
    found = Counter("".join(f"{item}{team}" for item, team in slate) for slate in drafts({"1": A, "2": B}, 4))
    assert set(found) == {"a1b2c1d2", "a1b2d2c1", "b2a1c1d2", "b2a1d2c1"}
    assert min(found.values()) > 420


@given(
    st.lists(st.integers(0, 30), unique=True),
    st.lists(st.integers(0, 30), unique=True),
    st.integers(0, 12),
    st.integers(),
)
def test_a_slate_holds_each_item_once_and_takes_turns(first: list[int], second: list[int], k: int, seed: int) -> None:
    rankings = {"x": [str(item) for item in first], "y": [str(item) for item in second]}
    slate = team_draft(rankings, k, np.random.default_rng(seed % 2**32))
    items = [item for item, _ in slate]
    assert len(items) == len(set(items)) == min(k, len({*first, *second}))
    for item, team in slate:
        assert item in rankings[team]
    for name, ranking in rankings.items():
        own = [item for item, team in slate if team == name]
        assert own == sorted(own, key=ranking.index)


@given(st.permutations(range(9)), st.integers(1, 9), st.integers(0, 2**31))
def test_with_the_same_items_teams_are_even(order: list[int], k: int, seed: int) -> None:
    rankings = {"x": [str(item) for item in range(9)], "y": [str(item) for item in order]}
    teams = [team for _, team in team_draft(rankings, k, np.random.default_rng(seed))]
    assert abs(teams.count("x") - teams.count("y")) <= 1
    for place in range(0, k - 1, 2):
        assert set(teams[place : place + 2]) == {"x", "y"}


def test_both_arms_have_the_same_chance_at_every_place() -> None:
    teams = np.array([[team == "1" for _, team in slate] for slate in drafts({"1": A, "2": A}, 4)])
    assert teams.mean(axis=0) == pytest.approx(0.5, abs=0.045)


def test_an_arm_without_items_left_passes() -> None:
    slate = team_draft({"1": ["a"], "2": B}, 4, np.random.default_rng(3))
    assert {item for item, _ in slate} == {"a", "b", "d", "e"}
    assert [team for _, team in slate].count("1") == 1
    assert team_draft({"1": [], "2": []}, 4, np.random.default_rng(3)) == []


def test_the_same_coins_give_the_same_slate() -> None:
    one, two = (team_draft({"1": A, "2": B}, 4, np.random.default_rng(7)) for _ in range(2))
    assert one == two


def test_credit_sums_by_team() -> None:
    slate = [Placed("a", "1"), Placed("b", "2"), Placed("c", "1")]
    assert credit(slate, {"a": 1.0, "c": 0.5, "z": 9.0}) == {"1": 1.5, "2": 0.0}
    assert credit([], {"a": 1.0}) == {}


@pytest.mark.parametrize("rankings", [{"1": A}, {"1": A, "2": B, "3": A}, {}])
def test_two_arms_are_needed(rankings: dict[str, list[str]]) -> None:
    with pytest.raises(ConfigError, match="team draft takes two"):
        team_draft(rankings, 3, np.random.default_rng(0))


def test_an_item_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="arm '2' ranks an item twice"):
        team_draft({"1": A, "2": ["a", "a"]}, 3, np.random.default_rng(0))


@pytest.mark.parametrize(("size", "k"), [(6, 4), (6, 5), (3, 5), (1, 2)])
def test_many_slates_are_drafted_as_one_is(size: int, k: int) -> None:
    """The same coins, the same slate, with candidates that are not there."""
    rng = np.random.default_rng(size)
    for seed in range(200):
        first, second = rng.permutation(size), rng.permutation(size)
        there = rng.random(size) < 0.8
        rankings = {
            name: [str(place) for place in np.argsort(rank) if there[place]]
            for name, rank in (("1", first), ("2", second))
        }
        one = team_draft(rankings, k, np.random.default_rng(seed))
        many = team_drafts(first[None], second[None], there[None], k, np.random.default_rng(seed))
        shown = many.places_SK[0] >= 0
        assert [str(place) for place in many.places_SK[0][shown]] == [item for item, _ in one]
        assert ["1" if first else "2" for first in many.first_SK[0][shown]] == [team for _, team in one]
        assert shown.sum() == min(k, there.sum())
        assert not many.first_SK[0][~shown].any()
