"""What the command line shows of an import."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from serve.commands.importing import import_bar
from surfaces.ledger import tables
from surfaces.ledger.folder import import_folder
from surfaces.ledger.store import Ledger
from surfaces.ledger.tables import RowProgress
from tests.surfaces.test_import import write_folder


def test_the_bar_names_steps_and_counts_rows() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with import_bar(console, "opening the ledger") as bar:
        assert isinstance(bar, RowProgress)
        shown = [render(bar._bar)]
        bar("checking")
        bar.rows(50_000, 1_000_000)
        shown.append(render(bar._bar))
        bar.rows(60_000, None)
        shown.append(render(bar._bar))
        bar("writing")
        shown.append(render(bar._bar))
    assert "opening the ledger …" in shown[0]
    assert "checking …" in shown[1]
    assert "50,000 of 1,000,000 rows" in shown[1]
    assert "60,000 rows" in shown[2]
    assert "writing …" in shown[3]
    assert "rows" not in shown[3]


def render(bar: object) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(bar)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_nothing_is_drawn_where_nobody_watches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CHUNK_ROWS", 10)
    console = Console(file=io.StringIO())
    with import_bar(console, "opening the ledger") as bar, Ledger.open(f"sqlite:///{tmp_path}/l.sqlite") as ledger:
        assert import_folder(write_folder(tmp_path / "folder", 30), ledger, bar).events == 30
    assert not str(console.file.getvalue()).strip()  # type: ignore[attr-defined]
