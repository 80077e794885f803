"""What a ledger in a file does: how it is opened, and what happens when things go wrong."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from prompts.errors import LedgerError
from surfaces.ledger.identity import identified
from surfaces.ledger.records import Counts, Event, Item, Member
from surfaces.ledger.store import Ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{path}") as opened:
        opened.write(
            members=[Member("ann", {})],
            items=[Item("heat", "movie", {"title": "Heat"})],
            events=[Event("ann", "heat", "movies", "watch", 1.0)],
        )
        yield opened


def test_what_was_written_is_there_after_reopening(ledger: Ledger, path: Path) -> None:
    ledger.close()
    with Ledger.open(f"sqlite:///{path}", create=False) as again:
        assert again.counts() == Counts(1, 1, 1)
        assert again.item("heat") == Item("heat", "movie", {"title": "Heat"})


def test_the_file_is_kept_safe(ledger: Ledger, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_the_database_itself_refuses_loose_ends(ledger: Ledger) -> None:
    """The checks before a write are for good messages; foreign keys are there all the same."""
    with ledger._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_two_ledgers_on_one_file(ledger: Ledger, path: Path) -> None:
    with Ledger.open(f"sqlite:///{path}") as other:
        other.add_events([Event("ann", "heat", "movies", "like", 2.0)])
        assert [event.action for event in ledger.timeline("ann")] == ["watch", "like"]


def test_every_row_has_its_tenant(ledger: Ledger, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        for table in ("items", "members", "events"):
            assert connection.execute(f"SELECT DISTINCT tenant FROM prismrank_{table}").fetchall() == [("default",)]
    connection.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ledger.sqlite", "not the URL of a ledger: 'ledger.sqlite'; sqlite:///ledger.sqlite or postgresql://"),
        ("", "not the URL of a ledger"),
        ("mysql://me:secret@host/db", "a ledger cannot live in mysql; sqlite:///ledger.sqlite or postgresql://"),
        ("sqlite://", "a ledger in memory would be lost; name a file"),
        ("sqlite:///:memory:", "a ledger in memory would be lost; name a file"),
        ("sqlite:////no/such/folder/ledger.sqlite", "no folder /no/such/folder to hold the ledger ledger.sqlite"),
    ],
)
def test_a_wrong_url(url: str, message: str) -> None:
    with pytest.raises(LedgerError) as caught:
        Ledger.open(url)
    assert message in str(caught.value)


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(LedgerError) as caught:
        Ledger.open("postgresql://me:secret@127.0.0.1:9/db?connect_timeout=2")
    assert str(caught.value).startswith("cannot open postgresql+psycopg://me:***@127.0.0.1:9/db")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_file_is_not_made_when_it_should_be_there(path: Path) -> None:
    with pytest.raises(LedgerError, match=r"no ledger at .*ledger\.sqlite; `prismrank import` makes one"):
        Ledger.open(f"sqlite:///{path}", create=False)
    assert not path.exists()


@pytest.mark.parametrize("content", [b"id,title\n1,Heat\n" * 100, b"SQLite format 3\x00" + bytes(2_000)])
def test_a_file_that_is_no_ledger(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"cannot open sqlite:///.*ledger\.sqlite"):
        Ledger.open(f"sqlite:///{path}")
    assert path.read_bytes() == content


def test_a_folder_is_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot open sqlite:///"):
        Ledger.open(f"sqlite:///{tmp_path}")


@pytest.mark.parametrize("tenant", ["", "x" * 300, "a\nb", "\ud800"])
def test_a_tenant_needs_a_name(path: Path, tenant: str) -> None:
    with pytest.raises(LedgerError, match="tenant: "):
        Ledger.open(f"sqlite:///{path}", tenant)


def test_a_locked_ledger_says_so(ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.close()
    monkeypatch.setattr("surfaces.ledger.connection.BUSY_MS", 50)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match=r"^the ledger cannot be written: database is locked$"):
        ledger.put_members([Member("bob", {})])
    assert ledger.member_ids() == ["ann"], "reading goes on"
    other.execute("ROLLBACK")
    other.close()
    assert ledger.put_members([Member("bob", {})]) == 1


def test_errors_do_not_show_what_was_to_be_written(ledger: Ledger) -> None:
    with ledger._engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE prismrank_events")
    with pytest.raises(LedgerError) as caught:
        ledger.add_events([Event("ann", "heat", "movies", "a private matter", 3.0)])
    assert "no such table" in str(caught.value)
    assert "private" not in str(caught.value) + str(caught.value.__cause__)
    with pytest.raises(LedgerError, match="cannot be read: no such table"):
        ledger.visitor("ann")


def test_a_process_that_dies_in_the_middle_of_a_write(ledger: Ledger, path: Path) -> None:
    before = (ledger.counts(), list(ledger.all_events()))
    program = f"""
        import os
        from sqlalchemy import event
        from surfaces.ledger.records import Event, Item
        from surfaces.ledger.store import Ledger

        ledger = Ledger.open("sqlite:///{path}")
        event.listen(ledger._engine, "commit", lambda connection: os._exit(9))
        events = (Event("ann", "new", "movies", "watch", float(n)) for n in range(20_000))
        ledger.write(items=[Item("new", "movie", {{}})], events=events)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 9
    assert (ledger.counts(), list(ledger.all_events())) == before
    assert ledger.add_events([Event("ann", "heat", "movies", "watch", 2.0)]) == 1


def test_content_ids_do_not_change() -> None:
    """Ids are in ledgers that exist: another hash would bring every event a second time."""
    event = Event("ann", "heat", "movies", "watch", 1.0, value=4.0)
    assert list(identified([event, event])) == [
        "2e2c5a5b3c4cfeb7c4576621cfd9ccf0",
        "8bf7cfd1b4dd152fff48492e895aee49",
    ]
