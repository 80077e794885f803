"""The benchmarks run, and compare ways that answer the same. Speed is theirs to print, and no test's to judge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from foundation.bench import score, train
from foundation.bench.products import flops, products
from foundation.bench.workload import Workload, prompt_tokens
from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.pack import pack
from foundation.engine.torch import TorchEngine
from foundation.model import build
from tests.conftest import tiny_config


@pytest.fixture
def folder(tmp_path: Path, tiny_engine: TorchEngine) -> Path:
    tiny_engine.ranker.save(tmp_path / "tiny", tiny_engine.encoder)
    return tmp_path / "tiny"


def test_score_reports_every_way(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score.run(tmp_path / "out.json", folder, rounds=1, workload=Workload(40, 10, 5, stem=4, few=3, event=6))
    report = json.loads((tmp_path / "out.json").read_text())
    assert set(report) >= {"rows", "gemm_share", "machine"}
    assert set(report["rows"]) >= {"naive", "expanded", "tree", "tree_cached", "second_surface", "next_visit"}
    assert report["rows"]["naive"]["ratio_to_naive"] == pytest.approx(1.0)
    for row in report["rows"].values():
        assert set(row) == {"candidates_per_s", "ratio_to_naive", "max_abs_diff"}
        assert row["max_abs_diff"] <= 1e-5
    assert 0 < report["gemm_share_computed"] < report["gemm_share"] <= 1.5
    assert all(ratio > 0 for ratio in report["ratios"].values())
    assert "token count allows" in capsys.readouterr().out


def test_the_bound_is_the_ratio_of_tokens() -> None:
    assert Workload(400, 100, 24).bound == pytest.approx(42_400 / 2_800)
    assert prompt_tokens(Workload(400, 100, 24).tree(300)) == 42_400
    assert prompt_tokens(Workload(400, few=20, stem=30).surface(300, 1, grown=True)) == 20 * (420 + 30 + 24)


def test_products_count_what_the_modules_multiply(tiny_engine: TorchEngine) -> None:
    ranker, slots = tiny_engine.ranker, 12
    counted = 0

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], _: object) -> None:
        nonlocal counted
        if isinstance(module, torch.nn.Linear):
            counted += 2 * inputs[0].numel() * module.out_features

    hooks = [module.register_forward_hook(count) for module in ranker.lm.base_model.modules()]
    ranker(pack([TokenTree((TokenNode(tuple(range(10, 10 + slots)), answers=(3, 4)),))]))
    for hook in hooks:
        hook.remove()
    experts = ranker.lm.base_model.layers[0].mlp.experts
    routed = 2 * slots * 2 * (experts.gate_up_proj[0].numel() + experts.down_proj[0].numel()) * 2
    assert flops(products(ranker, slots)) == counted + routed
    assert flops(products(ranker, slots, 1)) < flops(products(ranker, slots))


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
