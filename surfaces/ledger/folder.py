"""A ledger folder: items, members and events as .parquet, .jsonl or .csv files, and an optional ledger.yaml."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import polars as pl
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from prompts.errors import LedgerError
from surfaces.ledger.cells import seconds
from surfaces.ledger.files import READERS, fingerprint, read_file
from surfaces.ledger.records import Clock, Counts, Event, Item, Member, check_name, named, quoted
from surfaces.ledger.store import PAGE, Ledger
from surfaces.ledger.tables import Progress, Row, Tables, import_tables

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

    Everything is checked first and written in one transaction, see `import_tables`. An import that was cut off goes on
    where it was when the same files are imported again. Raises LedgerError, with the ledger as it was, that names the
    file, the row, the column and what would be right.
    """
    if progress:
        progress("reading")
    return import_tables(read_folder(path), ledger, progress)


def read_folder(path: Path) -> Tables:
    """The folder's tables, not yet checked, whose rows are read as they are asked for.

    Raises LedgerError for a file that is absent, doubled or unreadable.
    """
    if not path.is_dir():
        raise LedgerError(f"no folder at {path}; a ledger folder holds items, members and events")
    files = [_find(path, name) for name in ("items", "members", "events")]
    items, members, events = (read_file(file) for file in files)
    clock, now, note = _read_settings(path)
    return Tables(items, members, events, clock, fingerprint(files, clock), now, note)


def _find(folder: Path, name: str) -> Path:
    found = [folder / f"{name}{ending}" for ending in READERS if (folder / f"{name}{ending}").is_file()]
    if len(found) != 1:
        names = " and ".join(path.name for path in found) or "none"
        raise LedgerError(f"{folder}: one of {name}.parquet, {name}.jsonl and {name}.csv is needed; found {names}")
    return found[0]


class _Settings(NamedTuple):
    clock: Clock = "time"
    now: float | None = None
    note: str = ""


def _read_settings(folder: Path) -> _Settings:
    path = folder / "ledger.yaml"
    if not path.is_file():
        return _Settings()
    try:
        settings = YAML(typ="safe", pure=True).load(_text(path)) or {}
    except (YAMLError, ValueError, RecursionError) as error:
        raise LedgerError(f"ledger.yaml: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict) or set(settings) - {"clock", "now", "note"}:
        raise LedgerError("ledger.yaml: the keys it may have are `clock`, `now` and `note`")
    clock, now = settings.get("clock", "time"), settings.get("now")
    if clock not in ("time", "order"):
        raise LedgerError(f"ledger.yaml: clock: {quoted(clock)} is neither 'time' nor 'order'")
    present = None if now is None else named("ledger.yaml: now", seconds, now)
    note = named("ledger.yaml: note", check_name, settings["note"]) if settings.get("note") else ""
    return _Settings("order" if clock == "order" else "time", present, note)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerError(f"{path.name}: not UTF-8 text: {error}") from None


def export_folder(ledger: Ledger, path: Path) -> Counts:
    """Writes the ledger as a folder that `import_folder` reads back to the same rows; returns how many.

    Items and members become .jsonl, which keeps every attribute's type; events become .parquet. Files are put in
    place when all are whole. Raises LedgerError when the folder cannot be written.
    """
    members, items = ledger.all_members(), ledger.all_items()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path, prefix=".export-") as scratch:
            _write_jsonl(Path(scratch, "members.jsonl"), (_member_row(member) for member in members))
            _write_jsonl(Path(scratch, "items.jsonl"), (_item_row(item) for item in items))
            events = _write_events(Path(scratch, "events.parquet"), ledger.all_events())
            now = "" if ledger.now is None else f"now: {ledger.now!r}\n"
            note = f"note: {json.dumps(ledger.note)}\n" if ledger.note else ""
            Path(scratch, "ledger.yaml").write_text(f"clock: {ledger.clock}\n{now}{note}", encoding="utf-8")
            for file in sorted(Path(scratch).iterdir()):
                file.replace(path / file.name)
    except OSError as error:
        raise LedgerError(f"cannot write the ledger folder {path}: {error}") from None
    return Counts(len(items), len(members), events)


def _member_row(member: Member) -> Row:
    return {"member_id": member.member_id, **member.profile}


def _item_row(item: Item) -> Row:
    person = {} if item.member_id is None else {"member_id": item.member_id}
    return {"item_id": item.item_id, "kind": item.kind, **person, **item.attributes}


def _write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_events(path: Path, events: Iterator[Event]) -> int:
    """Writes the events as parts that fit in memory, and the parts as one file; returns how many."""
    count = 0
    parts: list[Path] = []
    with TemporaryDirectory(dir=path.parent) as scratch:
        while (page := list(islice(events, PAGE))) or not parts:
            parts.append(Path(scratch, f"{len(parts)}.parquet"))
            pl.DataFrame(page, schema=_EVENT_SCHEMA, orient="row").write_parquet(parts[-1])
            count += len(page)
        pl.scan_parquet(parts, glob=False).sink_parquet(path, maintain_order=True)
    return count
