"""`prismrank import --world network`: a ledger that ranks, its ceiling, and a second import that changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serve.cli import main
from surfaces.ledger.folder import export_folder
from surfaces.ledger.store import Ledger


def test_a_simulated_world_comes_in_with_its_ceiling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'network.sqlite'}"
    arguments = ["import", "--world", "network", "--members", "120", "--seed", "3", "--ledger", url]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "120 members" in told
    assert "simulated" in told
    for word in ("feed", "jobs", "ads", "people", "ceiling"):
        assert word in told
    with Ledger.open(url) as ledger:
        counts = ledger.counts()
        kinds = {item.kind for item in ledger.all_items()}
        first = export_folder(ledger, tmp_path / "first")
        assert ledger.note.startswith("simulated")
        assert ledger.now is not None
        assert ledger.now > max(event.timestamp for event in ledger.all_events())
    assert kinds == {"company", "job", "post", "ad", "person"}
    assert first == counts
    assert main(["evaluate", "jobs", "--ledger", url, "--model", "none", "--json", str(tmp_path / "told.json")]) == 0
    assert "simulated" in capsys.readouterr().out
    assert json.loads((tmp_path / "told.json").read_text())["note"].startswith("simulated")
    assert main(arguments) == 0
    assert "0 new events" in capsys.readouterr().out
    with Ledger.open(url) as ledger:
        assert ledger.counts() == counts


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--members", "5"], "'--members'"),
        (["--members", "2000000"], "'--members'"),
        (["--seed", "-1"], "'--seed'"),
        (["--dataset", "movielens-100k"], "one of a folder, --dataset NAME and --world NAME"),
    ],
)
def test_what_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], problem: str) -> None:
    url = f"sqlite:///{tmp_path / 'network.sqlite'}"
    assert main(["import", "--world", "network", "--ledger", url, *more]) == 2
    assert problem in capsys.readouterr().err
