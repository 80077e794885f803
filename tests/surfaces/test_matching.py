"""Who is matched with whom: the algorithm, and the policy that applies it to a surface of people."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.errors import ConfigError
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger
from surfaces.policies.base import Entry
from surfaces.policies.match import Market, Matched
from surfaces.policies.matching import deferred_acceptance
from surfaces.sources.base import Materials
from surfaces.sources.fit import interactions_of
from surfaces.spec import SurfaceSpec
from surfaces.visit import NOBODY, Visit
from tests.surfaces.test_policies import policy

MARKETS = st.integers(1, 5).flatmap(
    lambda people: st.lists(st.permutations(range(people)).flatmap(lambda row: st.integers(0, people).map(
        lambda size: list(row[:size]))), min_size=1, max_size=6)
).flatmap(
    lambda wishes: st.tuples(
        st.just(wishes),
        st.tuples(*(st.lists(st.sampled_from([0.0, 0.5, 1.0, -1.0]), min_size=len(row), max_size=len(row))
                    for row in wishes)).map(list),
    )
)  # fmt: skip


class TestMatching:
    def test_the_first_example_of_gale_and_shapley(self) -> None:
        """Three of each, who rank each other in circles: the men's optimum gives each man his first choice."""
        wishes = [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
        likes = [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]
        assert deferred_acceptance(wishes, likes, 1, 1) == [[0], [1], [2]]

    def test_a_dearer_suitor_takes_the_place(self) -> None:
        assert deferred_acceptance([[0, 1], [0, 1]], [[0.1, 0.9], [0.2, 0.1]], 1, 1) == [[1], [0]]
        assert deferred_acceptance([[0], [0], [0]], [[0.1], [0.3], [0.2]], 1, 2) == [[], [0], [0]]

    def test_of_level_suitors_the_first_is_dearer(self) -> None:
        assert deferred_acceptance([[0], [0], [0]], [[0.5], [0.5], [0.5]], 1, 1) == [[0], [], []]
        assert deferred_acceptance([[1, 0], [0], [0]], [[0.5, 0.5], [0.5], [0.5]], 2, 1) == [[1, 0], [], []]

    def test_so_many_slots(self) -> None:
        assert deferred_acceptance([[2, 0, 1]], [[0.0, 0.0, 0.0]], 2, 1) == [[2, 0]]
        assert deferred_acceptance([[], [0]], [[], [0.0]], 5, 5) == [[], [0]]
        assert deferred_acceptance([], [], 1, 1) == []

    @given(MARKETS, st.integers(1, 3), st.integers(1, 3))
    def test_it_is_stable(self, market: tuple[list[list[int]], list[list[float]]], slots: int, capacity: int) -> None:
        wishes, likes = market
        pairs = deferred_acceptance(wishes, likes, slots, capacity)
        assert all(len(set(mine)) == len(mine) <= slots for mine in pairs)
        assert all(
            mine == [person for person in row if person in mine] for mine, row in zip(pairs, wishes, strict=True)
        )
        assert max(Counter(person for mine in pairs for person in mine).values(), default=0) <= capacity
        assert blocking(wishes, likes, pairs, slots, capacity) == []

    def test_thousands_take_seconds(self) -> None:
        rng = np.random.default_rng(0)
        wishes = [rng.choice(5_000, 50, replace=False).tolist() for _ in range(5_000)]
        likes: list[list[float]] = rng.random((5_000, 50)).tolist()
        start = time.process_time()
        pairs = deferred_acceptance(wishes, likes, 5, 5)
        assert time.process_time() - start < 5.0
        assert sum(map(len, pairs)) > 24_000


def blocking(
    wishes: Sequence[Sequence[int]],
    likes: Sequence[Sequence[float]],
    pairs: Sequence[Sequence[int]],
    slots: int,
    most: int,
) -> list[tuple[int, int]]:
    """Suitors and people who would both rather have each other, by looking at every pair."""
    dear = {
        (suitor, person): (like, -suitor)
        for suitor, row in enumerate(wishes)
        for person, like in zip(row, likes[suitor], strict=True)
    }
    found = []
    for suitor, person in dear:
        mine = pairs[suitor]
        rivals = [dear[other, person] for other, theirs in enumerate(pairs) if person in theirs]
        rank = wishes[suitor].index
        wants = person not in mine and (len(mine) < slots or rank(person) < max(map(rank, mine)))
        wanted = len(rivals) < most or dear[suitor, person] > min(rivals)
        found += [(suitor, person)] if wants and wanted else []
    return found


CHOICES = {"ann": "bc", "bob": "ca", "cy": "ab", "dan": "bc", "eve": "", "guest": "ab"}
"""Who chose whom, by first letters: everybody but the guest is an item."""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite") as opened:
        opened.put_members(Member(name, {}) for name in CHOICES)
        opened.put_items(Item(f"person {name[0]}", "person", {}, name) for name in CHOICES if name != "guest")
        opened.put_items([Item("film", "movie", {})])
        opened.add_events(
            Event(name, f"person {letter}", "people", "like", float(place))
            for name, letters in CHOICES.items()
            for place, letter in enumerate(letters)
        )
        yield opened


def materials(ledger: Ledger, kind: str = "person") -> Materials:
    spec = SurfaceSpec.model_validate(
        {
            "surface": "people", "description": "People", "item_kind": kind,
            "prompt": {"instruction": "Who?", "item": "{{ name }}"},
            "sources": [{"type": "popular", "k": 5}], "heads": [{"name": "like", "type": "choice", "weight": 1.0}],
        }
    )  # fmt: skip
    return Materials(spec, interactions_of(spec, ledger), ledger)


def matched(ledger: Ledger, **settings: int) -> Mapping[str, frozenset[str]]:
    built = policy("match", **settings).build(materials(ledger))
    assert isinstance(built, Matched)
    return built.partners


class TestMatch:
    def test_nobody_is_matched_with_themselves_or_with_one_they_chose(self, ledger: Ledger) -> None:
        partners = matched(ledger, slots=5, capacity=5)
        assert set(partners) == set(CHOICES)
        for name, items in partners.items():
            chosen = {f"person {letter}" for letter in CHOICES[name]}
            assert items == {f"person {letter}" for letter in "abcde"} - chosen - {f"person {name[0]}"}

    def test_nobody_has_more_suitors_than_they_can_answer(self, ledger: Ledger) -> None:
        partners = matched(ledger, slots=2, capacity=1)
        assert max(Counter(item for items in partners.values() for item in items).values()) == 1
        assert max(map(len, partners.values())) <= 2

    def test_wishes_are_by_what_was_chosen_together_then_by_popularity(self, ledger: Ledger) -> None:
        prepared = materials(ledger)
        market = Market.of(prepared.data, [item.member_id for item in prepared.items])
        number = {name: place for place, name in enumerate(market.members)}
        wished = {name: market.wishes(number[name], 9) for name in CHOICES}
        assert prepared.data.item_ids == tuple(f"person {letter}" for letter in "abcde")
        assert wished["eve"] == [1, 0, 2, 3]  # four chose b, three a and three c, nobody d
        assert wished["dan"] == [0, 4]  # a was chosen beside b and c
        assert wished["guest"] == [2, 3, 4]
        assert market.wishes(number["eve"], 2) == [1, 0]

    def test_people_judge_their_suitors_by_their_own_choices(self, ledger: Ledger) -> None:
        prepared = materials(ledger)
        market = Market.of(prepared.data, [item.member_id for item in prepared.items])
        number = {name: place for place, name in enumerate(market.members)}
        wishes = [market.wishes(member, 9) for member in range(len(market.members))]
        likes = market.likes(wishes)
        by_dan, by_eve = market.opinion(number["dan"]), market.opinion(number["eve"])
        ann, guest = number["ann"], number["guest"]
        assert dict(zip(wishes[ann], likes[ann], strict=True)) == {3: by_dan[0], 4: by_eve[0]}
        assert by_dan[0] > 0 > by_eve[0] >= -1
        assert likes[guest] == [-2.0] * 3

    def test_matches_come_first(self, ledger: Ledger) -> None:
        built = policy("match", slots=5, capacity=5).build(materials(ledger))
        entries = [Entry(f"person {letter}", 1 - place / 5) for place, letter in enumerate("bcaed")]
        after = built.apply(entries, Visit(member_id="dan"), 3)
        assert [entry.item_id[-1] for entry in after] == ["a", "e", "b", "c", "d"]
        assert [entry.relevance for entry in after] == pytest.approx([1.0, 1.0, 1.0, 0.8, 0.2])
        for stranger in ("", "new"):
            assert built.apply(entries, Visit(member_id=stranger), 3) == entries

    def test_items_that_are_no_members_are_refused(self, ledger: Ledger) -> None:
        with pytest.raises(ConfigError, match=r"'people': match needs items that are members; .* kind 'movie' the mem"):
            policy("match", slots=1, capacity=1).build(materials(ledger, "movie"))

    def test_a_surface_without_items_matches_nobody(self, ledger: Ledger) -> None:
        assert policy("match", slots=1, capacity=1).build(materials(ledger, "dog")).apply([], NOBODY, 1) == []
