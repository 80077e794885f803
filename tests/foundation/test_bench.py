"""The benchmarks run, and compare ways that answer the same. Speed is theirs to print, and no test's to judge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foundation.bench import score, train
from foundation.engine.torch import TorchEngine
from foundation.model import build
from tests.conftest import tiny_config


@pytest.fixture
def folder(tmp_path: Path, tiny_engine: TorchEngine) -> Path:
    tiny_engine.ranker.save(tmp_path / "tiny", tiny_engine.encoder)
    return tmp_path / "tiny"


def test_score_reports_every_way(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score.run(tmp_path / "out.json", folder, rounds=1, workload=score.Workload(40, 10, 5))
    report = json.loads((tmp_path / "out.json").read_text())
    assert set(report) == {"rows", "gemm_share", "machine"}
    assert report["rows"]["naive"]["ratio_to_naive"] == 1.0
    for row in report["rows"].values():
        assert set(row) == {"candidates_per_s", "ratio_to_naive", "max_abs_diff"}
        assert row["max_abs_diff"] <= 1e-5
    assert 0 < report["gemm_share"] <= 1.5
    assert "token count allows" in capsys.readouterr().out


def test_the_bound_is_the_ratio_of_tokens() -> None:
    assert score.Workload(400, 100, 24).bound == pytest.approx(42_400 / 2_800)


def test_train_compares_the_same_gradient(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_engine: TorchEngine
) -> None:
    small = [train.Shape(str(v), trunk=8, positions=2, stem=3, leaves=4, leaf=2, vectors=v) for v in (True, False)]
    monkeypatch.setattr(train, "SHAPES", small)
    train.run(tmp_path / "out.json", folder, rounds=1)
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["leaves_per_s_ratio"] == min(row["ratio"] for row in report["rows"].values())
    assert all(row["gradient_difference"] <= 1e-4 for row in report["rows"].values())
    plain = build(tiny_config(vocab_size=len(tiny_engine.encoder.tokenizer), compressor=False))
    plain.save(tmp_path / "plain", tiny_engine.encoder)
    train.run(tmp_path / "out.json", tmp_path / "plain", rounds=1)
    assert set(json.loads((tmp_path / "out.json").read_text())["rows"]) == {"False"}
