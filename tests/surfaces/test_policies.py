"""What each policy does; what all of them keep to stands in the contract."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from prompts.errors import SpecError
from surfaces.kinds import kinds
from surfaces.ledger.records import Event
from surfaces.moments import moment as seconds
from surfaces.policies.base import Entry, Policy, PolicyKind, best_first, by_place, in_this_order, relevances
from surfaces.spec import SurfaceSpec
from surfaces.spec_file import read_spec
from surfaces.visit import NOBODY, Visit

NAN = float("nan")
NOW, DAY = 1_767_312_000.0, 86_400.0  # 2026-01-02


def policy(name: str, **settings: object) -> PolicyKind:
    kind = kinds("policies")[name].model_validate({"type": name, **settings})
    assert isinstance(kind, PolicyKind)
    return kind


def slate(*relevances: float, **columns: Sequence[object]) -> list[Entry]:
    """Entries a, b, c …; a column gives each its value of an attribute, None for none."""
    rows = zip(*columns.values(), strict=True) if columns else [()] * len(relevances)
    return [
        Entry("abcdefghij"[place], relevance, {k: v for k, v in zip(columns, row, strict=True) if v is not None})
        for place, (relevance, row) in enumerate(zip(relevances, rows, strict=True))
    ]


def pointing(entries: Sequence[Entry], *vectors: Sequence[float] | None) -> list[Entry]:
    rows = [None if row is None else np.array(row, dtype=np.float32) for row in vectors]
    return [replace(entry, vector=row) for entry, row in zip(entries, rows, strict=True)]


def ids(entries: Sequence[Entry]) -> str:
    return "".join(entry.item_id for entry in entries)


def relevance_of(entries: Sequence[Entry]) -> dict[str, float]:
    return {entry.item_id: round(entry.relevance, 9) for entry in entries}


def applied(chosen: Policy, entries: Sequence[Entry], visit: Visit = NOBODY, k: int = 3) -> str:
    return ids(chosen.apply(entries, visit, k))


class TestBase:
    def test_utilities_become_relevances(self) -> None:
        assert relevances([3.0, -1.0, 1.0]) == [1.0, 0.0, 0.5]
        assert relevances([2.0, 2.0]) == [1.0, 1.0]
        assert relevances([]) == []

    def test_places_become_relevances(self) -> None:
        assert by_place(4) == [1.0, 0.75, 0.5, 0.25]

    def test_level_entries_keep_their_order(self) -> None:
        assert ids(best_first(slate(0.2, 0.7, 0.2, 0.7))) == "bdac"

    def test_an_order_is_kept_by_what_sorts_later(self) -> None:
        entries = slate(0.5, 0.9, 0.1, 0.4)
        kept = in_this_order(entries)
        assert ids(kept) == "abcd"
        assert [entry.relevance for entry in kept] == [0.9, 0.9, 0.4, 0.4]
        assert best_first(kept) == kept
        assert kept[1] is entries[1]


@pytest.mark.parametrize(
    ("acts", "left"),
    [
        ("", "abc"),
        ("b:watch", "ac"),
        ("b:show", "abc"),
        ("b:show b:dislike", "ac"),
        ("b:dislike b:show", "ac"),
        ("a:like b:like c:like", ""),
        ("z:like", "abc"),
    ],
)
def test_seen(acts: str, left: str) -> None:
    done = [act.split(":") for act in acts.split()]
    timeline = [Event("m", item_id, "s", action, 0.0) for item_id, action in done]
    assert applied(policy("seen"), slate(3.0, 2.0, 1.0), Visit(timeline)) == left


class TestCap:
    @pytest.mark.parametrize(
        ("most", "companies", "left"),
        [
            (1, ["x", "x", "y", "x", "y"], "ac"),
            (2, ["x", "x", "y", "x", "y"], "abce"),
            (1, [None, None, "x", None, "x"], "abcd"),
            (1, ["", "", [], [], "x"], "abcde"),
            (1, [NAN, NAN, 1, 1.0, 2], "abce"),
            (1, [["x", "y"], ["y", "z"], ["z"], "x", "z"], "ac"),
            (1, [["x", "x"], ["x"], "y", "z", "w"], "acde"),
            (2, [["x", "x"], ["x"], "x", "z", "w"], "abde"),
            (1, [{"a": [1]}, {"a": [1]}, {"a": [2]}, [["q"]], [["q"]]], "acd"),
            (1, [10**5_000, 10**5_000, [[10**5_000]], {1, 2}, "1"], "acde"),
        ],
    )
    def test_so_many_of_a_kind(self, most: int, companies: Sequence[object], left: str) -> None:
        entries = slate(0.9, 0.8, 0.7, 0.6, 0.5, company=companies)
        assert applied(policy("cap", by="company", max=most), entries) == left

    def test_a_dropped_entry_takes_no_room(self) -> None:
        entries = slate(0.9, 0.8, 0.7, tag=["x", ["x", "y"], "y"])
        assert applied(policy("cap", by="tag", max=1), entries) == "ac"

    def test_relevances_stay(self) -> None:
        entries = slate(0.9, 0.8, tag=["x", "y"])
        assert policy("cap", by="tag", max=1).apply(entries, NOBODY, 1) == entries


class TestDiversity:
    ENTRIES = pointing(slate(1.0, 0.9, 0.8, 0.1), [1, 0], [1, 0], [0, 1], [-1, 0])

    @pytest.mark.parametrize(
        ("strength", "order"),
        [
            (0.0, "abcd"),
            (0.05, "abcd"),  # b: .95*.9 - .05 = .805 against c: .95*.8 = .76
            (0.2, "acbd"),  # b: .8*.9 - .2 = .52 against c: .8*.8 = .64, then d: .08
            (0.5, "acdb"),  # d: .05 against b: .45 - .5
            (1.0, "acdb"),
        ],
    )
    def test_what_is_alike_goes_down(self, strength: float, order: str) -> None:
        assert applied(policy("diversity", strength=strength), self.ENTRIES, k=4) == order

    def test_an_opposite_is_no_better_than_something_else(self) -> None:
        entries = pointing(slate(1.0, 0.5, 0.4), [1, 0], [0, 1], [-1, 0])
        assert applied(policy("diversity", strength=0.9), entries) == "abc"

    def test_only_the_first_places_change(self) -> None:
        entries = pointing(slate(1.0, 0.9, 0.8, 0.7, 0.6), [1, 0], [1, 0], [1, 0], [1, 0], [0, 1])
        diverse = policy("diversity", strength=0.5)
        assert applied(diverse, entries, k=1) == "abcde"
        assert applied(diverse, entries, k=2) == "aebcd"
        assert applied(diverse, entries, k=99) == "aebcd"

    def test_an_entry_without_a_vector_is_like_nothing(self) -> None:
        entries = pointing(slate(1.0, 0.9, 0.8), [1, 0], [1, 0], None)
        assert applied(policy("diversity", strength=0.5), entries) == "acb"
        nothing = pointing(slate(1.0, 0.9, 0.8), None, None, None)
        assert applied(policy("diversity", strength=0.5), nothing) == "abc"

    def test_it_is_near_to_all_above_that_counts(self) -> None:
        entries = pointing(slate(1.0, 0.95, 0.9, 0.8), [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1])
        assert applied(policy("diversity", strength=0.5), entries, k=4) == "abdc"

    def test_a_later_policy_keeps_the_order(self) -> None:
        after = policy("diversity", strength=0.5).apply(self.ENTRIES, NOBODY, 4)
        assert ids(best_first(after)) == "acdb"
        assert relevance_of(after) == {"a": 1.0, "c": 0.9, "d": 0.9, "b": 0.9}

    def test_strength_zero_keeps_even_an_order_that_is_not_by_relevance(self) -> None:
        entries = pointing(slate(0.1, 0.9), [1, 0], [0, 1])
        assert policy("diversity", strength=0).apply(entries, NOBODY, 2) == entries

    def test_a_thousand_entries_take_no_time(self) -> None:
        rows = np.random.default_rng(0).normal(size=(1_000, 256)).astype(np.float32)
        entries = [Entry(str(place), 1 - place / 1_000, {}, row) for place, row in enumerate(rows)]
        start = time.process_time()
        policy("diversity", strength=0.5).apply(entries, NOBODY, 50)
        assert time.process_time() - start < 1.0


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock is not set to UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class TestFreshness:
    @pytest.mark.parametrize(
        ("posted", "relevance"),
        [
            (NOW, 1.0),
            (NOW - 2 * DAY, 0.5),
            (int(NOW - 4 * DAY), 0.25),
            ("2025-12-31T00:00:00Z", 0.5),
            ("2025-12-31", 0.5),
            ("2025-12-31T01:00:00+01:00", 0.5),
            (NOW + 9 * DAY, 1.0),
            ("2030-01-01", 1.0),
            (None, 0.0),
            ("yesterday", 0.0),
            ("", 0.0),
            ("0001-01-01", 0.0),
            (float("nan"), 0.0),
            (float("inf"), 0.0),
            (10**400, 0.0),
            (True, 0.0),
            ([NOW], 0.0),
        ],
    )
    def test_the_age_counts(self, posted: object, relevance: float) -> None:
        entries = slate(0.4, posted_at=[posted])
        for strength in (0.0, 0.25, 1.0):
            (entry,) = policy("freshness", half_life="2d", strength=strength).apply(entries, Visit(now=NOW), 1)
            assert entry.relevance == pytest.approx((1 - strength) * 0.4 + strength * relevance)

    def test_the_new_come_first(self) -> None:
        entries = slate(1.0, 0.8, 0.6, made=[NOW - 8 * DAY, NOW - DAY, NOW])
        fresh = policy("freshness", by="made", half_life="1d", strength=0.5)
        assert applied(fresh, entries, Visit(now=NOW)) == "cba"  # .50, .65, .80
        assert applied(fresh, entries, Visit(now=NOW - 30 * DAY)) == "abc"

    @pytest.mark.parametrize("value", [True, False, NAN, None, [], "soon", 10**400])
    def test_what_tells_no_time(self, value: object) -> None:
        assert seconds(value) is None

    def test_a_time_without_a_zone_is_utc(self, elsewhere: None) -> None:
        assert seconds("1970-01-01T00:00:10") == seconds("1970-01-01T02:00:10+02:00") == seconds(10) == 10.0


class TestBoost:
    def test_what_the_condition_says_gains(self) -> None:
        entries = slate(1.0, 0.8, 0.6, city=["Rome", "Oslo", "Oslo"])
        visit = Visit(profile={"city": "Oslo"}, context={"page": 2})
        local = policy("boost", where="item.city == member.city and context.page == 2", strength=0.3)
        after = local.apply(entries, visit, 3)
        assert relevance_of(after) == {"a": 1.0, "b": 1.1, "c": 0.9}
        assert ids(after) == "bac"
        assert applied(local, entries) == "abc"

    def test_below_zero_it_buries(self) -> None:
        entries = slate(1.0, 0.8, 0.6, ad=[True, None, False])
        assert applied(policy("boost", where="item.ad", strength=-0.5), entries) == "bca"
        assert applied(policy("boost", where="item.ad == true", strength=-1), entries) == "bca"
        assert applied(policy("boost", where="not item.ad", strength=-0.1), entries) == "abc"

    def test_an_item_is_known_by_its_id(self) -> None:
        assert applied(policy("boost", where="item.item_id in ['c']", strength=1), slate(1.0, 0.8, 0.6)) == "cab"

    def test_boosts_add_up_in_any_order(self) -> None:
        entries = slate(1.0, 0.9, 0.8, x=[1, 1, 2])
        boosts = [policy("boost", where=f"item.x == {x}", strength=s) for x, s in ((1, 1.0), (1, -1.0), (2, 0.15))]
        for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
            after: Sequence[Entry] = entries
            for place in order:
                after = boosts[place].apply(after, NOBODY, 3)
            assert relevance_of(after) == {"a": 1.0, "b": 0.9, "c": 0.95}
            assert ids(after) == "acb"

    @pytest.mark.parametrize(
        ("where", "problem"),
        [
            ("itme.city", "did you mean 'item'"),
            ("{{ item.city }}", "does not belong in a condition"),
            ("item.city.upper()", "calling a function is not allowed"),
            (3, "put it in quotes"),
        ],
    )
    def test_a_wrong_condition_is_refused_when_the_file_is_read(self, where: object, problem: str) -> None:
        with pytest.raises(ValidationError, match=problem):
            policy("boost", where=where, strength=0.5)


class TestExplore:
    ENTRIES = slate(1.0, 0.8, 0.6, 0.4)

    def test_without_a_rate_nothing_changes(self) -> None:
        after = policy("explore", rate=0).apply(self.ENTRIES, Visit(member_id="m", now=NOW), 3)
        assert [(entry.item_id, entry.propensity, entry.relevance) for entry in after] == [
            (entry.item_id, 1.0, entry.relevance) for entry in self.ENTRIES
        ]

    @pytest.mark.parametrize("rate", [0.3, 1.0])
    def test_the_propensity_is_the_probability_of_the_place(self, rate: float) -> None:
        explore, seen, told = policy("explore", rate=rate), Counter[str](), dict[str, float]()
        rounds = 6_000
        for member in range(rounds):
            after = explore.apply(self.ENTRIES, Visit(member_id=f"m{member}", now=NOW), 2)
            first, second = after[:2]
            seen[ids(after[:2])] += 1
            told[ids(after[:2])] = first.propensity * second.propensity
            assert {entry.propensity for entry in after[2:]} == {1.0}
            assert ids(after[2:]) == "".join(name for name in "abcd" if name not in ids(after[:2]))
        assert sum(told.values()) == pytest.approx(1.0)
        for pair, chance in told.items():
            assert seen[pair] / rounds == pytest.approx(chance, abs=0.02)

    def test_exact_propensities(self) -> None:
        explore, chances = policy("explore", rate=0.4), dict[str, set[float]]()
        for member in range(300):
            (first, *_) = explore.apply(self.ENTRIES, Visit(member_id=str(member)), 1)
            chances.setdefault(first.item_id, set()).add(round(first.propensity, 9))
        assert chances == {"a": {0.7}, "b": {0.1}, "c": {0.1}, "d": {0.1}}

    def test_a_propensity_that_is_there_is_multiplied(self) -> None:
        entries = [replace(entry, propensity=0.5) for entry in self.ENTRIES]
        after = policy("explore", rate=1).apply(entries, Visit(member_id="m"), 2)
        assert [entry.propensity for entry in after] == pytest.approx([0.5 / 4, 0.5 / 3, 0.5, 0.5])

    def test_the_last_one_left_has_no_rival(self) -> None:
        after = policy("explore", rate=0.5).apply(self.ENTRIES, Visit(member_id="m"), 9)
        assert after[-1].propensity == 1.0

    def test_a_draw_stays_for_a_while(self) -> None:
        hourly = policy("explore", rate=1, every="1h")
        within = {applied(hourly, self.ENTRIES, Visit(member_id="m", now=now)) for now in (7_200.0, 9_000.0, 10_799.9)}
        assert len(within) == 1
        later = {applied(hourly, self.ENTRIES, Visit(member_id="m", now=7_200.0 + 3_600 * hour)) for hour in range(20)}
        assert len(later) > 10

    @pytest.mark.parametrize("change", ["seed", "member", "period", "timeline"])
    def test_what_a_draw_depends_on(self, change: str) -> None:
        seen = set()
        for number in range(40):
            seed = number if change == "seed" else 0
            visit = Visit(
                [Event("", str(number), "s", "like", 0.0)] if change == "timeline" else [],
                f"m{number}" if change == "member" else "" if change == "timeline" else "m",
                now=NOW + DAY * number if change == "period" else NOW,
            )
            seen.add(applied(policy("explore", rate=1, seed=seed), self.ENTRIES, visit))
        assert len(seen) > 10

    def test_a_known_member_draws_the_same_whatever_they_do(self) -> None:
        acts = [Event("m", "x", "s", "like", 0.0)]
        explore = policy("explore", rate=1)
        draws = {applied(explore, self.ENTRIES, Visit(acts[:count], "m", now=NOW)) for count in (0, 1)}
        assert len(draws) == 1

    def test_a_later_policy_keeps_the_order(self) -> None:
        explore = policy("explore", rate=1)
        for member in range(20):
            after = explore.apply(self.ENTRIES, Visit(member_id=str(member)), 4)
            assert ids(best_first(after)) == ids(after)


class TestPin:
    @pytest.mark.parametrize(
        ("items", "position", "order"),
        [
            (["c"], 1, "cabde"),
            (["e", "c"], 1, "ecabd"),
            (["c", "a"], 2, "bcade"),
            (["a"], 3, "bcade"),
            (["d", "z"], 2, "adbce"),
            (["z"], 1, "abcde"),
            (["b"], 99, "acdeb"),
            (["a", "b", "c", "d", "e"], 4, "abcde"),
        ],
    )
    def test_items_stand_where_they_are_pinned(self, items: list[str], position: int, order: str) -> None:
        pin = policy("pin", items=items, position=position)
        after = pin.apply(slate(1.0, 0.8, 0.6, 0.4, 0.2), NOBODY, 2)
        assert ids(after) == order
        assert ids(best_first(after)) == order
        assert pin.brings == tuple(items)

    def test_it_is_as_relevant_as_what_it_stands_before(self) -> None:
        after = policy("pin", items=["d"], position=2).apply(slate(1.0, 0.8, 0.6, 0.4), NOBODY, 2)
        assert relevance_of(after) == {"a": 1.0, "d": 0.8, "b": 0.8, "c": 0.6}

    @pytest.mark.parametrize(
        ("settings", "problem"),
        [
            ({"items": []}, "at least 1"),
            ({"items": [str(n) for n in range(33)]}, "at most 32"),
            ({"items": ["a", "b", "a"]}, "'a' is listed twice"),
            ({"items": [""]}, "at least 1"),
            ({"items": ["a"], "position": 0}, "greater than or equal to 1"),
        ],
    )
    def test_wrong_settings(self, settings: dict[str, Any], problem: str) -> None:
        with pytest.raises(ValidationError, match=problem):
            policy("pin", **settings)


def test_which_policies_drop_read_vectors_and_stand_once() -> None:
    found = {name: kind for name, kind in kinds("policies").items() if issubclass(kind, PolicyKind)}
    assert {name for name, kind in found.items() if kind.drops} == {"seen", "cap"}
    assert {name for name, kind in found.items() if kind.reads_vectors} == {"diversity"}
    assert {name for name, kind in found.items() if kind.single} == {"seen", "diversity", "explore", "match"}


FILE = """\
surface: films
description: Films
item_kind: movie
prompt: {instruction: Which film?, item: "{{ title }}"}
sources: [{type: popular, k: 20}]
heads: [{name: watch, type: pointwise, weight: 1.0}]
policies:
  - seen
  - {type: cap, by: director, max: 2}
  - {type: cap, by: genres, max: 5}
  - {type: freshness, half_life: 7d, strength: 0.2}
  - {type: boost, where: "'Comedy' in item.genres", strength: 0.1}
  - {type: boost, where: item.year < 1980, strength: -0.1}
  - {type: diversity, strength: 0.2}
  - {type: explore, rate: 0.05, every: 6h}
  - {type: pin, items: [f1, f2], position: 3}
  - {type: match, slots: 3, capacity: 3}
"""


def test_a_surface_file_may_name_them_all() -> None:
    spec = read_spec(FILE, "films.yaml").spec
    assert isinstance(spec, SurfaceSpec)
    assert [each.type for each in spec.policies] == FILE_ORDER
    assert SurfaceSpec.model_validate(spec.model_dump(mode="json")) == spec
    assert spec.reads_vectors
    assert set(FILE_ORDER) == set(kinds("policies"))


FILE_ORDER = ["seen", "cap", "cap", "freshness", "boost", "boost", "diversity", "explore", "pin", "match"]


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        ("'Comedy' in item", "'Comedy' in itme", "films.yaml:12:26: policies[4].where: unknown name 'itme'; did you"),
        ("item.year < 1980", "7", "films.yaml:13:26: policies[5].where: should be text; put it in quotes"),
        ("half_life: 7d", "half_life: 7y", "films.yaml:11:34: policies[3].half_life: should be a whole number and one"),
        ("[f1, f2]", "[f1, f1]", "films.yaml:16:29: policies[8].items[1]: 'f1' is listed twice; once is enough"),
        ("by: director", "buy: director", "films.yaml:9:17: policies[1].buy: unknown key; did you mean 'by'?"),
        ("  - seen", "  - {type: explore, rate: 0.1}", "films.yaml:15:12: policies[7].type: 'explore' is listed twice"),
        ("rate: 0.05", "rate: 5", "films.yaml:15:27: policies[7].rate: should be less than or equal to 1, not 5"),
        ("- seen", "- sean", "films.yaml:8:5: policies[0].type: unknown value 'sean'; did you mean 'seen'?"),
    ],
)
def test_a_wrong_file_says_where(right: str, wrong: str, problem: str) -> None:
    assert FILE.count(right) == 1
    with pytest.raises(SpecError) as raised:
        read_spec(FILE.replace(right, wrong), "films.yaml")
    assert problem in str(raised.value)
