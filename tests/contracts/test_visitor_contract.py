"""What is kept between visits never shows: a visitor is told as the ledger has them, whoever wrote to it meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prompts.errors import UnknownError
from surfaces.ledger import kept
from surfaces.ledger.folder import import_folder
from surfaces.ledger.kept import Stamp, Timelines
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.rows import KEPT_CAP
from surfaces.ledger.store import ALL, Ledger
from tests.contracts.test_ledger_contract import watch
from tests.databases import Open

MEMBERS = ("ann", "bob", "cy")
ITEMS = ("heat", "alien", "ode", "cy")


Step = tuple[str, object]


def fill(ledger: Ledger) -> None:
    """Three members, of whom the last is an item, too."""
    items = [Item(name, "movie", {"title": name}, name if name in MEMBERS else None) for name in ITEMS]
    ledger.write(members=[Member(name, {"age": 30}) for name in MEMBERS], items=items)


@pytest.fixture
def server(open_tenant: Open) -> Ledger:
    """The ledger as a server has it."""
    ledger = open_tenant("default")
    fill(ledger)
    return ledger


@pytest.fixture
def other(open_tenant: Open, server: Ledger) -> Ledger:
    """The same ledger in another process."""
    return open_tenant("default")


def told(ledger: Ledger, member_id: str = "ann", newest: int = ALL) -> Sequence[Event]:
    """The visitor's timeline, which must be what a reading without memory finds."""
    member, timeline = ledger.visitor(member_id, newest)
    assert member == ledger.member(member_id)
    assert list(timeline) == [event._replace(event_id=None) for event in ledger.timeline(member_id, newest)]
    return timeline


def test_a_timeline_is_the_same_object_until_it_grows(server: Ledger, other: Ledger) -> None:
    assert told(server) == []
    server.add_events([watch("ann", "heat", 20.0), watch("ann", "ode", 10.0)])
    first = told(server)
    other.add_events([watch("bob", "heat", 1.0)])
    assert told(server) is first
    for number, (ledger, at) in enumerate([(other, 30.0), (server, 15.0), (other, 30.0), (server, 5.0), (other, 20.0)]):
        ledger.add_events([watch("ann", name, at, value=float(number)) for name in ("alien", "heat")])
        assert told(server) is not first
    assert len(told(server)) == 12


def test_only_what_is_new_is_read(server: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add_events([watch("ann", "heat", float(at)) for at in range(50)])
    first, made = told(server), list[int]()
    events = kept._events
    monkeypatch.setattr(kept, "_events", lambda rows: made.append(len(rows)) or events(rows))
    server.add_events([watch("ann", "ode", 60.0), watch("ann", "ode", 25.5)])
    again = told(server)
    assert made == [2]
    assert sum(event is old for event in again for old in first) == 50


@pytest.mark.parametrize("newest", [1, 3, 5, ALL])
def test_the_newest_so_many(server: Ledger, newest: int) -> None:
    for number, at in enumerate([4.0, 9.0, 2.0, 9.0, 1.0, 7.0, 9.0]):
        server.add_events([watch("ann", "heat", at, value=float(number))])
        told(server, newest=newest)
    told(server, newest=2)
    assert len(told(server, newest=newest)) == min(newest, 7)


def test_more_at_once_than_is_read_by_the_way(server: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "FEW", 2)
    for count in (1, 3, 2):
        server.add_events([watch("ann", "heat", float(at), value=float(count)) for at in range(count)])
        told(server)


@pytest.mark.parametrize("by", ["server", "other"])
def test_whoever_is_erased_is_gone(server: Ledger, other: Ledger, by: str) -> None:
    """What others did with the item that they were, too, though as many events come as went."""
    ledger = {"server": server, "other": other}[by]
    server.add_events([watch("ann", "heat", 1.0), watch("bob", "ode", 1.0), watch("ann", "cy", 2.0)])
    assert len(told(server)) == 2
    assert "cy" in server.items(ITEMS)
    ledger.erase("cy")
    ledger.add_events([watch("ann", "ode", 2.0)])
    assert [event.item_id for event in told(server)] == ["heat", "ode"]
    assert list(server.items(ITEMS)) == ["heat", "alien", "ode"]
    for _ in range(2):
        with pytest.raises(UnknownError, match="unknown member 'cy'"):
            server.visitor("cy")
    ledger.write(members=[Member("cy", {})], items=[Item("cy", "movie", {}, "cy")])
    assert told(server, "cy") == []
    assert server.items(ITEMS)["cy"].attributes == {}


def test_nothing_is_kept_of_who_was_erased_elsewhere(server: Ledger, other: Ledger) -> None:
    server.add_events([watch("bob", "heat", 1.0), watch("ann", "heat", 1.0)])
    told(server, "bob")
    other.erase("bob")
    told(server)
    assert list(server._timelines._kept) == ["ann"]


@pytest.mark.parametrize("by", ["server", "other"])
def test_items_are_as_they_were_written_last(server: Ledger, other: Ledger, by: str) -> None:
    ledger = {"server": server, "other": other}[by]
    first = server.items(ITEMS)
    assert server.items(["heat"])["heat"] is first["heat"]
    ledger.put_items([Item("heat", "movie", {"title": "Heat 2"}), Item("new", "movie", {})])
    again = server.items([*ITEMS, "new", "nobody"])
    assert again["heat"].attributes == {"title": "Heat 2"}
    assert again["alien"] is first["alien"]
    assert list(again) == [*ITEMS, "new"]
    ledger.put_members([Member("ann", {"age": 31})])
    ledger.add_events([watch("ann", "heat", 1.0)])
    assert server.items(["heat"])["heat"] is again["heat"]
    assert server.visitor("ann")[0].profile == {"age": 31}


def test_an_import_is_seen(server: Ledger, other: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    folder.mkdir()
    (folder / "items.jsonl").write_text('{"item_id": "heat", "kind": "movie", "title": "Heat 3"}\n')
    (folder / "members.jsonl").write_text('{"member_id": "ann"}\n')
    row = '{"member_id": "ann", "item_id": "heat", "surface": "movies", "action": "watch", "timestamp": 3}\n'
    (folder / "events.jsonl").write_text(row)
    assert server.items(["heat"])["heat"].attributes == {"title": "heat"}
    told(server)
    import_folder(folder, other)
    assert server.items(["heat"])["heat"].attributes == {"title": "Heat 3"}
    assert len(told(server)) == 1


def test_a_large_item_is_read_each_time(server: Ledger) -> None:
    server.put_items([Item("large", "movie", {"text": "x" * KEPT_CAP})])
    assert server.items(["large"])["large"] is not server.items(["large"])["large"]


def test_a_write_that_failed_changes_nothing(server: Ledger) -> None:
    first = server.items(ITEMS)
    with pytest.raises(UnknownError):
        server.write(items=[Item("heat", "movie", {})], events=[watch("nobody", "heat", 1.0)])
    assert server.items(["heat"])["heat"] is first["heat"]


def test_within_one_moment_items_do_not_change(server: Ledger, other: Ledger) -> None:
    """A database that shows each statement what is newest may show more, but never keeps it as what was before."""
    with server.together():
        server.visitor("ann")
        other.put_items([Item("heat", "movie", {"title": "Heat 4"})])
        server.items(["heat"])
    assert server.items(["heat"])["heat"].attributes == {"title": "Heat 4"}


@pytest.mark.parametrize("name", ["", "x" * 300, "a\x00b", "\ud800", "nobody"])
def test_a_visitor_whom_nobody_knows(server: Ledger, name: str) -> None:
    with pytest.raises(UnknownError, match="unknown member"):
        server.visitor(name)


def test_tenants_are_apart(server: Ledger, open_tenant: Open) -> None:
    second = open_tenant("second")
    fill(second)
    server.add_events([watch("ann", "heat", 1.0)])
    server.put_items([Item("heat", "movie", {"title": "ours"})])
    assert len(told(server)) == 1
    assert told(second) == []
    assert second.items(["heat"])["heat"].attributes == {"title": "heat"}


WHO, WHAT = st.sampled_from(MEMBERS), st.sampled_from(ITEMS)
STEPS = st.one_of(
    st.tuples(st.just("events"), st.lists(st.tuples(WHO, WHAT, st.integers(0, 3)), max_size=4)),
    st.tuples(st.just("item"), WHAT),
    st.tuples(st.just("erase"), WHO),
    st.tuples(st.just("look"), WHO),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.booleans(), STEPS), max_size=20), newest=st.sampled_from([2, ALL]))
def test_whatever_happens(server: Ledger, other: Ledger, steps: Sequence[tuple[bool, Step]], newest: int) -> None:
    """Two processes write, one of them ranks."""
    fill(server)
    number = iter(range(1_000))

    def events(ledger: Ledger, asked: Sequence[tuple[str, str, int]]) -> None:
        ledger.add_events(watch(who, what, float(at), value=float(next(number))) for who, what, at in asked)

    def item(ledger: Ledger, name: str) -> None:
        ledger.put_items([Item(name, "movie", {"n": next(number)}, name if name in MEMBERS else None)])

    def erase(ledger: Ledger, name: str) -> None:
        ledger.erase(name)
        fill(ledger)

    def look(_: Ledger, name: str) -> None:
        told(server, name, newest)

    acts: dict[str, Callable[[Ledger, object], None]] = {"events": events, "item": item, "erase": erase, "look": look}  # type: ignore[dict-item]
    for by_server, (what, how) in steps:
        acts[what](server if by_server else other, how)
        assert server.items(ITEMS) == {each.item_id: each for each in server.all_items()}
    for name in MEMBERS:
        told(server, name, newest)


def test_no_more_events_are_kept_than_there_is_room_for() -> None:
    timelines = Timelines(room=10)

    def visit(member_id: str, count: int) -> Sequence[Event]:
        rows = [(member_id, "heat", "movies", "watch", float(at), None, None, None, at) for at in range(count)]
        stamp = Stamp(None, count, count - 1)
        return timelines.of(member_id, ALL, stamp, lambda _: [], lambda: rows)

    first = visit("ann", 4)
    assert visit("ann", 4) is first
    visit("bob", 6)
    assert timelines.held == 10
    assert visit("ann", 4) is first
    visit("cy", 3)
    assert (timelines.held, list(timelines._kept)) == (7, ["ann", "cy"])
    visit("dan", 11)
    assert (timelines.held, list(timelines._kept)) == (0, [])
    visit("ann", 4)
    timelines.forget()
    assert visit("ann", 4) is not first


def test_a_write_between_two_looks_is_not_kept_twice() -> None:
    """The rows may be newer than what was asked first."""
    timelines = Timelines()
    rows = [("ann", "heat", "movies", "watch", float(at), None, None, None, at) for at in range(1, 4)]

    def of(stamp: Stamp, later: int = 0) -> int:
        return len(timelines.of("ann", ALL, stamp, lambda at: [row for row in rows if row[-1] > at], lambda: rows))

    assert of(Stamp(None, 2, 2)) == 3
    assert of(Stamp(None, 3, 3)) == 3
    rows += [("ann", "heat", "movies", "watch", 4.0, None, None, None, at) for at in (4, 5)]
    assert of(Stamp(None, 4, 4)) == 5
    assert of(Stamp(None, 5, 5)) == 5
