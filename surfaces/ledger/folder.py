"""A ledger folder: items, members and events as .parquet, .jsonl or .csv files, and an optional ledger.yaml."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from prompts.errors import LedgerError
from surfaces.ledger.records import Clock, Counts, Item, Member, quoted
from surfaces.ledger.store import Ledger
from surfaces.ledger.tables import Progress, Row, Table, Tables, import_tables

_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
_STRUCTURAL = ("item_id", "kind", "member_id", "surface", "action", "timestamp", "event_id")
_EVENT_SCHEMA = {
    "member_id": pl.String,
    "item_id": pl.String,
    "surface": pl.String,
    "action": pl.String,
    "timestamp": pl.Float64,
    "value": pl.Float64,
    "position": pl.Int64,
    "propensity": pl.Float64,
    "event_id": pl.String,
}


def import_folder(path: Path, ledger: Ledger, progress: Progress | None = None) -> Counts:
    """Writes the folder's rows to the ledger and returns how many came (see `Ledger.write`).

    Everything is checked first and written in one transaction, see `import_tables`. Raises LedgerError, with the
    ledger as it was, that names the file, the row, the column and what would be right.
    """
    if progress:
        progress("reading")
    return import_tables(read_folder(path), ledger, progress)


def read_folder(path: Path) -> Tables:
    """The folder's tables, not yet checked. Raises LedgerError for a file that is absent, doubled or unreadable."""
    if not path.is_dir():
        raise LedgerError(f"no folder at {path}; a ledger folder holds items, members and events")
    return Tables(_read(path, "items"), _read(path, "members"), _read(path, "events"), _read_clock(path))


def _read(folder: Path, name: str) -> Table:
    found = [folder / f"{name}{ending}" for ending in _READERS if (folder / f"{name}{ending}").is_file()]
    if len(found) != 1:
        names = " and ".join(path.name for path in found) or "none"
        raise LedgerError(f"{folder}: one of {name}.parquet, {name}.jsonl and {name}.csv is needed; found {names}")
    return _READERS[found[0].suffix](found[0])


def _read_parquet(path: Path) -> Table:
    try:
        frame = pl.read_parquet(path)
        return Table(path.name, tuple(frame.columns), frame.to_dicts())
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise LedgerError(f"{path.name}: not a whole parquet file: {reason}") from None


def _read_jsonl(path: Path) -> Table:
    lines = _text(path).rstrip("\n").split("\n")
    rows = [_json_row(line, f"{path.name}: row {number}") for number, line in enumerate(lines, 1)] if lines[0] else []
    return Table(path.name, tuple(dict.fromkeys(name for row in rows for name in row)), rows)


def _json_row(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LedgerError(f"{where}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise LedgerError(f'{where}: {quoted(row)} is not an object such as {{"item_id": …}}')
    return row


def _read_csv(path: Path) -> Table:
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        header = next(reader, [])
        rows = [row for row in reader if row]
    except csv.Error as error:
        raise LedgerError(f"{path.name}: line {reader.line_num}: {error}") from None
    if not header or len(set(header)) < len(header):
        raise LedgerError(f"{path.name}: line 1 must name every column, each once")
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise LedgerError(f"{path.name}: row {number}: {len(row)} cells, but the header has {len(header)}")
    columns = [_typed(name, [row[place] for row in rows]) for place, name in enumerate(header)]
    return Table(path.name, tuple(header), [dict(zip(header, row, strict=True)) for row in zip(*columns, strict=True)])


def _typed(name: str, cells: list[str]) -> Sequence[object]:
    """A column of a CSV file: numbers where every cell is written as one, else text; empty cells are None.

    A zip code such as 02139 stays text, and so do ids and words.
    """
    filled = [cell for cell in cells if cell]
    if name not in _STRUCTURAL:
        for pattern, read in ((_WHOLE, int), (_DECIMAL, float)):
            if all(pattern.fullmatch(cell) for cell in filled):
                return [read(cell) if cell else None for cell in cells]
    return [cell or None for cell in cells]


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerError(f"{path.name}: not UTF-8 text: {error}") from None


_READERS: dict[str, Callable[[Path], Table]] = {".parquet": _read_parquet, ".jsonl": _read_jsonl, ".csv": _read_csv}


def _read_clock(folder: Path) -> Clock:
    path = folder / "ledger.yaml"
    if not path.is_file():
        return "time"
    try:
        settings = YAML(typ="safe", pure=True).load(_text(path)) or {}
    except (YAMLError, ValueError, RecursionError) as error:
        raise LedgerError(f"ledger.yaml: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict) or set(settings) - {"clock"}:
        raise LedgerError("ledger.yaml: the one key it may have is `clock`")
    clock = settings.get("clock", "time")
    if clock not in ("time", "order"):
        raise LedgerError(f"ledger.yaml: clock: {quoted(clock)} is neither 'time' nor 'order'")
    return "order" if clock == "order" else "time"


def export_folder(ledger: Ledger, path: Path) -> Counts:
    """Writes the ledger as a folder that `import_folder` reads back to the same rows; returns how many.

    Items and members become .jsonl, which keeps every attribute's type; events become .parquet. Files are put in
    place when all are whole. Raises LedgerError when the folder cannot be written.
    """
    members, items, events = ledger.all_members(), ledger.all_items(), list(ledger.all_events())
    try:
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path, prefix=".export-") as scratch:
            _write_jsonl(Path(scratch, "members.jsonl"), (_member_row(member) for member in members))
            _write_jsonl(Path(scratch, "items.jsonl"), (_item_row(item) for item in items))
            pl.DataFrame(events, schema=_EVENT_SCHEMA, orient="row").write_parquet(Path(scratch, "events.parquet"))
            Path(scratch, "ledger.yaml").write_text(f"clock: {ledger.clock}\n")
            for file in sorted(Path(scratch).iterdir()):
                file.replace(path / file.name)
    except OSError as error:
        raise LedgerError(f"cannot write the ledger folder {path}: {error}") from None
    return Counts(len(items), len(members), len(events))


def _member_row(member: Member) -> Row:
    return {"member_id": member.member_id, **member.profile}


def _item_row(item: Item) -> Row:
    person = {} if item.member_id is None else {"member_id": item.member_id}
    return {"item_id": item.item_id, "kind": item.kind, **person, **item.attributes}


def _write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
