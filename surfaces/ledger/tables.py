"""A ledger folder's three tables: read in chunks, checked whole, then written whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import NamedTuple, Protocol, runtime_checkable

from prompts.errors import LedgerError
from surfaces.ledger.cells import Cells, Reader, event_reader, item_cells, member_cells
from surfaces.ledger.records import Clock, Counts, quoted
from surfaces.ledger.staging import Staging
from surfaces.ledger.store import Ledger

Row = Mapping[str, object]
Progress = Callable[[str], None]
"""Called with the name of each step of an import as it begins. One that is a `RowProgress` is told of rows, too."""

REQUIRED = {
    "items": ("item_id", "kind"),
    "members": ("member_id",),
    "events": ("member_id", "item_id", "surface", "action", "timestamp"),
}
OPTIONAL_EVENT = ("event_id", "value", "position", "propensity")
CHUNK_ROWS, CHUNK_TEXT = 10_000, 16_000_000
"""A chunk ends with so many rows, or so many characters of text."""


@runtime_checkable
class RowProgress(Protocol):
    """A progress that also wants to know how many rows have come."""

    def __call__(self, step: str, /) -> None:
        """A step begins."""

    def rows(self, done: int, total: int | None) -> None:
        """So many of all rows have come; `total` is None where nobody knows it. An import that goes on after it was
        cut off begins with the rows that had come."""


class Table(NamedTuple):
    """Rows under a name for error messages (the file's); row 1 is the first row of data.

    Rows may be read as they come, and as often as they are asked for.
    """

    name: str
    columns: tuple[str, ...]
    rows: Iterable[Row]


@dataclass(frozen=True, slots=True)
class Tables:
    """What a ledger folder holds. Tables with the same `fingerprint` hold the same rows; None says nothing.

    `now` is the present of a ledger of the past, in seconds since 1970; `note` is told with every figure from it (see
    `Ledger`).
    """

    items: Table
    members: Table
    events: Table
    clock: Clock = "time"
    fingerprint: str | None = None
    now: float | None = None
    note: str = ""


def import_tables(tables: Tables, ledger: Ledger, progress: Progress | None = None) -> Counts:
    """Checks the tables, then writes them in one transaction; returns what `Ledger.write` does.

    Rows come to the ledger's database in chunks, and are seen when all have come and every check is passed. An import
    that was cut off goes on where it was when tables with the same fingerprint are imported. Events of one member with
    equal timestamps arrive in an order drawn with seed 0 from their ids (a hash of their content where they have
    none): the order of rows in a file says nothing then, and often betrays popularity. Raises LedgerError, with the
    ledger as it was, that names table, row and column.
    """
    report = progress or _silent
    report("checking")
    kinds = {"items": tables.items, "members": tables.members, "events": tables.events}
    staging = Staging(ledger, {kind: table.name for kind, table in kinds.items()}, tables.fingerprint)
    counter = _Counter([table.rows for table in kinds.values()], progress)
    try:
        for kind, table in kinds.items():
            _stage(staging, kind, table, tables.clock, counter)
        report("writing")
        counts = staging.finish(tables.clock)
        if tables.now is not None:
            ledger.set_now(tables.now)
        if tables.note:
            ledger.set_note(tables.note)
        return counts
    except LedgerError as error:
        if error.__cause__ is None:  # else it came from the database, and the rows are as good as they were
            staging.drop()
        raise


class _Counter:
    """Counts rows over all tables for a progress that wants to know."""

    def __init__(self, tables: Sequence[Iterable[Row]], progress: Progress | None) -> None:
        sizes = [_size(rows) for rows in tables]
        self._total = None if None in sizes else sum(size or 0 for size in sizes)
        self._progress = progress if isinstance(progress, RowProgress) else None
        self._done = 0

    def add(self, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress.rows(self._done, self._total)


def _stage(staging: Staging, kind: str, table: Table, clock: Clock, counter: _Counter) -> None:
    """Brings the rows that have not come yet."""
    _check_columns(table, kind)
    come = staging.come[kind]
    counter.add(come)
    read: Reader = {"items": item_cells, "members": member_cells, "events": event_reader(clock)}[kind]
    numbered = islice(enumerate(table.rows, 1), come, None)
    for chunk in _chunks(read(row, f"{table.name}: row {number}") for number, row in numbered):
        staging.add(kind, come + 1, chunk)
        come += len(chunk)
        counter.add(len(chunk))
    staging.check_distinct(kind)


def _chunks(rows: Iterable[Cells]) -> Iterator[list[Cells]]:
    """The rows in lists that fit in memory."""
    chunk: list[Cells] = []
    text = 0
    for row in rows:
        chunk.append(row)
        text += sum(len(cell) for cell in row if isinstance(cell, str))
        if len(chunk) == CHUNK_ROWS or text > CHUNK_TEXT:
            yield chunk
            chunk, text = [], 0
    if chunk:
        yield chunk


def _check_columns(table: Table, kind: str) -> None:
    """Raises LedgerError for a column that is missing, and for one that an event cannot have."""
    for column in REQUIRED[kind]:
        if column not in table.columns and (table.columns or _size(table.rows)):
            raise LedgerError(f"{table.name}: no column {column!r}; {kind} need {_listed(REQUIRED[kind])}")
    allowed = (*REQUIRED["events"], *OPTIONAL_EVENT)
    for column in table.columns if kind == "events" else ():
        if column not in allowed:
            close = get_close_matches(column, allowed, n=1, cutoff=0.8)
            guess = f" (did you mean {close[0]!r}?)" if close else ""
            raise LedgerError(
                f"{table.name}: unknown column {quoted(column)}{guess}; events may have {_listed(allowed)}"
            )


def _size(rows: Iterable[Row]) -> int | None:
    return len(rows) if isinstance(rows, Sized) else None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _silent(_: str) -> None:
    """The progress that nobody watches."""
