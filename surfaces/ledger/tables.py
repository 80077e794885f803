"""A ledger folder's three tables: checked whole, then written whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from difflib import get_close_matches
from typing import NamedTuple, TypeVar

from prompts.errors import LedgerError, UnknownError
from surfaces.ledger.records import (
    ITEM_FIELDS,
    MEMBER_FIELDS,
    Clock,
    Counts,
    Event,
    Item,
    Member,
    check_name,
    check_number,
    check_position,
    check_propensity,
    check_timestamp,
    dump_attributes,
    quoted,
)
from surfaces.ledger.store import Ledger, identified

Row = Mapping[str, object]
Progress = Callable[[str], None]
"""Called with the name of each step of an import as it begins."""

REQUIRED = {
    "items": ("item_id", "kind"),
    "members": ("member_id",),
    "events": ("member_id", "item_id", "surface", "action", "timestamp"),
}
OPTIONAL_EVENT = ("event_id", "value", "position", "propensity")
TIE_SEED = 0

_Value = TypeVar("_Value")


class Table(NamedTuple):
    """Rows under a name for error messages (the file's); row 1 is the first row of data."""

    name: str
    columns: tuple[str, ...]
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Tables:
    """What a ledger folder holds."""

    items: Table
    members: Table
    events: Table
    clock: Clock = "time"


class _Records(NamedTuple):
    items: list[Item]
    members: list[Member]
    events: list[Event]


def import_tables(tables: Tables, ledger: Ledger, progress: Progress | None = None) -> Counts:
    """Checks the tables, then writes them in one transaction; returns what `Ledger.write` does.

    Events of one member with equal timestamps arrive in an order drawn with seed 0 from their ids (a hash of their
    content where they have none): the order of rows in a file says nothing then, and often betrays popularity.
    Raises LedgerError, with the ledger as it was, that names table, row and column.
    """
    report = progress or _silent
    report("checking")
    records = _read(tables)
    _check_references(tables, records, ledger)
    report("writing")
    events = in_arrival_order(records.events)
    return ledger.write(items=records.items, members=records.members, events=events, clock=tables.clock)


def _read(tables: Tables) -> _Records:
    items = [_item(row, where) for where, row in _rows(tables.items, "items")]
    _check_distinct(tables.items, "item_id", (item.item_id for item in items))
    members = [_member(row, where) for where, row in _rows(tables.members, "members")]
    _check_distinct(tables.members, "member_id", (member.member_id for member in members))
    _check_event_columns(tables.events)
    events = [_event(row, tables.clock, where) for where, row in _rows(tables.events, "events")]
    _check_distinct(tables.events, "event_id", (event.event_id for event in events))
    return _Records(items, members, events)


def in_arrival_order(events: Iterable[Event]) -> list[Event]:
    """The events by time; ties in an order that is a seeded hash of their ids."""
    pairs = sorted(identified(events).items(), key=lambda pair: (pair[1].timestamp, _draw(pair[0])))
    return [event for _, event in pairs]


def _draw(event_id: str) -> bytes:
    return hashlib.blake2b(f"{TIE_SEED}:{event_id}".encode(), digest_size=8).digest()


def _rows(table: Table, kind: str) -> Iterator[tuple[str, Row]]:
    """Every row with where it stands. Raises LedgerError for a missing column."""
    for column in REQUIRED[kind]:
        if column not in table.columns and (table.columns or table.rows):
            raise LedgerError(f"{table.name}: no column {column!r}; {kind} need {_listed(REQUIRED[kind])}")
    for number, row in enumerate(table.rows, 1):
        yield f"{table.name}: row {number}", row


def _check_event_columns(table: Table) -> None:
    allowed = (*REQUIRED["events"], *OPTIONAL_EVENT)
    for column in table.columns:
        if column not in allowed:
            close = get_close_matches(column, allowed, n=1, cutoff=0.8)
            guess = f" (did you mean {close[0]!r}?)" if close else ""
            raise LedgerError(
                f"{table.name}: unknown column {quoted(column)}{guess}; events may have {_listed(allowed)}"
            )


def _item(row: Row, where: str) -> Item:
    attributes = _attributes(row, ITEM_FIELDS, where)
    person = _maybe(row, "member_id", where, _name)
    return Item(_need(row, "item_id", where, _name), _need(row, "kind", where, _name), attributes, person)


def _member(row: Row, where: str) -> Member:
    return Member(_need(row, "member_id", where, _name), _attributes(row, MEMBER_FIELDS, where))


def _event(row: Row, clock: Clock, where: str) -> Event:
    return Event(
        member_id=_need(row, "member_id", where, _name),
        item_id=_need(row, "item_id", where, _name),
        surface=_need(row, "surface", where, _name),
        action=_need(row, "action", where, _name),
        timestamp=_need(row, "timestamp", where, _clock_reader(clock)),
        value=_maybe(row, "value", where, _number),
        position=_maybe(row, "position", where, _position),
        propensity=_maybe(row, "propensity", where, _propensity),
        event_id=_maybe(row, "event_id", where, _name),
    )


def _need(row: Row, column: str, where: str, read: Callable[[object], _Value]) -> _Value:
    value = _maybe(row, column, where, read)
    if value is None:
        raise LedgerError(f"{where}: no {column}; every row needs one")
    return value


def _maybe(row: Row, column: str, where: str, read: Callable[[object], _Value]) -> _Value | None:
    """The cell as `read` understands it; None for an empty one."""
    value = row.get(column)
    if value is None or value == "":
        return None
    try:
        return read(value)
    except LedgerError as error:
        raise LedgerError(f"{where}, column {column!r}: {error}") from None


def _name(value: object) -> str:
    """An id or a word; whole numbers are taken as text."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return check_name(value)


def _number(value: object) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise LedgerError(f"{quoted(value)} is not a number") from None
    return check_number(value)


def _position(value: object) -> int:
    return check_position(_number(value))


def _propensity(value: object) -> float:
    return check_propensity(_number(value))


def _clock_reader(clock: Clock) -> Callable[[object], float]:
    def read(value: object) -> float:
        seconds = _seconds(value) if clock == "time" else _number(value)
        return check_timestamp(seconds, clock)

    return read


def _seconds(value: object) -> float:
    """Seconds since 1970 from a number, a date or ISO 8601 text; a time without a zone is UTC."""
    if isinstance(value, str):
        value = _number_or_date(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return check_number(value)


def _number_or_date(text: str) -> float | datetime:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        right = "write seconds since 1970 or ISO 8601, such as 2026-01-31T12:00:00Z"
        raise LedgerError(f"{quoted(text)} is not a time; {right}") from None


def _attributes(row: Row, structural: Sequence[str], where: str) -> dict[str, object]:
    """The other columns of a row as attributes; empty cells are left out, dates become ISO 8601 text."""
    attributes = {
        name: value.isoformat() if isinstance(value, (date, time)) else value
        for name, value in row.items()
        if name not in structural and value is not None
    }
    dump_attributes(attributes, where, structural)
    return attributes


def _check_distinct(table: Table, column: str, ids: Iterable[str | None]) -> None:
    """Raises LedgerError where an id comes twice."""
    first: dict[str, int] = {}
    for number, name in enumerate(ids, 1):
        if name is not None and first.setdefault(name, number) != number:
            raise LedgerError(f"{table.name}: rows {first[name]} and {number} have the same {column} {quoted(name)}")


def _check_references(tables: Tables, records: _Records, ledger: Ledger) -> None:
    """Raises UnknownError where a row names a member or item that is in neither the tables nor the ledger."""
    members = {member.member_id for member in records.members}
    items = {item.item_id for item in records.items}
    people = [item.member_id for item in records.items]
    actors, objects = [event.member_id for event in records.events], [event.item_id for event in records.events]
    _check_known(tables.items, "member_id", people, members, ledger.unknown_members)
    _check_known(tables.events, "member_id", actors, members, ledger.unknown_members)
    _check_known(tables.events, "item_id", objects, items, ledger.unknown_items)


def _check_known(
    table: Table, column: str, names: Sequence[str | None], known: set[str], missing: Callable[[set[str]], list[str]]
) -> None:
    absent = set(missing({name for name in names if name is not None} - known))
    if absent:
        number, name = next((number, name) for number, name in enumerate(names, 1) if name in absent)
        more = f" ({len(absent)} such ids)" if len(absent) > 1 else ""
        raise UnknownError(
            f"{table.name}: row {number}, column {column!r}: unknown {column.removesuffix('_id')} {quoted(name)}{more}"
            "; it must be in the folder or already in the ledger"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _silent(_: str) -> None:
    """The progress that nobody watches."""
