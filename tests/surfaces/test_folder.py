"""A ledger folder goes in whole or not at all, and what is wrong with it is told with file, row and column."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prompts.errors import LedgerError, UnknownError
from surfaces.ledger.folder import export_folder, import_folder, read_folder
from surfaces.ledger.records import Counts, Event, Item, Member
from surfaces.ledger.store import Ledger

Rows = list[dict[str, object]]
Content = dict[str, Rows]
ENDINGS = ("parquet", "jsonl", "csv")


def content() -> Content:
    return {
        "items": [
            {"item_id": "heat", "kind": "movie", "title": "Heat, really", "year": 1995},
            {"item_id": "alien", "kind": "movie", "title": 'Alien "1"\nuncut', "year": None},
        ],
        "members": [{"member_id": "7", "age": 30, "zip": "02139"}, {"member_id": "bob", "age": 41, "zip": "10001"}],
        "events": [
            happened("7", "heat", action="like", timestamp=100, value=5.0),
            happened("7", "alien", action="show", timestamp=50, value=None),
            happened("bob", "heat", action="like", timestamp=7, value=4.5),
        ],
    }


def happened(member_id: str, item_id: str, **more: object) -> dict[str, object]:
    return {"member_id": member_id, "item_id": item_id, "surface": "movies", **more}


def write(folder: Path, tables: Content, ending: str) -> Path:
    for name, rows in tables.items():
        write_table(folder / f"{name}.{ending}", rows)
    return folder


def write_table(path: Path, rows: Rows) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        frame = pl.DataFrame(rows, infer_schema_length=None)
        frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir()
    return path


def state(ledger: Ledger) -> tuple[object, ...]:
    return ledger.all_items(), ledger.all_members(), list(ledger.all_events()), ledger.clock


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_folder_comes_in(folder: Path, ledger: Ledger, ending: str) -> None:
    steps: list[str] = []
    assert import_folder(write(folder, content(), ending), ledger, steps.append) == Counts(2, 2, 3)
    assert steps == ["reading", "checking", "writing"]
    assert ledger.item("heat") == Item("heat", "movie", {"title": "Heat, really", "year": 1995})
    assert ledger.item("alien").attributes["title"] == 'Alien "1"\nuncut'
    assert ledger.item("alien").attributes.get("year") is None
    assert ledger.member("7") == Member("7", {"age": 30, "zip": "02139"})
    shown, liked = ledger.timeline("7")
    assert shown._replace(event_id=None) == Event("7", "alien", "movies", "show", 50.0)
    assert liked._replace(event_id=None) == Event("7", "heat", "movies", "like", 100.0, value=5.0)
    assert ledger.clock == "time"


@pytest.mark.parametrize("ending", ENDINGS)
def test_importing_twice_changes_nothing(folder: Path, ledger: Ledger, ending: str) -> None:
    import_folder(write(folder, content(), ending), ledger)
    before = state(ledger)
    assert import_folder(folder, ledger) == Counts(2, 2, 0)
    assert state(ledger) == before


def test_the_same_rows_in_another_format_are_the_same_events(tmp_path: Path, ledger: Ledger) -> None:
    for ending in ENDINGS:
        other = tmp_path / ending
        other.mkdir()
        import_folder(write(other, content(), ending), ledger)
    assert ledger.counts() == Counts(2, 2, 3)


def test_formats_may_be_mixed_and_other_files_lie_beside(folder: Path, ledger: Ledger) -> None:
    for (name, rows), ending in zip(content().items(), ENDINGS, strict=True):
        write_table(folder / f"{name}.{ending}", rows)
    (folder / "README.md").write_text("ours")
    assert import_folder(folder, ledger) == Counts(2, 2, 3)


Change = Callable[[Content], object]


def at(name: str, row: int, **cells: object) -> Change:
    return lambda tables: tables[name][row].update(cells)


def without(name: str, column: str) -> Change:
    return lambda tables: [row.pop(column) for row in tables[name]]


def twice(name: str) -> Change:
    return lambda tables: tables[name].append(dict(tables[name][0]))


def same_event_id(tables: Content) -> None:
    for row in tables["events"]:
        row["event_id"] = "e1"


WRONG: dict[str, tuple[Change, str]] = {
    "no item_id": (without("items", "item_id"), "items.{0}: no column 'item_id'; items need item_id, kind"),
    "no kind": (without("items", "kind"), "items.{0}: no column 'kind'"),
    "no member_id": (without("members", "member_id"), "members.{0}: no column 'member_id'; members need member_id"),
    "no timestamp": (
        without("events", "timestamp"),
        "events.{0}: no column 'timestamp'; events need member_id, item_id",
    ),
    "no action": (without("events", "action"), "events.{0}: no column 'action'"),
    "rating": (at("events", 0, rating=5), "events.{0}: unknown column 'rating'; events may have member_id, item_id"),
    "misspelt": (at("events", 0, timestmp=5), "events.{0}: unknown column 'timestmp' (did you mean 'timestamp'?)"),
    "item twice": (twice("items"), "items.{0}: rows 1 and 3 have the same item_id 'heat'"),
    "member twice": (twice("members"), "members.{0}: rows 1 and 3 have the same member_id '7'"),
    "event twice": (same_event_id, "events.{0}: rows 1 and 2 have the same event_id 'e1'"),
    "empty id": (at("items", 1, item_id=None), "items.{0}: row 2: no item_id; every row needs one"),
    "empty time": (at("events", 1, timestamp=None), "events.{0}: row 2: no timestamp; every row needs one"),
    "member": (
        at("events", 2, member_id="x"),
        "events.{0}: row 3, column 'member_id': unknown member 'x'; it must be in",
    ),
    "item": (at("events", 1, item_id="x"), "events.{0}: row 2, column 'item_id': unknown item 'x'; it must be in"),
    "person": (at("items", 1, member_id="x"), "items.{0}: row 2, column 'member_id': unknown member 'x'; it must be"),
    "year 50000": (
        at("events", 2, timestamp=1_700_000_000_000),
        "events.{0}: row 3, column 'timestamp': 1700000000000 is outside the years 1 to 9999; it must be in seconds",
    ),
    "position": (at("events", 0, position=-1), "events.{0}: row 1, column 'position': -1.0 is not a place on a slate"),
    "propensity": (
        at("events", 1, propensity=1.5),
        "events.{0}: row 2, column 'propensity': 1.5 is not a probability above 0 and at most 1",
    ),
    "control": (at("members", 1, member_id="a\tb"), "members.{0}: row 2, column 'member_id': 'a\\tb' holds a control"),
    "long id": (at("items", 0, item_id="x" * 300), "items.{0}: row 1, column 'item_id': 'xxx"),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_told_and_nothing_is_lost(
    folder: Path, ledger: Ledger, change: Change, message: str, ending: str
) -> None:
    ledger.write(members=[Member("old", {})], items=[Item("heat", "movie", {"title": "as it was"})])
    before = state(ledger)
    tables = content()
    change(tables)
    with pytest.raises(LedgerError) as caught:
        import_folder(write(folder, tables, ending), ledger)
    assert message.format(ending) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert state(ledger) == before


def test_many_unknown_ids_are_counted(folder: Path, ledger: Ledger) -> None:
    tables = content()
    tables["items"] = tables["items"][:0]
    with pytest.raises(UnknownError, match=r"row 1, column 'item_id': unknown item 'heat' \(2 such ids\)"):
        import_folder(write(folder, tables, "jsonl"), ledger)


def test_references_may_be_in_the_ledger_already(folder: Path, ledger: Ledger) -> None:
    ledger.write(items=[Item("old", "movie", {})], members=[Member("cy", {})])
    tables = content()
    tables["events"][0].update(item_id="old", member_id="cy")
    tables["items"][0]["member_id"] = "cy"
    assert import_folder(write(folder, tables, "jsonl"), ledger) == Counts(2, 2, 3)
    assert ledger.item("heat").member_id == "cy"


TIMES = {
    "1970-01-01T00:00:10Z": 10.0,
    "1970-01-01T00:00:10": 10.0,
    "1970-01-01 00:00:10.5": 10.5,
    "1970-01-01T01:00:00+01:00": 0.0,
    "1970-01-02": 86_400.0,
    "2026-01-31T12:00:00Z": 1_769_860_800.0,
    "10": 10.0,
    "10.25": 10.25,
    "-3": -3.0,
    "8.8e8": 880_000_000.0,
}


@pytest.mark.parametrize(("written", "seconds"), TIMES.items())
@pytest.mark.parametrize("ending", ENDINGS)
def test_times_as_text(folder: Path, ledger: Ledger, written: str, seconds: float, ending: str) -> None:
    tables = content()
    for row in tables["events"]:
        row["timestamp"] = written
    import_folder(write(folder, tables, ending), ledger)
    assert {event.timestamp for event in ledger.all_events()} == {seconds}


@pytest.mark.parametrize("zone", [None, UTC, timezone(timedelta(hours=2))])
def test_times_as_parquet_has_them(folder: Path, ledger: Ledger, zone: timezone | None) -> None:
    tables = content()
    moment = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=zone)
    for row in tables["events"]:
        row["timestamp"] = moment
    for row in tables["items"]:
        row.update(released=date(1995, 12, 15), tags=["a", "b"], deep={"x": [1, None]})
    import_folder(write(folder, tables, "parquet"), ledger)
    assert {event.timestamp for event in ledger.all_events()} == {(moment.replace(tzinfo=zone or UTC)).timestamp()}
    assert ledger.item("heat").attributes["released"] == "1995-12-15"
    assert ledger.item("heat").attributes["tags"] == ["a", "b"]
    assert ledger.item("heat").attributes["deep"] == {"x": [1, None]}


@pytest.mark.parametrize("written", ["yesterday", "31.01.2026", "2026-13-01", "12:00", "1970-01-01T00:00:61Z", "0x10"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_times_that_are_none(folder: Path, ledger: Ledger, written: str, ending: str) -> None:
    tables = content()
    for row, time in zip(tables["events"], ("10", written, "12"), strict=True):
        row["timestamp"] = time
    with pytest.raises(LedgerError) as caught:
        import_folder(write(folder, tables, ending), ledger)
    message = (
        f"events.{ending}: row 2, column 'timestamp': '{written}' is not a time; write seconds since 1970 or ISO 8601"
    )
    assert message in str(caught.value)


@pytest.mark.parametrize("written", ["nan", "inf", "-Infinity", "1e999"])
@pytest.mark.parametrize("column", ["timestamp", "value", "propensity"])
def test_numbers_that_are_none(folder: Path, ledger: Ledger, column: str, written: str) -> None:
    tables = content()
    for row in tables["events"]:
        row[column] = "0.5"
    tables["events"][2][column] = written
    with pytest.raises(LedgerError, match=f"^events.csv: row 3, column '{column}': -?(nan|inf) is not a finite number"):
        import_folder(write(folder, tables, "csv"), ledger)


def test_nan_in_parquet(folder: Path, ledger: Ledger) -> None:
    tables = content()
    tables["events"][0]["value"] = float("nan")
    with pytest.raises(LedgerError, match=r"^events.parquet: row 1, column 'value': nan is not a finite number; leave"):
        import_folder(write(folder, tables, "parquet"), ledger)
    tables = content()
    tables["items"][1]["score"] = float("nan")
    with pytest.raises(LedgerError, match=r"^items.parquet: row 2: attribute 'score', nan, is not text, a finite"):
        import_folder(write(folder, tables, "parquet"), ledger)


def test_parquet_columns_that_json_cannot_hold(folder: Path, ledger: Ledger) -> None:
    for value in (b"\xff", timedelta(1), Decimal("1.5")):
        tables = content()
        tables["members"][1]["odd"] = value
        with pytest.raises(LedgerError, match=r"^members.parquet: row 2: attribute 'odd', .* is not text"):
            import_folder(write(folder, tables, "parquet"), ledger)
    assert ledger.counts() == Counts(0, 0, 0)


def test_whole_numbers_as_ids(folder: Path, ledger: Ledger) -> None:
    tables = content()
    tables["members"][0]["member_id"] = tables["members"][0]["member_id"]
    for rows in tables.values():
        for row in rows:
            if "member_id" in row:
                row["member_id"] = {"7": 7, "bob": 8}[str(row["member_id"])]
    import_folder(write(folder, tables, "parquet"), ledger)
    assert ledger.member_ids() == ["7", "8"]


@pytest.mark.parametrize("value", [1.5, True, [1]])
def test_other_things_as_ids(folder: Path, ledger: Ledger, value: object) -> None:
    tables = content()
    tables["items"][0]["item_id"] = value
    with pytest.raises(LedgerError, match=r"^items.jsonl: row 1, column 'item_id': .* is not text"):
        import_folder(write(folder, tables, "jsonl"), ledger)


def test_types_of_csv_columns(folder: Path, ledger: Ledger) -> None:
    write(folder, content(), "csv")
    (folder / "items.csv").write_bytes(
        b"\xef\xbb\xbfitem_id,kind,whole,decimal,zip,mixed,none,big\r\n"
        b'007,movie,1,1.5,02139,1,,12345678901234567890\r\nheat,movie,-2,3,10001,x,,1\r\nalien,movie,,,,"a\r\nb",,\r\n'
    )
    import_folder(folder, ledger)
    assert ledger.item("007").attributes == {
        "whole": 1, "decimal": 1.5, "zip": "02139", "mixed": "1", "big": 12345678901234567890.0,
    }  # fmt: skip
    assert ledger.item("heat").attributes["whole"] == -2
    assert ledger.item("alien").attributes == {"mixed": "a\r\nb"}


@pytest.mark.parametrize("ending", ENDINGS)
def test_tables_without_rows(folder: Path, ledger: Ledger, ending: str) -> None:
    for name, columns in (("items", "item_id kind"), ("members", "member_id"), ("events", EVENT_COLUMNS)):
        path = folder / f"{name}.{ending}"
        if ending == "jsonl":
            path.write_text("")
        else:
            frame = pl.DataFrame(schema=dict.fromkeys(columns.split(), pl.String))
            frame.write_parquet(path) if ending == "parquet" else frame.write_csv(path)
    assert import_folder(folder, ledger) == Counts(0, 0, 0)


EVENT_COLUMNS = "member_id item_id surface action timestamp"


def test_a_table_without_rows_needs_its_columns_too(folder: Path, ledger: Ledger) -> None:
    write(folder, content(), "csv")
    (folder / "events.csv").write_text("member_id,item_id,surface,action\n")
    with pytest.raises(LedgerError, match=r"^events.csv: no column 'timestamp'"):
        import_folder(folder, ledger)


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "empty csv": ("items.csv", b"", "items.csv: line 1 must name every column, each once"),
    "column twice": ("items.csv", b"item_id,kind,kind\n", "items.csv: line 1 must name every column, each once"),
    "short row": ("items.csv", b"item_id,kind\na,movie\nb\n", "items.csv: row 2: 1 cells, but the header has 2"),
    "long row": ("items.csv", b"item_id,kind\na,movie,x\n", "items.csv: row 1: 3 cells, but the header has 2"),
    "open quote": ("items.csv", b'item_id,kind\na,"movie\n', "items.csv: line 2: unexpected end of data"),
    "latin-1": ("items.csv", b"item_id,kind\n\xe9,movie\n", "items.csv: not UTF-8 text"),
    "utf-16": ("items.jsonl", '{"item_id": "a"}'.encode("utf-16"), "items.jsonl: not UTF-8 text"),
    "no json": ("items.jsonl", b'{"item_id": "a", "kind": "b"}\n{"item_id"', "items.jsonl: row 2: not JSON"),
    "blank line": ("items.jsonl", b'{"item_id": "a", "kind": "b"}\n\n{}', "items.jsonl: row 2: not JSON"),
    "blank first line": ("items.jsonl", b'\n{"item_id": "a", "kind": "b"}\n', "items.jsonl: row 1: not JSON"),
    "json list": ("items.jsonl", b"[1]\n", "items.jsonl: row 1: [1] is not an object"),
    "deep json": ("items.jsonl", b"[" * 200_000, "items.jsonl: row 1: not JSON"),
    "long number": ("items.jsonl", b'{"item_id": ' + b"1" * 9_999 + b"}", "items.jsonl: row 1: not JSON"),
    "surrogate": ("items.jsonl", b'{"item_id": "\\ud800", "kind": "b"}', "column 'item_id': '\\ud800' holds"),
    "surrogate in text": (
        "items.jsonl",
        b'{"item_id": "a", "kind": "b", "t": "\\ud800"}',
        "row 1: attribute 't', '\\ud8",
    ),
    "nan in json": ("items.jsonl", b'{"item_id": "a", "kind": "b", "t": NaN}', "row 1: attribute 't', nan,"),
    "1e999 in json": ("items.jsonl", b'{"item_id": "a", "kind": "b", "t": 1e999}', "row 1: attribute 't', inf,"),
    "no parquet": ("items.parquet", b"item_id,kind\n", "items.parquet: not a whole parquet file: "),
    "empty parquet": ("items.parquet", b"", "items.parquet: not a whole parquet file: "),
    "long text": (
        "items.jsonl",
        b'{"item_id":"a","kind":"b","t":"' + b"x" * 1_000_001 + b'"}',
        "characters of attributes",
    ),
}


@pytest.mark.parametrize(("name", "raw", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file(folder: Path, ledger: Ledger, name: str, raw: bytes, message: str) -> None:
    write(folder, content(), "csv")
    (folder / "items.csv").unlink()
    (folder / name).write_bytes(raw)
    with pytest.raises(LedgerError) as caught:
        import_folder(folder, ledger)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert ledger.counts() == Counts(0, 0, 0)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_parquet_file(folder: Path, ledger: Ledger, share: float) -> None:
    path = write(folder, content(), "parquet") / "events.parquet"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(LedgerError, match=r"^events.parquet: not a whole parquet file: "):
        import_folder(folder, ledger)
    assert ledger.counts() == Counts(0, 0, 0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(seed=st.integers(0, 10**6), changes=st.integers(1, 30))
def test_a_parquet_file_with_wrong_bytes(folder: Path, ledger: Ledger, seed: int, changes: int) -> None:
    """Whatever the bytes are: either rows that pass every check, or a LedgerError."""
    path = write(folder, content(), "parquet") / "events.parquet"
    raw, draw = bytearray(path.read_bytes()), random.Random(seed)
    for _ in range(changes):
        raw[draw.randrange(len(raw))] = draw.randrange(256)
    path.write_bytes(raw)
    before = state(ledger)
    try:
        import_folder(folder, ledger)
    except LedgerError:
        assert state(ledger) == before


def test_files_that_are_missing_or_double(folder: Path, ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"no folder at .*nowhere; a ledger folder holds items, members and events"):
        import_folder(tmp_path / "nowhere", ledger)
    write(folder, content(), "csv")
    (folder / "members.csv").rename(folder / "member.csv")
    with pytest.raises(LedgerError, match=r"one of members.parquet, members.jsonl and members.csv is needed; found no"):
        import_folder(folder, ledger)
    write(folder, content(), "jsonl")
    with pytest.raises(LedgerError, match=r"one of items.parquet, .* is needed; found items.jsonl and items.csv"):
        import_folder(folder, ledger)


def test_a_folder_of_the_past_has_a_present_of_its_own(folder: Path, ledger: Ledger, tmp_path: Path) -> None:
    assert ledger.now is None
    (folder / "ledger.yaml").write_text("now: 1998-04-22T23:10:38\nnote: 'from the past: rated by students'\n")
    import_folder(write(folder, content(), "jsonl"), ledger)
    assert ledger.now == 893_286_638
    export_folder(ledger, tmp_path / "copy")
    assert read_folder(tmp_path / "copy").now == 893_286_638
    assert read_folder(tmp_path / "copy").note == ledger.note == "from the past: rated by students"
    with pytest.raises(LedgerError, match=r"now: .* is outside the years"):
        ledger.set_now(1e15)


def test_the_clock_of_a_folder(folder: Path, ledger: Ledger) -> None:
    (folder / "ledger.yaml").write_text("clock: order\n")
    tables = content()
    for place, row in enumerate(tables["events"]):
        row["timestamp"] = 1e13 + place
    import_folder(write(folder, tables, "jsonl"), ledger)
    assert ledger.clock == "order"
    tables["events"][0]["timestamp"] = "2026-01-31"
    with pytest.raises(LedgerError, match=r"row 1, column 'timestamp': '2026-01-31' is not a number"):
        import_folder(write(folder, tables, "jsonl"), ledger)
    (folder / "ledger.yaml").unlink()
    with pytest.raises(LedgerError, match="the ledger holds events whose clock is 'order'; it cannot take"):
        import_folder(write(folder, content(), "jsonl"), ledger)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clock: noon", "ledger.yaml: clock: 'noon' is neither 'time' nor 'order'"),
        ("clocks: order", "ledger.yaml: the keys it may have are `clock`, `now` and `note`"),
        ("now: soon", "ledger.yaml: now: 'soon' is not a time; write seconds"),
        ("- clock", "ledger.yaml: the keys it may have are `clock`, `now` and `note`"),
        ("clock: [", "ledger.yaml: not YAML: "),
        ("clock: time\nclock: order", "ledger.yaml: not YAML: "),
        ("clock: 2026-13-45", "ledger.yaml: "),
        ("[" * 50_000, "ledger.yaml: not YAML: "),
        ("clock: !!python/object/apply:os.system [ls]", "ledger.yaml: not YAML: "),
    ],
)
def test_a_wrong_ledger_yaml(folder: Path, ledger: Ledger, text: str, message: str) -> None:
    (write(folder, content(), "csv") / "ledger.yaml").write_text(text)
    with pytest.raises(LedgerError) as caught:
        import_folder(folder, ledger)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "clock: time\n", "{}"])
def test_a_ledger_yaml_that_says_little(folder: Path, ledger: Ledger, text: str) -> None:
    (write(folder, content(), "csv") / "ledger.yaml").write_text(text)
    import_folder(folder, ledger)
    assert ledger.clock == "time"


def test_time_comes_before_the_shuffle(folder: Path, ledger: Ledger) -> None:
    tables = content()
    tables["events"] = [
        {**tables["events"][0], "timestamp": place // 3, "event_id": f"e{place:02}"} for place in reversed(range(30))
    ]
    import_folder(write(folder, tables, "parquet"), ledger)
    times = [event.timestamp for event in ledger.timeline("7")]
    assert times == sorted(times)
    assert len(times) == 30
