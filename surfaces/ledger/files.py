"""The files of a ledger folder as tables whose rows are read as they are asked for.

A first pass over a file finds its columns and counts its rows; memory holds a few rows, whatever the file's size.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from prompts.errors import LedgerError
from surfaces.ledger.records import quoted
from surfaces.ledger.tables import Row, Table

SLICE = 10_000
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
_TYPES: tuple[tuple[re.Pattern[str] | None, Callable[[str], object]], ...] = (
    (_WHOLE, int),
    (_DECIMAL, float),
    (None, str),
)
_STRUCTURAL = ("item_id", "kind", "member_id", "surface", "action", "timestamp", "event_id")


class FileRows:
    """The rows of a file, read anew each time. Raises LedgerError where the file is not what it was at first."""

    def __init__(self, path: Path, read: Callable[[], Iterator[Row]], stamp: tuple[int, int], count: int) -> None:
        self._path, self._read, self._stamp, self._count = path, read, stamp, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row]:
        yield from self._read()
        if _stamp(self._path) != self._stamp:
            raise LedgerError(f"{self._path.name}: the file changed while it was read; import it again")


def read_file(path: Path) -> Table:
    """The table in a .parquet, .jsonl or .csv file. Raises LedgerError for a file that cannot be read."""
    stamp = _stamp(path)
    columns, read, count = READERS[path.suffix](path)
    return Table(path.name, columns, FileRows(path, read, stamp, count))


def fingerprint(paths: Iterable[Path], *more: str) -> str:
    """A hash of the files' names and contents. Raises LedgerError for a file that cannot be read."""
    found = hashlib.blake2b(repr(more).encode(), digest_size=16)
    for path in paths:
        with _as_read(path), path.open("rb") as file:
            found.update(f"{path.name}:{hashlib.file_digest(file, 'blake2b').hexdigest()};".encode())
    return found.hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    with _as_read(path):
        found = path.stat()
    return found.st_size, found.st_mtime_ns


@contextmanager
def _as_read(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerError(f"{path.name}: not UTF-8 text: {error}") from None


_Found = tuple[tuple[str, ...], Callable[[], Iterator[Row]], int]


def _read_parquet(path: Path) -> _Found:
    with _as_parquet(path):
        frame = pl.scan_parquet(path, glob=False)
        columns, count = tuple(frame.collect_schema()), frame.select(pl.len()).collect().item()
    return columns, lambda: _parquet_rows(path, count), count


def _parquet_rows(path: Path, count: int) -> Iterator[Row]:
    for start in range(0, count, SLICE):
        with _as_parquet(path):
            rows = pl.scan_parquet(path, glob=False).slice(start, SLICE).collect()
            if len(rows) != min(SLICE, count - start):
                raise pl.exceptions.ComputeError(f"{count} rows are announced, and fewer are there")
        yield from rows.iter_rows(named=True)


@contextmanager
def _as_parquet(path: Path) -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise LedgerError(f"{path.name}: not a whole parquet file: {reason}") from None


def _read_jsonl(path: Path) -> _Found:
    columns: dict[str, None] = {}
    count = 0
    for row in _json_rows(path):
        columns.update(dict.fromkeys(row))
        count += 1
    return tuple(columns), lambda: _json_rows(path), count


def _json_rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), 1):
        yield _json_row(line, f"{path.name}: row {number}")


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file, without empty ones at its end."""
    empty = 0
    with _as_read(path), path.open("rb") as file:
        for number, line in enumerate(file):
            text = line.decode("utf-8" if number else "utf-8-sig").removesuffix("\n")
            if not text:
                empty += 1
                continue
            yield from [""] * empty
            yield text
            empty = 0


def _json_row(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LedgerError(f"{where}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise LedgerError(f'{where}: {quoted(row)} is not an object such as {{"item_id": …}}')
    return row


def _read_csv(path: Path) -> _Found:
    """Columns are numbers where every cell is written as one, else text.

    A zip code such as 02139 stays text, and so do ids and words.
    """
    rows = _csv_cells(path)
    header = next(rows)
    types = [len(_TYPES) - 1 if name in _STRUCTURAL else 0 for name in header]
    count = 0
    for row in rows:
        types = [_type(cell, known) for cell, known in zip(row, types, strict=True)]
        count += 1
    readers = [_TYPES[place][1] for place in types]
    return tuple(header), lambda: _csv_rows(path, readers), count


def _type(cell: str, known: int) -> int:
    """The first type from `known` on that the cell is written as."""
    while cell and (pattern := _TYPES[known][0]) and not pattern.fullmatch(cell):
        known += 1
    return known


def _csv_rows(path: Path, readers: Sequence[Callable[[str], object]]) -> Iterator[Row]:
    rows = _csv_cells(path)
    header = next(rows)
    for row in rows:
        yield {name: read(cell) if cell else None for name, read, cell in zip(header, readers, row, strict=True)}


def _csv_cells(path: Path) -> Iterator[list[str]]:
    """The header, then every row with as many cells."""
    with _as_read(path), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            if not header or len(set(header)) < len(header):
                raise LedgerError(f"{path.name}: line 1 must name every column, each once")
            yield header
            for number, row in enumerate(filter(None, reader), 1):
                if len(row) != len(header):
                    raise LedgerError(f"{path.name}: row {number}: {len(row)} cells, but the header has {len(header)}")
                yield row
        except csv.Error as error:
            raise LedgerError(f"{path.name}: line {reader.line_num}: {error}") from None


READERS = {".parquet": _read_parquet, ".jsonl": _read_jsonl, ".csv": _read_csv}
