"""Rows of an import on their way into a ledger: they come in chunks, and go into the ledger in one transaction.

Chunks are committed as they come, in tables that nothing else reads. An import that was cut off goes on after its last
chunk when the same rows are imported again, and memory holds no more than one chunk. Of two imports into one ledger
the one that began later wins; the other stops at its next chunk.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Insert,
    Select,
    Table,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from prompts.errors import LedgerError, UnknownError
from surfaces.ledger import schema
from surfaces.ledger.cells import Cells, draw
from surfaces.ledger.connection import reading, writing
from surfaces.ledger.identity import content_id
from surfaces.ledger.records import Clock, Counts, quoted
from surfaces.ledger.store import Ledger

PAGE = 20_000
MANY = 1_000
LAYOUT = 1
"""The form of staged rows. Rows of another form than this are not gone on with."""

STAGED = {"items": schema.staged_items, "members": schema.staged_members, "events": schema.staged_events}
_KEYS = {"items": "item_id", "members": "member_id", "events": "event_id"}
_CONTENT = ("member_id", "item_id", "surface", "action", "timestamp", "value", "position", "propensity")


class Staging:
    """One import into a ledger. `names` are the tables' names for error messages (the files').

    Rows of an earlier import with the same fingerprint are gone on with; others are dropped. `come` says how many
    rows of each kind were there at the start.
    """

    def __init__(self, ledger: Ledger, names: Mapping[str, str], fingerprint: str | None) -> None:
        self._ledger, self._engine, self._names = ledger, ledger.engine, names
        self._fingerprint = f"{LAYOUT}:{fingerprint or uuid.uuid4().hex}"
        self._owner = uuid.uuid4().hex
        with writing(self._engine) as connection:
            found = connection.scalar(select(schema.imports.c.fingerprint).where(self._mine(schema.imports)))
            if found != self._fingerprint:
                self._drop(connection)
            self.come = {kind: connection.scalar(self._last(table)) or 0 for kind, table in STAGED.items()}
            connection.execute(delete(schema.imports).where(self._mine(schema.imports)))
            claim = {"tenant": ledger.tenant, "fingerprint": self._fingerprint, "owner": self._owner}
            connection.execute(insert(schema.imports), claim)

    def add(self, kind: str, first: int, rows: Sequence[Cells]) -> None:
        """Keeps the next rows, of which `first` is the first one's number."""
        with self._turn() as connection:
            _load(connection, STAGED[kind], [(self._ledger.tenant, first + n, *row) for n, row in enumerate(rows)])

    def check_distinct(self, kind: str) -> None:
        """Raises LedgerError where an id comes twice."""
        table, column = STAGED[kind], STAGED[kind].c[_KEYS[kind]]
        query = select(table.c.number, column.label("name")).where(self._mine(table))
        if kind == "events":
            query = query.where(table.c.named == 1)
        earliest = func.min(table.c.number).over(partition_by=column).label("earliest")
        found = query.add_columns(earliest).subquery()
        repeats = select(found).where(found.c.number > found.c.earliest).order_by(found.c.number).limit(1)
        with reading(self._engine) as connection:
            for number, name, first in connection.execute(repeats):
                same = f"have the same {column.name} {quoted(name)}"
                raise LedgerError(f"{self._names[kind]}: rows {first} and {number} {same}")

    def finish(self, clock: Clock) -> Counts:
        """Moves every row into the ledger in one transaction; returns what `Ledger.write` does.

        Raises UnknownError where a row names a member or item that is in neither the rows nor the ledger.
        """
        with self._turn() as connection:
            self._ledger.write_clock(connection, clock)
            members = self._replace(connection, schema.staged_members, schema.members)
            self._check_known(connection, "items", schema.members, "member_id")
            items = self._replace(connection, schema.staged_items, schema.items)
            self._ledger.changed(connection)
            self._analyze(connection)
            self._check_known(connection, "events", schema.members, "member_id")
            self._check_known(connection, "events", schema.items, "item_id")
            self._name_repeats(connection)
            events = self._add_events(connection)
            self._drop(connection)
        return Counts(items, members, events)

    def drop(self) -> None:
        """Forgets the rows, if no other import has taken over."""
        with writing(self._engine) as connection:
            if self._owns(connection):
                self._drop(connection)

    @contextmanager
    def _turn(self) -> Iterator[Connection]:
        """A transaction. Raises LedgerError when another import has taken over."""
        with writing(self._engine) as connection:
            if not self._owns(connection):
                raise LedgerError("another import into this ledger began meanwhile; when it is done, import again")
            yield connection

    def _owns(self, connection: Connection) -> bool:
        query = select(schema.imports.c.owner).where(self._mine(schema.imports))
        return connection.scalar(query) == self._owner

    def _drop(self, connection: Connection) -> None:
        for table in (*STAGED.values(), schema.imports):
            connection.execute(delete(table).where(self._mine(table)))

    def _replace(self, connection: Connection, staged: Table, table: Table) -> int:
        """Writes staged rows over those with the same key."""
        columns = [column.name for column in table.c]
        upsert = postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
        rows = select(*(staged.c[name] for name in columns)).where(self._mine(staged))
        keys = [column.name for column in table.primary_key]
        values = {name: upsert.excluded[name] for name in columns if name not in keys}
        statement = upsert.from_select(columns, rows).on_conflict_do_update(index_elements=keys, set_=values)
        return _count(connection, statement)

    def _analyze(self, connection: Connection) -> None:
        """Has PostgreSQL look at new rows now, not some time later: it plans badly for rows that it has not seen."""
        if connection.dialect.name != "postgresql" or (connection.scalar(self._last(STAGED["events"])) or 0) < MANY:
            return
        for table in (schema.members, schema.items, schema.staged_events):
            connection.execute(text(f"ANALYZE {table.name}"))

    def _check_known(self, connection: Connection, kind: str, known: Table, column: str) -> None:
        """Raises UnknownError where a staged row names what is not in the ledger, which has the staged rows now."""
        table = STAGED[kind]
        name = table.c[column]
        there = exists().where(self._mine(known), known.c[column] == name)
        absent = select(table.c.number, name).where(self._mine(table), name.is_not(None), ~there)
        row = connection.execute(absent.order_by(table.c.number).limit(1)).first()
        if row is None:
            return
        count = connection.scalar(select(func.count(absent.subquery().c[column].distinct()))) or 0
        more = f" ({count} such ids)" if count > 1 else ""
        raise UnknownError(
            f"{self._names[kind]}: row {row[0]}, column {column!r}: unknown {column.removesuffix('_id')} "
            f"{quoted(row[1])}{more}; it must be in the folder or already in the ledger"
        )

    def _name_repeats(self, connection: Connection) -> None:
        """Gives events whose content came before in this import the id of their occurrence."""
        table = schema.staged_events
        number, event_id = table.c.number, table.c.event_id
        occurrence = func.row_number().over(partition_by=event_id, order_by=number).label("occurrence")
        counted = select(number, occurrence).where(self._mine(table), table.c.named == 0).subquery()
        again = (self._mine(table), number == counted.c.number, counted.c.occurrence > 1)
        connection.execute(update(table).where(*again).values(occurrence=counted.c.occurrence))
        columns = (table.c[name] for name in ("number", "occurrence", "content", *_CONTENT))
        query = select(*columns).where(self._mine(table), or_(table.c.occurrence > 1, table.c.content.is_not(None)))
        change = update(table).where(self._mine(table), number == bindparam("at"))
        last = 0
        while rows := connection.execute(query.where(number > last).order_by(number).limit(PAGE)).all():
            ids = {row[0]: content_id(row[2] or json.dumps(row[3:], separators=(",", ":")), row[1]) for row in rows}
            changes = [{"at": at, "event_id": name, "draw": draw(name)} for at, name in ids.items()]
            connection.execute(change, changes)
            last = rows[-1][0]

    def _add_events(self, connection: Connection) -> int:
        """Adds the events that are new; those of a member by time, and ties in the order of their draw.

        Members come one after another, so that a timeline lies in one place of the database's file.
        """
        staged, table = schema.staged_events, schema.events
        columns = ["tenant", "event_id", *_CONTENT]
        order = (staged.c.member_id, staged.c.timestamp, staged.c.draw, staged.c.number)
        rows = select(*(staged.c[name] for name in columns)).where(self._mine(staged)).order_by(*order)
        add = postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
        statement = add.from_select(columns, rows).on_conflict_do_nothing(index_elements=["tenant", "event_id"])
        return _count(connection, statement)

    def _last(self, table: Table) -> Select[int | None]:
        return select(func.max(table.c.number)).where(self._mine(table))

    def _mine(self, table: FromClause) -> ColumnElement[bool]:
        return table.c.tenant == self._ledger.tenant


def _count(connection: Connection, statement: Insert) -> int:
    """Runs the statement; returns how many rows it wrote."""
    return connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount


def _load(connection: Connection, table: Table, rows: Sequence[Cells]) -> None:
    """Inserts rows in the fastest way that the database's driver has."""
    if connection.dialect.name != "postgresql":
        connection.exec_driver_sql(str(insert(table).compile(dialect=connection.dialect)), list(rows))
        return
    columns = ", ".join(column.name for column in table.c)
    cursor = connection.connection.cursor()
    try:
        with cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
    except connection.dialect.loaded_dbapi.Error as error:
        reason = str(error).strip().partition("\n")[0]
        raise LedgerError(f"the ledger cannot be written: {reason}") from error
    finally:
        cursor.close()
