"""The ledger: members, items and events of one tenant, in SQLite or PostgreSQL.

Reads run beside a write. A write is one transaction: it happens whole, or not at all.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, cast

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    FromClause,
    Row,
    Select,
    Table,
    delete,
    func,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from prompts.errors import LedgerError, UnknownError
from surfaces.ledger import kept, schema
from surfaces.ledger.asked import ERASED, EVENT, ITEM, ITEMS, MEMBER, Asked, among, listed
from surfaces.ledger.connection import Prepared, connect, notes, reading, together, writing
from surfaces.ledger.exposures import COLUMNS, Exposure, Shown, row_of, shown_of, without_item
from surfaces.ledger.identity import identified
from surfaces.ledger.records import (
    Clock,
    Counts,
    Erased,
    Event,
    Item,
    Member,
    check_event,
    check_name,
    check_timestamp,
    is_name,
    named,
    quoted,
)
from surfaces.ledger.rows import KEPT_CAP, forget, item_of, item_row, member_of, member_row, recalled
from surfaces.ledger.rows import Row as _Row

PAGE = 20_000
ALL = 1 << 62
_UNREAD = object()
IDS_AT_ONCE = 500
_ADD_EVENTS = insert(schema.events)


class Ledger:
    """One tenant's members, items and events. Methods may be called from any thread; they raise LedgerError."""

    def __init__(self, engine: Engine, tenant: str = "default") -> None:
        self._engine = engine
        self.tenant = named("tenant", check_name, tenant)
        self._now: object = _UNREAD
        self._postgres = engine.dialect.name == "postgresql"
        self._asked = Asked(self.tenant, postgres=self._postgres)
        self._visitor = Prepared(self._asked.visitor, engine.dialect)
        self._lately, self._timelines = kept.Items(None), kept.Timelines()

    @classmethod
    def open(cls, url: str, tenant: str = "default", *, create: bool = True) -> Ledger:
        """The ledger at `sqlite:///file` or `postgresql://…`; an absent file is made unless `create` is false."""
        return cls(connect(url, create=create), tenant)

    @property
    def engine(self) -> Engine:
        """The database that the ledger lives in."""
        return self._engine

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # Writing

    def write(
        self,
        *,
        items: Iterable[Item] = (),
        members: Iterable[Member] = (),
        events: Iterable[Event] = (),
        clock: Clock | None = None,
    ) -> Counts:
        """Writes everything in one transaction and returns how many rows came: events that are new, the rest in all.

        Items and members replace those with the same id. Events with an `event_id` that is there already are left
        out; an event without one gets a hash of its content and of how often that content came before in this call,
        so that the same call twice changes nothing. Raises UnknownError for an event or item that names an absent
        member or item.
        """
        with writing(self._engine) as connection:
            if clock is not None:
                self.write_clock(connection, clock)
            member_count = self._write_members(connection, members)
            item_count = self._write_items(connection, items)
            return Counts(item_count, member_count, self._write_events(connection, events))

    def put_items(self, items: Iterable[Item]) -> int:
        """Writes items, replacing those with the same id; returns how many."""
        return self.write(items=items).items

    def put_members(self, members: Iterable[Member]) -> int:
        """Writes members, replacing those with the same id; returns how many."""
        return self.write(members=members).members

    def add_events(self, events: Iterable[Event]) -> int:
        """Adds events, each once (see `write`); returns how many were new."""
        return self.write(events=events).events

    def add_exposures(self, exposures: Iterable[Exposure]) -> int:
        """Adds what experiments showed, and returns how many slates came. One with an id that is there is replaced."""
        rows = [row_of(exposure) for exposure in exposures]
        with writing(self._engine) as connection:
            self._upsert(connection, schema.exposures, rows)
        return len(rows)

    def erase(self, member_id: str) -> Erased:
        """Deletes a member with all that is known of them, in one transaction: events, exposures, the items they are.

        What others did with these items goes, too, and their places on others' slates. Raises UnknownError.
        """
        if not is_name(member_id):
            raise UnknownError(f"unknown member {quoted(member_id)}")
        event, item, exposure, member = (
            schema.events.c, schema.items.c, schema.exposures.c, schema.members.c,
        )  # fmt: skip
        with writing(self._engine) as connection:
            own = select(item.item_id).where(self._mine(schema.items), item.member_id == member_id)
            names = connection.scalars(own).all()

            def gone(table: Table, *where: ColumnElement[bool]) -> int:
                return connection.execute(delete(table).where(self._mine(table), *where)).rowcount

            events = gone(schema.events, event.member_id == member_id)
            events += sum(gone(schema.events, event.item_id == name) for name in names)
            items = gone(schema.items, item.member_id == member_id)
            exposures = gone(schema.exposures, exposure.member_id == member_id)
            for name in names:
                self._unplace(connection, name)
            if not gone(schema.members, member.member_id == member_id):
                raise UnknownError(f"unknown member {quoted(member_id)}")
            self.changed(connection, ITEMS, ERASED)
        forget()
        self._lately = kept.Items(None)
        self._timelines.forget()
        return Erased(events, items, exposures)

    def _unplace(self, connection: Connection, item_id: str) -> None:
        """Takes an item off the slates of experiments."""
        column = schema.exposures.c
        told = column.slate.contains(json.dumps(item_id), autoescape=True)
        rows = connection.execute(select(column.exposure_id, column.slate).where(self._mine(schema.exposures), told))
        for exposure_id, slate in rows.all():
            here = [self._mine(schema.exposures), column.exposure_id == exposure_id]
            connection.execute(update(schema.exposures).where(*here).values(slate=without_item(slate, item_id)))

    def set_clock(self, clock: Clock) -> None:
        """Says what timestamps mean. Raises LedgerError when there are events under the other meaning."""
        self.write(clock=clock)

    def write_clock(self, connection: Connection, clock: Clock) -> None:
        """Does what `set_clock` does, as a part of a transaction that does more."""
        if clock not in ("time", "order"):
            raise LedgerError(f"clock: {quoted(clock)} is neither 'time' nor 'order'")
        before = self._read_clock(connection)
        if clock == before:
            return
        if connection.execute(select(schema.events.c.arrival).where(self._mine(schema.events)).limit(1)).first():
            raise LedgerError(f"the ledger holds events whose clock is {before!r}; it cannot take the clock {clock!r}")
        self._upsert(connection, schema.settings, [{"name": "clock", "value": clock}])

    def _write_members(self, connection: Connection, members: Iterable[Member]) -> int:
        rows = [member_row(member) for member in members]
        self._upsert(connection, schema.members, rows)
        return len(rows)

    def _write_items(self, connection: Connection, items: Iterable[Item]) -> int:
        rows = [item_row(item) for item in items]
        people = {str(row["member_id"]) for row in rows if row["member_id"] is not None}
        self._check_known(connection, schema.members.c.member_id, people)
        self._upsert(connection, schema.items, rows)
        if rows:
            self.changed(connection)
        return len(rows)

    def changed(self, connection: Connection, *versions: str) -> None:
        """Tells every reader, in the transaction that does it, that items changed (or what else has a version)."""
        rows: list[_Row] = [{"name": name, "value": secrets.token_hex(8)} for name in versions or (ITEMS,)]
        self._upsert(connection, schema.settings, rows)

    def _write_events(self, connection: Connection, events: Iterable[Event]) -> int:
        clock = self._read_clock(connection)
        by_id = identified(check_event(event, clock) for event in events)
        self._check_known(connection, schema.members.c.member_id, {event.member_id for event in by_id.values()})
        self._check_known(connection, schema.items.c.item_id, {event.item_id for event in by_id.values()})
        new = set(self._missing(connection, schema.events.c.event_id, by_id))
        rows = [{"tenant": self.tenant, **event._asdict()} for event_id, event in by_id.items() if event_id in new]
        if rows:
            connection.execute(_ADD_EVENTS, rows)
        return len(rows)

    def _upsert(self, connection: Connection, table: Table, rows: Sequence[_Row]) -> None:
        """Writes rows over those with the same primary key."""
        if not rows:
            return
        upsert = postgresql.insert(table) if self._postgres else sqlite.insert(table)
        keys = [column.name for column in table.primary_key]
        values = {column.name: upsert.excluded[column.name] for column in table.c if column.name not in keys}
        statement = upsert.on_conflict_do_update(index_elements=keys, set_=values)
        connection.execute(statement, [{"tenant": self.tenant, **row} for row in rows])

    def _check_known(self, connection: Connection, column: Column[str], ids: Collection[str]) -> None:
        missing = self._missing(connection, column, ids)
        if missing:
            noun, more = column.name.removesuffix("_id"), f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UnknownError(f"unknown {noun} {quoted(missing[0])}{more}; the ledger must hold it first")

    # Reading

    def together(self) -> AbstractContextManager[None]:
        """What this thread reads inside is of one moment, and read faster."""
        return together(self._engine)

    def item(self, item_id: str) -> Item:
        """The item. Raises UnknownError."""
        for item in self._items(schema.items.c.item_id == item_id) if is_name(item_id) else ():
            return item
        raise UnknownError(f"unknown item {quoted(item_id)}")

    def items(self, ids: Iterable[str]) -> dict[str, Item]:
        """Those of the items that there are, by id, in the order asked for; see also `unknown_items`."""
        wanted = list(dict.fromkeys(ids))
        with self.together():
            lately = self._items_lately()
            found = {item_id: item for item_id in wanted if (item := lately.find(item_id)) is not None}
            if len(found) == len(wanted):
                return found
            for part in _parts(item_id for item_id in wanted if item_id not in found):
                for row in self._rows(self._asked.items, ids=listed(part, postgres=self._postgres)):
                    found[row[0]] = item = recalled(*row)
                    if len(row[2]) <= KEPT_CAP:
                        lately.keep(item.item_id, item)
        return {item_id: found[item_id] for item_id in wanted if item_id in found}

    def _items_lately(self) -> kept.Items:
        """What is kept of the items as this moment's transaction has them."""
        known, name = notes(self._engine), (ITEMS, self.tenant)
        if name not in known:
            with reading(self._engine) as connection:
                known[name] = connection.execute(self._asked.version).scalar()
        found, version = self._lately, cast("str | None", known[name])
        if found.version != version:
            found = self._lately = kept.Items(version)
        return found

    def all_items(self, kind: str | None = None) -> list[Item]:
        """Every item (of that kind), ordered by id."""
        return self._items() if kind is None else self._items(schema.items.c.kind == kind)

    def unknown_items(self, ids: Iterable[str]) -> list[str]:
        """Those of the ids that no item has, sorted."""
        with reading(self._engine) as connection:
            return self._missing(connection, schema.items.c.item_id, set(ids))

    def unknown_members(self, ids: Iterable[str]) -> list[str]:
        """Those of the ids that no member has, sorted."""
        with reading(self._engine) as connection:
            return self._missing(connection, schema.members.c.member_id, set(ids))

    def all_members(self) -> list[Member]:
        """Every member, ordered by id."""
        return self._members()

    def member(self, member_id: str) -> Member:
        """The member. Raises UnknownError."""
        for row in self._rows(self._asked.member, member_id=member_id) if is_name(member_id) else ():
            return member_of(*row)
        raise UnknownError(f"unknown member {quoted(member_id)}")

    def members(self, ids: Iterable[str]) -> dict[str, Member]:
        """Those of the members that there are, by id; the order is the ledger's."""
        column = schema.members.c.member_id
        found = (self._members(among(column, part, postgres=self._postgres)) for part in _parts(dict.fromkeys(ids)))
        return {member.member_id: member for members in found for member in members}

    def member_ids(self) -> list[str]:
        """The id of every member, sorted."""
        column = schema.members.c.member_id
        return [row[0] for row in self._rows(select(column).where(self._mine(schema.members)).order_by(column))]

    def timeline(self, member_id: str, newest: int = ALL) -> list[Event]:
        """The member's events on all surfaces, oldest first, ties in the order of arrival: the `newest` so many.

        Raises UnknownError.
        """
        rows = self._rows(self._asked.timeline, member_id=member_id, newest=newest) if is_name(member_id) else ()
        if not rows:
            self.member(member_id)
        return [Event._make(row) for row in reversed(rows)]

    def visitor(self, member_id: str, newest: int = ALL) -> tuple[Member, kept.Timeline]:
        """What `member` and `timeline` tell, the events without their ids. Raises UnknownError.

        It takes one small read, and of the events only those that came since the member's last visit.
        """
        with self.together():
            with reading(self._engine) as connection:
                rows = self._visitor.rows(connection, member_id=member_id) if is_name(member_id) else ()
            if not rows:
                raise UnknownError(f"unknown member {quoted(member_id)}")
            profile, items, *stamp = rows[0]
            notes(self._engine)[ITEMS, self.tenant] = items

            def later(arrival: int) -> kept.Rows:
                return self._rows(self._asked.later, member_id=member_id, arrival=arrival)

            def every() -> kept.Rows:
                return self._rows(self._asked.ranked, member_id=member_id, newest=newest)[::-1]

            timeline = self._timelines.of(member_id, newest, kept.Stamp(*stamp), later, every)
        return member_of(member_id, profile), timeline

    def timelines(self, ids: Iterable[str]) -> dict[str, list[Event]]:
        """Timelines by member, as `timeline` has them; empty for a member without events, or whom nobody knows."""
        column, wanted = schema.events.c, list(dict.fromkeys(ids))
        found: dict[str, list[Event]] = {member_id: [] for member_id in wanted}
        for part in _parts(wanted):
            theirs = among(column.member_id, part, postgres=self._postgres)
            query = select(*EVENT).where(self._mine(schema.events), theirs)
            for row in self._rows(query.order_by(column.member_id, column.timestamp, column.arrival)):
                found[row[0]].append(Event(*row))
        return found

    def all_events(self, kind: str | None = None, without: Collection[str] = ()) -> Iterator[Event]:
        """Every event, ordered by member, timestamp and arrival; read in pages, so that memory stays small.

        With `kind`, only those with items of that kind; events with an action of `without` are left out.
        """
        column = schema.events.c
        order = (column.member_id, column.timestamp, column.arrival)
        query = select(*EVENT, column.arrival).where(self._mine(schema.events)).order_by(*order).limit(PAGE)
        if without:
            query = query.where(column.action.not_in(sorted(without)))
        if kind is not None:
            item = schema.items.c
            query = query.where(
                column.item_id.in_(select(item.item_id).where(self._mine(schema.items), item.kind == kind))
            )
        page = query
        while True:
            rows = self._rows(page)
            for row in rows:
                yield Event(*row[:-1])
            if len(rows) < PAGE:
                return
            last = rows[-1]
            page = query.where(tuple_(*order) > tuple_(last.member_id, last.timestamp, last.arrival))

    def actions(self, kind: str) -> set[str]:
        """Every action that there is with items of that kind."""
        event, item = schema.events.c, schema.items.c
        of_kind = select(item.item_id).where(self._mine(schema.items), item.kind == kind)
        query = select(event.action).distinct().where(self._mine(schema.events), event.item_id.in_(of_kind))
        return {row[0] for row in self._rows(query)}

    def exposures(self, experiment: str) -> Iterator[Shown]:
        """What an experiment showed, a row for each item, by time and place; read in pages, so that memory stays small.

        A caller joins it with what the same members did with the same items from `timestamp` on. An arm that was
        assigned counts whether the slate was degraded or not (intention to treat).
        """
        column = schema.exposures.c
        order = (column.timestamp, column.exposure_id)
        query = select(*COLUMNS).where(self._mine(schema.exposures), column.experiment == experiment).order_by(*order)
        page = query.limit(PAGE)
        while True:
            rows = self._rows(page)
            for row in rows:
                yield from shown_of(row)
            if len(rows) < PAGE:
                return
            page = query.limit(PAGE).where(tuple_(*order) > tuple_(rows[-1].timestamp, rows[-1].exposure_id))

    def counts(self) -> Counts:
        """How many items, members and events there are."""
        tables = (schema.items, schema.members, schema.events)
        with reading(self._engine) as connection:
            queries = (select(func.count()).select_from(table).where(self._mine(table)) for table in tables)
            return Counts(*(connection.execute(query).scalar_one() for query in queries))

    @property
    def clock(self) -> Clock:
        """What timestamps mean; `time` unless it was set."""
        with reading(self._engine) as connection:
            return self._read_clock(connection)

    @property
    def now(self) -> float | None:
        """The ledger's own present, in seconds since 1970: when rankings from it happen. None: at the time they do.

        A ledger of the past (an old data set, a simulation) has one; it is read once.
        """
        if self._now is _UNREAD:
            with reading(self._engine) as connection:
                said = connection.execute(self._asked.setting("now")).scalar()
            self._now = None if said is None else float(said)
        return cast("float | None", self._now)

    @property
    def note(self) -> str:
        """What must be told wherever figures from this ledger are shown, such as that it is simulated; else empty."""
        with reading(self._engine) as connection:
            return str(connection.execute(self._asked.setting("note")).scalar() or "")

    def set_note(self, note: str) -> None:
        """Says what must be told with every figure. Raises LedgerError for what cannot be one short line."""
        value = named("note", check_name, note)
        with writing(self._engine) as connection:
            self._upsert(connection, schema.settings, [{"name": "note", "value": value}])

    def set_now(self, now: float) -> None:
        """Gives the ledger a present of its own. Raises LedgerError for what is no time."""
        value = named("now", lambda value: check_timestamp(value, "time"), now)
        with writing(self._engine) as connection:
            self._upsert(connection, schema.settings, [{"name": "now", "value": repr(value)}])
        self._now = value

    def _read_clock(self, connection: Connection) -> Clock:
        return "order" if connection.execute(self._asked.setting("clock")).scalar() == "order" else "time"

    def _items(self, *where: ColumnElement[bool]) -> list[Item]:
        query = select(*ITEM).where(self._mine(schema.items), *where).order_by(schema.items.c.item_id)
        return [item_of(*row) for row in self._rows(query)]

    def _members(self, *where: ColumnElement[bool]) -> list[Member]:
        query = select(*MEMBER).where(self._mine(schema.members), *where).order_by(schema.members.c.member_id)
        return [member_of(*row) for row in self._rows(query)]

    def _rows(self, query: Select[*tuple[Any, ...]], **asked: object) -> Sequence[Row[*tuple[Any, ...]]]:
        with reading(self._engine) as connection:
            return connection.execute(query, asked).all()

    def _missing(self, connection: Connection, column: Column[str], ids: Collection[str]) -> list[str]:
        """Those of the ids that the column does not have, sorted."""
        found: set[str] = set()
        for part in _parts(ids):
            asked = {"ids": listed(part, postgres=self._postgres)}
            found.update(connection.scalars(self._asked.known[column], asked))
        return sorted(set(ids) - found)

    def _mine(self, table: FromClause) -> ColumnElement[bool]:
        return table.c.tenant == self.tenant


def _parts(ids: Iterable[str]) -> Iterator[Sequence[str]]:
    """The ids in parts for one query each, without those that cannot be one: a database may choke on them."""
    ids = [name for name in ids if is_name(name)]
    return (ids[start : start + IDS_AT_ONCE] for start in range(0, len(ids), IDS_AT_ONCE))
