"""Rows of a ledger folder, checked cell by cell and put as the ledger keeps them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import TypeAlias, TypeVar

from prompts.errors import LedgerError
from surfaces.ledger.identity import content, content_id
from surfaces.ledger.records import (
    ITEM_FIELDS,
    MEMBER_FIELDS,
    Clock,
    Event,
    check_name,
    check_number,
    check_position,
    check_propensity,
    check_timestamp,
    dump_attributes,
    quoted,
)

Cells: TypeAlias = tuple[object, ...]
"""A row's cells in the order of the columns of its staging table, without tenant and number."""

Reader: TypeAlias = Callable[[Mapping[str, object], str], Cells]
"""Makes cells of a row; the text says where the row stands. Raises LedgerError with place and column."""

TIE_SEED = 0

_Value = TypeVar("_Value")
_Row = Mapping[str, object]


def item_cells(row: _Row, where: str) -> Cells:
    """An item's cells (see `schema.staged_items`)."""
    attributes = _attributes(row, ITEM_FIELDS, where)
    person = _maybe(row, "member_id", where, _name)
    return _need(row, "item_id", where, _name), _need(row, "kind", where, _name), attributes, person


def member_cells(row: _Row, where: str) -> Cells:
    """A member's cells (see `schema.staged_members`)."""
    return _need(row, "member_id", where, _name), _attributes(row, MEMBER_FIELDS, where)


def event_reader(clock: Clock) -> Reader:
    """Makes an event's cells (see `schema.staged_events`); timestamps are of that clock."""
    read_time = _clock_reader(clock)

    def read(row: _Row, where: str) -> Cells:
        return event_cells(
            Event(
                member_id=_need(row, "member_id", where, _name),
                item_id=_need(row, "item_id", where, _name),
                surface=_need(row, "surface", where, _name),
                action=_need(row, "action", where, _name),
                timestamp=_need(row, "timestamp", where, read_time),
                value=_maybe(row, "value", where, _number),
                position=_maybe(row, "position", where, _position),
                propensity=_maybe(row, "propensity", where, _propensity),
                event_id=_maybe(row, "event_id", where, _name),
            )
        )

    return read


def event_cells(event: Event) -> Cells:
    """The cells of an event. One without an id is taken for the first of its content, until the rest is known."""
    if event.event_id is not None:
        return event.event_id, *event[:-1], 1, None, 1, draw(event.event_id)
    text, kept = content(event), None
    if "-0.0" in text:  # it equals 0.0, and SQLite keeps it as 0.0, but its hash is another
        kept, text = text, content(event._replace(timestamp=event.timestamp + 0.0, value=_unsigned(event.value)))
    event_id = content_id(text, 1)
    return event_id, *event[:-1], 0, kept, 1, draw(event_id)


def _unsigned(value: float | None) -> float | None:
    return None if value is None else value + 0.0


def draw(event_id: str) -> int:
    """The place of an event among those of the same time: a seeded hash of its id, as a signed number of 64 bits."""
    digest = hashlib.blake2b(f"{TIE_SEED}:{event_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) - 2**63


def _need(row: _Row, column: str, where: str, read: Callable[[object], _Value]) -> _Value:
    value = _maybe(row, column, where, read)
    if value is None:
        raise LedgerError(f"{where}: no {column}; every row needs one")
    return value


def _maybe(row: _Row, column: str, where: str, read: Callable[[object], _Value]) -> _Value | None:
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
        return check_timestamp(seconds(value) if clock == "time" else _number(value), clock)

    return read


def seconds(value: object) -> float:
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


def _attributes(row: _Row, structural: Sequence[str], where: str) -> str:
    """The other columns of a row as JSON; empty cells are left out, dates become ISO 8601 text."""
    attributes = {
        name: value.isoformat() if isinstance(value, (date, time)) else value
        for name, value in row.items()
        if name not in structural and value is not None
    }
    return dump_attributes(attributes, where, structural)
