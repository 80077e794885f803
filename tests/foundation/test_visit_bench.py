"""One member's visit to four surfaces reads the timeline once: counted exactly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foundation.bench import visit
from foundation.bench.visit import WORKLOAD, computed, measure, rankings
from foundation.engine.torch import TorchEngine
from serve.cli import main


def test_the_trunk_is_computed_once_for_four_surfaces(tiny_engine: TorchEngine) -> None:
    rows = measure(tiny_engine, rounds=1)
    one, four = rows.values()
    leaves = 4 * WORKLOAD.few * WORKLOAD.candidate
    assert (one.trunk_tokens, four.trunk_tokens) == (400, 1_600)
    assert (one.all_tokens, four.all_tokens) == (400 + 4 * 30 + leaves, 1_600 + 4 * 30 + leaves)
    assert four.all_tokens >= 1.4 * one.all_tokens


def test_it_is_the_same_in_one_forward(tiny_engine: TorchEngine) -> None:
    for members in (1, 4):
        trees = rankings(len(tiny_engine.encoder.tokenizer), members)
        tiny_engine.forget()
        before = tiny_engine.cache_stats.missed_slots
        tiny_engine.score(trees)
        assert tiny_engine.cache_stats.missed_slots - before == members * 400 + 4 * 30


def test_a_second_visit_computes_no_trunk(tiny_engine: TorchEngine) -> None:
    trees = rankings(len(tiny_engine.encoder.tokenizer), 1)
    assert computed(tiny_engine, trees)[0] == 400
    before = tiny_engine.cache_stats.missed_slots
    tiny_engine.score(trees)
    assert tiny_engine.cache_stats.missed_slots == before


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "visit.json"
    assert main(["bench", "visit", "--rounds", "1", "--threads", "1", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["trunk_tokens"] for row in rows.values()] == [400, 1_600]
    told = capsys.readouterr().out
    assert "4.00x" in told
    assert visit.WORKLOAD.context == 400
