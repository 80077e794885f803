"""`prismrank bench attacks` over a real ledger: a table, a file of figures, and one line for what it cannot do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foundation.engine.torch import TorchEngine
from serve.cli import main
from surfaces.ledger.store import Ledger
from tests.surfaces.world import fill

MINE = "discounts: {learn: [Half the price.], held: [Cheaper than ever.]}\nwishes: {held: ['Show me {item}.']}\n"


@pytest.fixture(scope="module")
def arguments(tiny_engine: TorchEngine, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command over a small ledger and a tiny model, with payloads of one's own."""
    folder = tmp_path_factory.mktemp("attacks")
    tiny_engine.ranker.save(folder / "tiny", tiny_engine.encoder)
    with Ledger.open(f"sqlite:///{folder}/ledger.sqlite") as ledger:
        fill(ledger, members=12)
    (folder / "mine.yaml").write_text(MINE, encoding="utf-8")
    return [
        "bench", "attacks", "--ledger", f"sqlite:///{folder}/ledger.sqlite", "--model", str(folder / "tiny"),
        "--payloads", str(folder / "mine.yaml"), "--members", "3", "--candidates", "8",
    ]  # fmt: skip


def test_it_tells_how_far_words_move_items(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main([*arguments, "--json", str(tmp_path / "found.json")]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("movies: places up in lists of 8", "discounts", "wishes", "Strongest:"))
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert (found["members"], found["candidates"], found["payloads"]) == (3, 8, 3)
    assert list(found["surfaces"]) == ["movies"]
    assert "no member has 2 events with items of kind 'job'" in found["skipped"]["jobs"]
    parts = found["surfaces"]["movies"]
    assert set(parts) == {"items", "items_without_evidence", "member", "strongest"}
    assert set(parts["items"]["rows"]) == {"all", "learned", "held", "discounts", "discounts/learn", "discounts/held"}


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--surface", "jobs"], "no member has 2 events with items of kind 'job'"),
        (["--surface", "moovies"], "no surface is called 'moovies'"),
        (["--payloads", "none.yaml"], "none.yaml: there is no such file of payloads"),
        (["--json", "no/such/out.json"], "there is no folder"),
    ],
)
def test_what_it_cannot_do_it_says_in_a_line(
    arguments: list[str], more: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, *more]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert problem in error
