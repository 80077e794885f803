"""What one tenant finds of another's: nothing. Times are for the bench, counts for the test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foundation.bench.tenants import area, measure
from foundation.engine.torch import TorchEngine
from serve.cli import main


def test_another_tenant_finds_nothing_and_the_same_one_all(tiny_engine: TorchEngine) -> None:
    rows = measure(tiny_engine, 3)
    assert len(rows) == 4
    for name, row in rows.items():
        assert (row.found_slots > 3 * 60) == name.startswith("the same"), name
        assert (row.found_slots == 0) == name.startswith("another"), name
        assert 0 <= row.area <= 1


def test_the_area_under_the_curve() -> None:
    assert area([2.0, 3.0], [0.0, 1.0]) == 1.0
    assert area([0.0], [1.0]) == 0.0
    assert area([1.0, 1.0], [1.0, 1.0]) == 0.5


def test_the_command_prints_a_table(
    tiny_engine: TorchEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_engine.ranker.save(tmp_path / "tiny", tiny_engine.encoder)
    told = tmp_path / "told.json"
    assert main(["bench", "tenants", "--model", str(tmp_path / "tiny"), "--pairs", "10", "--json", str(told)]) == 0
    assert "area under the curve" in capsys.readouterr().out
    assert set(json.loads(told.read_text())) == {"rows", "machine"}
