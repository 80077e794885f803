"""How large an import may be: its memory does not grow, and a timeline is as quick among a million events."""

from __future__ import annotations

import statistics
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import polars as pl
import pytest

from surfaces.ledger import folder
from surfaces.ledger.folder import export_folder, import_folder
from surfaces.ledger.records import Counts, Event
from surfaces.ledger.store import Ledger
from tests.surfaces.test_import import ITEMS, MEMBERS, ROOT, ledger, tenant, url, write_folder

__all__ = ["ledger", "tenant", "url"]  # fixtures

IMPORT_PEAK = """
    import resource
    from pathlib import Path
    from surfaces.ledger.folder import import_folder
    from surfaces.ledger.store import Ledger

    ledger = Ledger.open("{url}", "{tenant}")
    import_folder(Path("{path}"), ledger)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
READ_PEAK = """
    import resource
    from pathlib import Path
    from surfaces.ledger.folder import read_folder

    for row in read_folder(Path("{path}")).events.rows:
        pass
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_mb(program: str, **values: object) -> float:
    """The most memory that a process with this program ever had, in MB."""
    code = textwrap.dedent(program.format(**values))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return int(done.stdout) / 1024


def write_many(path: Path, count: int, ending: str, members: int = MEMBERS) -> Path:
    """Many different events, and 1,000 at least of each of the first 20 members."""
    write_folder(path, 0, "parquet", members=members)
    (path / "events.parquet").unlink()
    numbers = pl.select(n=pl.int_range(count)).lazy()
    who = pl.when(pl.col.n < 20_000).then(pl.col.n % 20).otherwise(pl.col.n.hash(1) % members)
    events = numbers.select(
        member_id=pl.format("m{}", who),
        item_id=pl.format("i{}", pl.col.n.hash(2) % ITEMS),
        surface=pl.lit("movies"),
        action=pl.lit("watch"),
        timestamp=1e9 + pl.col.n.hash(3) % 10**8,
        value=pl.col.n / 4,
    ).collect()
    {"parquet": events.write_parquet, "csv": events.write_csv, "jsonl": events.write_ndjson}[ending](
        path / f"events.{ending}"
    )
    return path


def test_memory_does_not_grow_with_the_import(tmp_path: Path, url: str) -> None:
    few, many = (write_many(tmp_path / str(count), count, "parquet") for count in (20_000, 120_000))
    small, large = (peak_mb(IMPORT_PEAK, path=path, url=url, tenant=uuid.uuid4().hex) for path in (few, many))
    assert large - small < 25, f"{small:.0f} MB for 20,000 events and {large:.0f} MB for 120,000"


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_memory_does_not_grow_with_a_file(tmp_path: Path, ending: str) -> None:
    few, many = (write_many(tmp_path / str(count), count, ending) for count in (2_000, 200_000))
    small, large = (peak_mb(READ_PEAK, path=path) for path in (few, many))
    assert large - small < 15, f"{small:.0f} MB for 2,000 events and {large:.0f} MB for 200,000"


def test_an_export_is_written_in_parts(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_folder(write_folder(tmp_path / "folder", 100), ledger)
    monkeypatch.setattr(folder, "PAGE", 7)
    assert export_folder(ledger, tmp_path / "out") == Counts(ITEMS, MEMBERS, 100)
    written = pl.read_parquet(tmp_path / "out" / "events.parquet").rows()
    assert [Event(*row) for row in written] == list(ledger.all_events())
    assert len(list((tmp_path / "out").iterdir())) == 4


@pytest.mark.slow
def test_a_million_events(ledger: Ledger, tmp_path: Path) -> None:
    """What a ledger promises of its size: 1,000,000 events come in, and a timeline is read in at most 5 ms."""
    path = write_many(tmp_path / "many", 1_000_000, "parquet", members=20_000)
    start = time.perf_counter()
    assert import_folder(path, ledger) == Counts(ITEMS, 20_000, 1_000_000)
    print(f"{1_000_000 / (time.perf_counter() - start):,.0f} events a second")
    assert len(ledger.timeline("m0")) >= 1_000
    for name, members in {"short": range(20, 220), "long": range(20)}.items():
        median = statistics.median(reading_ms(ledger, f"m{place}") for place in members)
        print(f"a {name} timeline in {median:.2f} ms")
        assert median <= 5


def reading_ms(ledger: Ledger, member_id: str) -> float:
    """How long a timeline takes: the quickest of three reads, as the machine may have other work."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        ledger.timeline(member_id)
        times.append(time.perf_counter() - start)
    return 1_000 * min(times)
