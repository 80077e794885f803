"""What every ledger does, whatever database it lives in.

SQLite always; PostgreSQL when PRISMRANK_TEST_POSTGRES holds a URL (each test is a tenant of its own there).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prompts.errors import LedgerError, UnknownError
from surfaces.ledger import store
from surfaces.ledger.exposures import Exposure, Placement
from surfaces.ledger.records import Clock, Counts, Erased, Event, Item, Member
from surfaces.ledger.store import Ledger
from tests.databases import Open


@pytest.fixture
def ledger(open_tenant: Open) -> Ledger:
    return open_tenant("default")


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    """Two members, three items, four events."""
    ledger.write(
        members=[Member("ann", {"age": 30}), Member("bob", {})],
        items=[Item("heat", "movie", {"title": "Heat"}), Item("alien", "movie", {}), Item("ode", "song", {})],
        events=[
            watch("ann", "heat", 20.0, event_id="e1"),
            watch("ann", "alien", 10.0, event_id="e2"),
            watch("ann", "ode", 20.0, event_id="e3"),
            watch("bob", "heat", 5.5, event_id="e4", value=4.0, position=0, propensity=0.25),
        ],
    )
    return ledger


def watch(member_id: str, item_id: str, timestamp: float, **more: object) -> Event:
    return Event(member_id, item_id, "movies", "watch", timestamp)._replace(**more)  # type: ignore[arg-type]


def state(ledger: Ledger) -> tuple[object, ...]:
    return ledger.counts(), ledger.all_items(), ledger.all_members(), list(ledger.all_events()), ledger.clock


def test_an_empty_ledger(ledger: Ledger) -> None:
    assert ledger.counts() == Counts(0, 0, 0)
    assert state(ledger) == (Counts(0, 0, 0), [], [], [], "time")
    assert ledger.member_ids() == []
    assert ledger.write() == Counts(0, 0, 0)


def test_what_is_put_is_read(ledger: Ledger) -> None:
    member = Member("ann", {"name": "Ann Ö. 🎬", "tags": ["a", "b"], "nested": {"x": [1, 2.5, True, None]}})
    item = Item("p1", "person", {"title": "line\nbreak\t\x00 \"quoted\" 'single' \u2028"}, member_id="ann")
    assert ledger.put_members([member]) == 1
    assert ledger.put_items([item]) == 1
    assert ledger.member("ann") == member
    assert ledger.item("p1") == item
    assert ledger.items(["p1"]) == {"p1": item}


def test_putting_again_replaces(filled: Ledger) -> None:
    before = list(filled.all_events())
    filled.put_items([Item("heat", "film", {"year": 1995}, "ann"), Item("new", "movie", {})])
    filled.put_members([Member("ann", {"age": 31})])
    assert filled.item("heat") == Item("heat", "film", {"year": 1995}, "ann")
    assert filled.member("ann").profile == {"age": 31}
    assert filled.counts() == Counts(4, 2, 4)
    assert list(filled.all_events()) == before


def test_of_the_same_id_in_one_call_the_last_stays(ledger: Ledger) -> None:
    ledger.put_items([Item("a", "movie", {"n": 1}), Item("b", "movie", {}), Item("a", "movie", {"n": 2})])
    assert ledger.item("a").attributes == {"n": 2}
    assert ledger.counts().items == 2


def test_items_by_id_come_as_asked(filled: Ledger) -> None:
    assert list(filled.items(["ode", "nothing", "heat", "ode"])) == ["ode", "heat"]
    assert filled.items([]) == {}
    assert filled.unknown_items(["ode", "z", "nothing"]) == ["nothing", "z"]
    assert filled.unknown_members(["bob", "z"]) == ["z"]


def test_an_item_that_is_read_again_is_as_it_is_by_then(filled: Ledger) -> None:
    first = filled.items(["heat"])["heat"]
    assert filled.items(["heat"])["heat"] is first, "the same row is not read twice"
    filled.put_items([Item("heat", "movie", {"year": 1996})])
    assert filled.items(["heat"])["heat"] == Item("heat", "movie", {"year": 1996})
    filled.put_items([Item("heat", "film", {"year": 1996}, "ann")])
    assert filled.items(["heat"])["heat"] == Item("heat", "film", {"year": 1996}, "ann")
    filled.erase("ann")
    assert filled.items(["heat"]) == {}


def test_many_ids(ledger: Ledger) -> None:
    names = [f"item {number}" for number in range(2 * store.IDS_AT_ONCE + 1)]
    ledger.put_items(Item(name, "movie", {}) for name in names)
    assert list(ledger.items(reversed(names))) == names[::-1]
    assert ledger.unknown_items([*names, "x"]) == ["x"]


def test_order_of_ids_is_by_code_point(ledger: Ledger) -> None:
    names = ["é", "b", "B", "a10", "a9", "Z", "ä", "a", "\U0001f3ac", "\uffee"]
    ledger.put_items(Item(name, "movie", {}) for name in names)
    ledger.put_members(Member(name, {}) for name in names)
    assert [item.item_id for item in ledger.all_items()] == sorted(names)
    assert ledger.member_ids() == sorted(names) == [member.member_id for member in ledger.all_members()]


def test_items_of_a_kind(filled: Ledger) -> None:
    assert [item.item_id for item in filled.all_items("movie")] == ["alien", "heat"]
    assert [item.item_id for item in filled.all_items("song")] == ["ode"]
    assert filled.all_items("none") == []


@pytest.mark.parametrize("name", ["nobody", "", "Ann", "ann ", "\ud800", "\x00", "x" * 10_000, "'; DROP TABLE x; --"])
def test_an_id_that_nobody_has(filled: Ledger, name: str) -> None:
    for call in (filled.item, filled.member, filled.timeline):
        with pytest.raises(UnknownError, match=r"^unknown (item|member) ['\"]"):
            call(name)
    assert filled.items([name]) == {}
    assert filled.unknown_items([name, "heat"]) == [name]
    assert filled.unknown_members([name, "ann"]) == [name]


def test_a_timeline_is_by_time_then_arrival(filled: Ledger) -> None:
    assert [event.event_id for event in filled.timeline("ann")] == ["e2", "e1", "e3"]
    filled.add_events([watch("ann", "heat", 15.0, event_id="e5"), watch("ann", "alien", 20.0, event_id="a")])
    assert [event.event_id for event in filled.timeline("ann")] == ["e2", "e5", "e1", "e3", "a"]
    assert [event.event_id for event in filled.timeline("ann", 2)] == ["e3", "a"], "the newest"
    assert filled.timeline("bob") == [watch("bob", "heat", 5.5, value=4.0, position=0, propensity=0.25, event_id="e4")]


def test_a_member_without_events_has_an_empty_timeline(ledger: Ledger) -> None:
    ledger.put_members([Member("ann", {})])
    assert ledger.timeline("ann") == []


def test_many_timelines_at_once_are_those_of_each(filled: Ledger) -> None:
    ids = [*filled.member_ids(), "nobody", "", "bad\0"]
    found = filled.timelines(ids)
    assert found == {name: filled.timeline(name) if name in filled.member_ids() else [] for name in ids}
    assert filled.members(ids) == {member.member_id: member for member in filled.all_members()}
    assert filled.timelines([]) == filled.members([]) == {}


def test_the_present_of_a_ledger(open_tenant: Open) -> None:
    ledger = open_tenant("past")
    assert ledger.now is None
    ledger.set_now(1_777_000_000.5)
    assert (ledger.now, open_tenant("past").now, open_tenant("other").now) == (1_777_000_000.5, 1_777_000_000.5, None)
    with pytest.raises(LedgerError, match="now: "):
        ledger.set_now(float("nan"))


@pytest.mark.parametrize("page", [1, 2, 3, 7, 100])
def test_all_events_in_pages(ledger: Ledger, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PAGE", page)
    members = ["b", "a", "é", "B"]
    ledger.put_members(Member(name, {}) for name in members)
    ledger.put_items([Item("x", "movie", {})])
    events = [
        watch(members[number % 4], "x", float(number % 3), event_id=f"{97 * number % 31}") for number in range(31)
    ]
    assert ledger.add_events(events) == 31
    assert list(ledger.all_events()) == sorted(events, key=lambda event: (event.member_id, event.timestamp))


def test_an_event_comes_once(filled: Ledger) -> None:
    before = list(filled.all_events())
    again = [*before, watch("bob", "ode", 9.0, event_id="e1"), watch("bob", "ode", 9.0, event_id="e9")]
    assert filled.add_events([*again, *again]) == 1
    assert len(list(filled.all_events())) == 5
    assert filled.timeline("ann") == [event for event in before if event.member_id == "ann"]


def test_events_without_ids(filled: Ledger) -> None:
    twins = [watch("bob", "ode", 1.0), watch("bob", "ode", 1.0), watch("bob", "ode", 2.0)]
    assert filled.add_events(twins) == 3
    assert filled.add_events(reversed(twins)) == 0
    assert filled.add_events([watch("bob", "ode", 1)]) == 0, "a whole number is the same time"
    assert filled.add_events([watch("bob", "ode", 1.0, value=0.0)]) == 1
    assert len({event.event_id for event in filled.all_events()}) == 8


@pytest.mark.parametrize(
    "timestamp", [0.0, -1.5, 1e-300, 881250949.0, 1700000000.123456, 1e11 + 0.1, 5e-324, 0.1 + 0.2]
)
def test_timestamps_keep_every_bit(filled: Ledger, timestamp: float) -> None:
    filled.add_events([watch("bob", "ode", timestamp, event_id="exact", value=timestamp)])
    (found,) = [event for event in filled.timeline("bob") if event.event_id == "exact"]
    assert (found.timestamp, found.value) == (timestamp, timestamp)
    assert type(found.timestamp) is float


BAD_EVENTS = {
    "member": watch("nobody", "heat", 1.0),
    "item": watch("ann", "nothing", 1.0),
    "nan": watch("ann", "heat", float("nan")),
    "infinite": watch("ann", "heat", float("inf")),
    "milliseconds": watch("ann", "heat", 1_700_000_000_000.0),
    "text": watch("ann", "heat", "now"),  # type: ignore[arg-type]
    "value": watch("ann", "heat", 1.0, value=float("nan")),
    "huge": watch("ann", "heat", 1.0, value=10**400),
    "thousands of digits": watch("ann", "heat", 1.0, position=10**5_000),
    "position": watch("ann", "heat", 1.0, position=-1),
    "half position": watch("ann", "heat", 1.0, position=0.5),
    "propensity": watch("ann", "heat", 1.0, propensity=0.0),
    "action": watch("ann", "heat", 1.0, action=""),
    "surrogate": watch("ann", "heat", 1.0, surface="\udcff"),
    "event_id": watch("ann", "heat", 1.0, event_id="x" * 257),
    "number as id": watch("ann", 7, 1.0),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("bad", BAD_EVENTS.values(), ids=BAD_EVENTS.keys())
def test_a_bad_event_leaves_everything_as_it_was(filled: Ledger, bad: Event) -> None:
    before = state(filled)
    with pytest.raises(LedgerError):
        filled.write(
            items=[Item("new", "movie", {}), Item("heat", "movie", {"title": "changed"})],
            members=[Member("new", {})],
            events=[watch("new", "new", 1.0), bad],
        )
    assert state(filled) == before


BAD_ATTRIBUTES: dict[str, dict[object, object]] = {
    "nan": {"score": float("nan")},
    "infinity inside": {"scores": [1.0, float("inf")]},
    "surrogate": {"title": "half \ud83d"},
    "surrogate in a name": {"\ud83d": 1},
    "bytes": {"raw": b"x"},
    "set": {"tags": {"a"}},
    "number as name": {1: "x"},
    "empty name": {"": "x"},
    "taken name": {"member_id": "x"},
    "thousands of digits": {"n": 10**5_000},
    "huge": {"text": "x" * 1_000_001},
}


@pytest.mark.parametrize("attributes", BAD_ATTRIBUTES.values(), ids=BAD_ATTRIBUTES.keys())
def test_bad_attributes_leave_everything_as_it_was(filled: Ledger, attributes: dict[str, object]) -> None:
    before = state(filled)
    with pytest.raises(LedgerError, match="item 'new'"):
        filled.put_items([Item("heat", "movie", {}), Item("new", "movie", attributes)])
    with pytest.raises(LedgerError, match="member 'new'"):
        filled.put_members([Member("ann", {}), Member("new", attributes)])
    assert state(filled) == before


def test_attributes_that_contain_themselves(ledger: Ledger) -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(LedgerError, match="attribute 'loop'"):
        ledger.put_items([Item("a", "movie", {"loop": loop})])


def test_an_item_whose_person_is_unknown(filled: Ledger) -> None:
    with pytest.raises(UnknownError, match="unknown member 'nobody'"):
        filled.put_items([Item("p", "person", {}, "nobody")])
    assert filled.write(items=[Item("p", "person", {}, "cy")], members=[Member("cy", {})]) == Counts(1, 1, 0)


def test_a_failing_iterable_leaves_everything_as_it_was(filled: Ledger) -> None:
    def events() -> Iterator[Event]:
        yield watch("ann", "ode", 77.0)
        raise OSError("the disk is gone")

    before = state(filled)
    with pytest.raises(OSError, match="the disk is gone"):
        filled.write(members=[Member("new", {})], events=events())
    assert state(filled) == before


def test_the_clock(ledger: Ledger) -> None:
    ledger.set_clock("order")
    assert ledger.clock == "order"
    ledger.write(members=[Member("ann", {})], items=[Item("a", "movie", {})])
    assert ledger.add_events([watch("ann", "a", 1e15)]) == 1, "a position may be any finite number"
    ledger.set_clock("order")
    with pytest.raises(LedgerError, match="whose clock is 'order'"):
        ledger.set_clock("time")
    with pytest.raises(LedgerError, match="neither 'time' nor 'order'"):
        ledger.set_clock("sundial")  # type: ignore[arg-type]
    assert ledger.clock == "order"


@pytest.mark.parametrize("clock", ["time", "order"])
def test_the_clock_of_a_ledger_without_events_may_change(ledger: Ledger, clock: Clock) -> None:
    ledger.set_clock("order")
    ledger.set_clock(clock)
    assert ledger.clock == clock


def test_tenants_do_not_see_each_other(open_tenant: Open) -> None:
    one, other = open_tenant("one"), open_tenant("other")
    one.write(members=[Member("ann", {"of": 1})], items=[Item("a", "movie", {})], events=[watch("ann", "a", 1.0)])
    assert state(other) == (Counts(0, 0, 0), [], [], [], "time")
    with pytest.raises(UnknownError):
        other.add_events([watch("ann", "a", 1.0)])
    other.set_clock("order")
    other.write(members=[Member("ann", {"of": 2})], items=[Item("a", "song", {})], events=[watch("ann", "a", 1.0)])
    assert one.member("ann").profile == {"of": 1}
    assert one.clock == "time"
    assert (one.counts(), other.counts()) == (Counts(1, 1, 1), Counts(1, 1, 1))


def test_readers_beside_a_writer_see_whole_writes(filled: Ledger) -> None:
    batch, batches, stop = 20, 15, threading.Event()

    def read() -> set[int]:
        seen = set()
        while not stop.is_set():
            seen.add(len(filled.timeline("bob")) - 1)
            seen.add(sum(event.member_id == "bob" for event in filled.all_events()) - 1)
        return seen

    with ThreadPoolExecutor(3) as threads:
        readers = [threads.submit(read) for _ in range(3)]
        try:
            for number in range(batches):
                filled.add_events(watch("bob", "ode", float(number), value=float(place)) for place in range(batch))
        finally:
            stop.set()
        assert all(count % batch == 0 for reader in readers for count in reader.result())
    assert len(filled.timeline("bob")) == 1 + batch * batches


def test_writers_take_turns(filled: Ledger) -> None:
    events = [watch("bob", "ode", float(number)) for number in range(100)]
    with ThreadPoolExecutor(4) as threads:
        added = threads.map(lambda start: filled.add_events(events[start:] + events[:start]), (0, 25, 50, 75))
    assert sum(added) == 100
    assert [event.timestamp for event in filled.timeline("bob")] == sorted([*map(float, range(100)), 5.5])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(attributes=st.dictionaries(st.text("abcdefgh_", min_size=1), JSON, max_size=4))
def test_whatever_json_can_hold_comes_back(ledger: Ledger, attributes: dict[str, object]) -> None:
    ledger.put_items([Item("a", "movie", attributes)])
    present = {name: value for name, value in attributes.items() if value is not None}
    assert ledger.item("a").attributes == present


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(name=st.text(min_size=1, max_size=20), title=st.text(max_size=20))
def test_any_text_is_kept_exactly_or_refused(ledger: Ledger, name: str, title: str) -> None:
    refused = any(ord(sign) in {*range(32), 127, *range(0xD800, 0xE000)} for sign in name)
    refused |= any(0xD800 <= ord(sign) < 0xE000 for sign in title)
    with pytest.raises(LedgerError) if refused else nullcontext():
        ledger.put_items([Item(name, "movie", {"title": title})])
    assert name in ledger.items([name]) or refused
    if not refused:
        assert ledger.item(name).attributes == {"title": title}


def test_a_member_is_erased_with_all_that_is_known_of_them(filled: Ledger, open_tenant: Open) -> None:
    other = open_tenant("other")
    other.write(members=[Member("ann", {})], items=[Item("heat", "movie", {})], events=[watch("ann", "heat", 1.0)])
    filled.put_items([Item("person", "person", {"name": "Ann"}, "ann")])
    filled.add_events([watch("bob", "person", 30.0)])
    for name, member_id in (("x1", "ann"), ("x2", "bob")):
        slate = [Placement("person", 0), Placement("heat", 1)]
        filled.add_exposures([Exposure(name, member_id, "people", "one", "ab", "fused", False, 1.0, slate)])
    assert filled.erase("ann") == Erased(events=4, items=1, exposures=1)
    assert filled.member_ids() == ["bob"]
    assert [event.item_id for event in filled.all_events()] == ["heat"]
    assert filled.items(["person"]) == {}
    shown = [(row.member_id, row.item_id, row.position) for row in filled.exposures("one")]
    assert shown == [("bob", "heat", 1)]
    assert other.counts() == Counts(1, 1, 1), "another tenant's"
    for unknown in ("ann", "nobody", "", "\x00", "x" * 300):
        with pytest.raises(UnknownError, match="unknown member"):
            filled.erase(unknown)
    assert filled.counts() == Counts(3, 1, 1)
