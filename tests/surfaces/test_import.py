"""An import streams: it may be cut off and goes on, it is seen whole or not at all, and its memory does not grow."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import func, select

from prompts.errors import LedgerError
from surfaces.ledger import connection, staging, tables
from surfaces.ledger.folder import import_folder
from surfaces.ledger.identity import identified
from surfaces.ledger.records import Counts, Event, Item, Member
from surfaces.ledger.schema import imports
from surfaces.ledger.store import Ledger
from surfaces.ledger.tables import Table, Tables, import_tables
from tests.databases import BACKENDS, POSTGRES

ROOT = Path(__file__).parents[2]
MEMBERS, ITEMS = 40, 25
Rows = list[dict[str, object]]


class Watcher:
    """Notes what an import tells of itself."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.counts: list[tuple[int, int | None]] = []

    def __call__(self, step: str, /) -> None:
        self.steps.append(step)

    def rows(self, done: int, total: int | None) -> None:
        self.counts.append((done, total))


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(POSTGRES) if request.param == "postgres" else f"sqlite:///{tmp_path}/ledger.sqlite"


@pytest.fixture
def tenant() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def ledger(url: str, tenant: str) -> Iterator[Ledger]:
    with Ledger.open(url, tenant) as opened:
        yield opened


@pytest.fixture
def undisturbed(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger for the same import without an accident."""
    with Ledger.open(f"sqlite:///{tmp_path}/undisturbed.sqlite") as opened:
        yield opened


def write_folder(path: Path, count: int, ending: str = "jsonl", seed: int = 0, members: int = MEMBERS) -> Path:
    """A folder with so many events: ties and repeats among them, and some that have an id."""
    draw = random.Random(seed)
    path.mkdir(exist_ok=True)
    write_rows(path / "members.jsonl", [{"member_id": f"m{place}", "age": place} for place in range(members)])
    write_rows(path / "items.jsonl", [{"item_id": f"i{place}", "kind": "movie"} for place in range(ITEMS)])
    write_rows(path / f"events.{ending}", [happened(draw, place) for place in range(count)])
    return path


def happened(draw: random.Random, place: int) -> dict[str, object]:
    return {
        "member_id": f"m{draw.randrange(MEMBERS)}",
        "item_id": f"i{draw.randrange(ITEMS)}",
        "surface": "movies",
        "action": "watch",
        "timestamp": float(draw.randrange(20)),
        "value": draw.choice([None, 0.5, 3.0]),
        "event_id": f"e{place}" if draw.random() < 0.1 else None,
    }


def write_rows(path: Path, rows: Rows) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        frame = pl.DataFrame(rows, infer_schema_length=None)
        frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)


def state(ledger: Ledger) -> tuple[object, ...]:
    return ledger.all_items(), ledger.all_members(), list(ledger.all_events()), ledger.clock


def staged(ledger: Ledger) -> int:
    """How many rows of imports lie in the ledger's database."""
    places = (*staging.STAGED.values(), imports)
    queries = [select(func.count()).select_from(table).where(table.c.tenant == ledger.tenant) for table in places]
    with connection.reading(ledger.engine) as opened:
        return sum(opened.execute(query).scalar_one() for query in queries)


# What comes in


def event_tables(rows: Rows) -> Tables:
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    people = Table("members", ("member_id",), [{"member_id": name} for name in {row["member_id"] for row in rows}])
    things = [{"item_id": name, "kind": "movie"} for name in {row["item_id"] for row in rows}]
    return Tables(Table("items", ("item_id", "kind"), things), people, Table("events", columns, rows))


def test_events_of_one_time_are_in_an_order_that_is_a_hash_of_their_ids(ledger: Ledger, undisturbed: Ledger) -> None:
    rows: Rows = [
        {"member_id": "ann", "item_id": f"{place:03}", "surface": "movies", "action": "watch", "timestamp": 5.0}
        for place in range(200)
    ]
    import_tables(event_tables(rows), ledger)
    import_tables(event_tables(rows[::-1]), undisturbed)
    drawn = ledger.timeline("ann")
    assert drawn == undisturbed.timeline("ann"), "whatever the order of rows"
    assert drawn == sorted(
        drawn, key=lambda event: hashlib.blake2b(f"0:{event.event_id}".encode(), digest_size=8).digest()
    )
    places = [int(event.item_id) for event in drawn]
    assert places != sorted(places)
    first_half = sum(place < 100 for place in places[:100])
    assert 35 <= first_half <= 65, "ids say nothing of the order"


@pytest.mark.parametrize("page", [1, 3, 1_000])
def test_ids_are_those_of_the_ledger_itself(ledger: Ledger, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeats are counted over all chunks; 0.0 and -0.0 are one content, and their hashes are two."""
    monkeypatch.setattr(staging, "PAGE", page)
    monkeypatch.setattr(tables, "CHUNK_ROWS", 4)
    draw = random.Random(3)
    events = [
        Event("ann", draw.choice("ab"), "s", "a", draw.choice([0.0, -0.0]), draw.choice([None, 0.0, -0.0, 1.0]),
              draw.choice([None, 0]), None, f"own {place}" if draw.random() < 0.1 else None)
        for place in range(150)
    ]  # fmt: skip
    rows: Rows = [event._asdict() for event in events]
    assert import_tables(event_tables(rows), ledger).events == len(events)
    expected = identified(events)
    assert {str(event.event_id): event for event in ledger.all_events()} == expected
    assert ledger.add_events(events) == 0, "they are there already"


def test_events_that_are_there_are_left_out_and_the_rest_comes(ledger: Ledger, tmp_path: Path) -> None:
    import_folder(write_folder(tmp_path / "few", 50), ledger)
    path = write_folder(tmp_path / "more", 80)
    few, more = ((tmp_path / name / "events.jsonl").read_text() for name in ("few", "more"))
    assert more.startswith(few)
    assert import_folder(path, ledger) == Counts(ITEMS, MEMBERS, 30)
    before = state(ledger)
    assert import_folder(path, ledger) == Counts(ITEMS, MEMBERS, 0)
    assert state(ledger) == before
    assert staged(ledger) == 0


def test_chunks_end_where_their_text_is_long(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CHUNK_TEXT", 2_000)
    path = write_folder(tmp_path / "folder", 5)
    write_rows(path / "items.jsonl", [{"item_id": f"i{n}", "kind": "movie", "text": "x" * 900} for n in range(ITEMS)])
    watcher = Watcher()
    assert import_folder(path, ledger, watcher) == Counts(ITEMS, MEMBERS, 5)
    steps = [later - sooner for (sooner, _), (later, _) in zip(watcher.counts, watcher.counts[1:], strict=False)]
    assert max(steps[: ITEMS // 3]) == 3


# What is told on the way


def test_rows_are_counted(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CHUNK_ROWS", 30)
    watcher = Watcher()
    import_folder(write_folder(tmp_path / "folder", 95), ledger, watcher)
    total = MEMBERS + ITEMS + 95
    assert watcher.steps == ["reading", "checking", "writing"]
    assert watcher.counts[0] == (0, total)
    assert watcher.counts[-1] == (total, total)
    assert {done for done, _ in watcher.counts} == {0, 25, 55, 65, 95, 125, 155, 160}


def test_rows_that_nobody_has_counted(ledger: Ledger) -> None:
    class Endless:
        """Rows that can be read again, and do not know how many they are."""

        def __iter__(self) -> Iterator[dict[str, object]]:
            return ({"member_id": f"m{place}"} for place in range(12))

    watcher, given = Watcher(), event_tables([])
    import_tables(Tables(given.items, Table("members", ("member_id",), Endless()), given.events), ledger, watcher)
    assert watcher.counts[-1] == (12, None)
    assert ledger.counts() == Counts(0, 12, 0)


# What goes wrong


Fault = Callable[[Path], None]


def last_row(name: str, **cells: object) -> Fault:
    def change(path: Path) -> None:
        rows = [json.loads(line) for line in (path / f"{name}.jsonl").read_text().splitlines()]
        write_rows(path / f"{name}.jsonl", [*rows[:-1], {**rows[-1], **cells}])

    return change


def same_id(path: Path) -> None:
    rows = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    for place in (4, -1):
        rows[place]["event_id"] = "same"
    write_rows(path / "events.jsonl", rows)


def positions(path: Path) -> None:
    (path / "ledger.yaml").write_text("clock: order\n")


FAULTS: dict[str, tuple[Fault, str]] = {
    "time": (last_row("events", timestamp="noon"), "events.jsonl: row 120, column 'timestamp': 'noon' is not a time"),
    "id": (same_id, "events.jsonl: rows 5 and 120 have the same event_id 'same'"),
    "member": (last_row("events", member_id="x"), "row 120, column 'member_id': unknown member 'x'; it must be in"),
    "item": (last_row("events", item_id="x"), "events.jsonl: row 120, column 'item_id': unknown item 'x'"),
    "person": (last_row("items", member_id="x"), "items.jsonl: row 25, column 'member_id': unknown member 'x'"),
    "twice": (last_row("members", member_id="m3"), "members.jsonl: rows 4 and 40 have the same member_id 'm3'"),
    "clock": (positions, "events whose clock is 'time'; it cannot take the clock 'order'"),
}


@pytest.mark.parametrize(("fault", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_an_error_in_the_last_row_leaves_the_ledger_as_it_was(
    ledger: Ledger, tmp_path: Path, fault: Fault, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "CHUNK_ROWS", 10)
    old = [Event("old", "i1", "movies", "watch", 1.0)]
    ledger.write(members=[Member("old", {})], items=[Item("i1", "film", {"title": "as it was"})], events=old)
    before = state(ledger)
    path = write_folder(tmp_path / "folder", 120)
    fault(path)
    with pytest.raises(LedgerError) as caught:
        import_folder(path, ledger)
    assert message in str(caught.value)
    assert state(ledger) == before
    assert staged(ledger) == 0
    (path / "ledger.yaml").unlink(missing_ok=True)
    assert import_folder(write_folder(path, 120), ledger) == Counts(ITEMS, MEMBERS, 120)


def test_of_two_imports_the_later_one_wins(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CHUNK_ROWS", 10)
    path, other = write_folder(tmp_path / "folder", 50), write_folder(tmp_path / "other", 20, seed=9)

    class Between(Watcher):
        def rows(self, done: int, total: int | None) -> None:
            if done == ITEMS + MEMBERS + 20:
                import_folder(other, ledger)

    with pytest.raises(LedgerError, match="another import into this ledger began meanwhile"):
        import_folder(path, ledger, Between())
    assert ledger.counts() == Counts(ITEMS, MEMBERS, 20)
    assert import_folder(path, ledger).events > 0


def test_a_file_that_changes_while_it_is_read(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CHUNK_ROWS", 10)
    path = write_folder(tmp_path / "folder", 50)

    class Meddler(Watcher):
        def rows(self, done: int, total: int | None) -> None:
            if done == ITEMS + MEMBERS + 20:
                with (path / "events.jsonl").open("a") as file:
                    file.write("{}\n")

    with pytest.raises(LedgerError, match=r"^events.jsonl: (row 51: no member_id|the file changed while it was read)"):
        import_folder(path, ledger, Meddler())
    assert ledger.counts() == Counts(0, 0, 0)
    assert staged(ledger) == 0


def test_a_database_that_fails_keeps_what_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CHUNK_ROWS", 10)
    path = write_folder(tmp_path / "folder", 50)
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite") as ledger:

        class Saboteur(Watcher):
            def __call__(self, step: str, /) -> None:
                if step == "writing":
                    with connection.writing(ledger.engine) as opened:
                        opened.exec_driver_sql("ALTER TABLE prismrank_events RENAME TO elsewhere")

        with pytest.raises(LedgerError, match="no such table"):
            import_folder(path, ledger, Saboteur())
        with connection.writing(ledger.engine) as opened:
            opened.exec_driver_sql("ALTER TABLE elsewhere RENAME TO prismrank_events")
        watcher = Watcher()
        assert import_folder(path, ledger, watcher) == Counts(ITEMS, MEMBERS, 50)
        assert [done for done, _ in watcher.counts] == [ITEMS, ITEMS + MEMBERS, ITEMS + MEMBERS + 50]


# What is cut off


PROGRAM = """
    import os, signal
    from pathlib import Path
    from sqlalchemy import event
    from surfaces.ledger import tables
    from surfaces.ledger.folder import import_folder
    from surfaces.ledger.store import Ledger

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    class Dies:
        def __call__(self, step):
            if step == "writing":
                event.listen(ledger.engine, "commit", die)

        def rows(self, done, total):
            done < {at} or die()

    tables.CHUNK_ROWS = 50
    ledger = Ledger.open("{url}", "{tenant}")
    import_folder(Path("{path}"), ledger, Dies())
"""


def killed_import(path: Path, ledger: Ledger, url: str, at: int) -> None:
    """An import in a process that is killed when so many rows have come, or, at the latest, before its last commit."""
    program = PROGRAM.format(path=path, url=url, tenant=ledger.tenant, at=at)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize(("ending", "at"), [("jsonl", 50), ("csv", 300), ("parquet", 500), ("parquet", 10_000)])
def test_a_killed_import_goes_on_where_it_was(
    ledger: Ledger, undisturbed: Ledger, url: str, tmp_path: Path, ending: str, at: int
) -> None:
    path = write_folder(tmp_path / "folder", 600, ending)
    killed_import(path, ledger, url, at)
    assert ledger.counts() == Counts(0, 0, 0), "nothing is seen before all is there"
    came, total = staged(ledger) - 1, ITEMS + MEMBERS + 600
    assert came >= min(at, total)
    watcher = Watcher()
    assert import_folder(path, ledger, watcher) == import_folder(path, undisturbed) == Counts(ITEMS, MEMBERS, 600)
    told = dict.fromkeys(done for done, _ in watcher.counts)
    assert list(told) == sorted({ITEMS, ITEMS + MEMBERS, came, total}), "nothing came a second time"
    assert state(ledger) == state(undisturbed)
    assert staged(ledger) == 0


def test_a_killed_import_of_another_folder_is_forgotten(
    ledger: Ledger, undisturbed: Ledger, url: str, tmp_path: Path
) -> None:
    path = write_folder(tmp_path / "folder", 600)
    killed_import(path, ledger, url, 300)
    assert staged(ledger) > 300
    watcher = Watcher()
    import_folder(write_folder(path, 600, seed=1), ledger, watcher)
    import_folder(path, undisturbed)
    assert watcher.counts[0] == (0, ITEMS + MEMBERS + 600)
    assert state(ledger) == state(undisturbed)


def test_another_clock_is_another_import(ledger: Ledger, url: str, tmp_path: Path) -> None:
    path = write_folder(tmp_path / "folder", 600)
    killed_import(path, ledger, url, 300)
    positions(path)
    watcher = Watcher()
    import_folder(path, ledger, watcher)
    assert watcher.counts[0][0] == 0
    assert ledger.clock == "order"


def test_tables_in_memory_begin_anew(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CHUNK_ROWS", 10)
    rows = [happened(random.Random(place), place) for place in range(50)]

    class Interrupted(Watcher):
        def rows(self, done: int, total: int | None) -> None:
            if total and done == total - 20:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_tables(event_tables(rows), ledger, Interrupted())
    watcher = Watcher()
    import_tables(event_tables(rows), ledger, watcher)
    assert watcher.counts[0][0] == 0
    assert ledger.counts().events == 50
    assert staged(ledger) == 0
