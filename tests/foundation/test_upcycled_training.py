"""A mixture made of a dense checkpoint learns like any other: copies drift apart, no expert falls out of use."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig

from foundation.model import load
from foundation.tokenizer import TextEncoder
from foundation.training.trainer import StepReport, Trainer, Watcher
from foundation.upcycle import Split, upcycle
from tests.foundation.llamas import SMALL, dense_folder
from tests.foundation.runs import Copying
from tests.foundation.test_training import settings


def trained(folder: Path, encoder: TextEncoder, balance: float, steps: int) -> tuple[Trainer, list[StepReport]]:
    source = dense_folder(folder / "dense", LlamaConfig(**SMALL, tie_word_embeddings=True), encoder)
    upcycle(source, folder / "mixture", Split(8, 4), lambda _: None)
    ranker, own = load(folder / "mixture")
    run = Trainer(
        ranker,
        own,
        settings(steps, loss={"balance": balance}, checkpoint_every=100, validate_every=100),
        folder / "run",
    )
    reports: list[StepReport] = []
    run.fit(Copying(), Watcher(reports.append, lambda *_: None, lambda _: 0.0))
    return run, reports


def test_copies_drift_apart_and_experts_stay_in_use(tmp_path: Path, tiny_encoder: TextEncoder) -> None:
    run, reports = trained(tmp_path, tiny_encoder, balance=0.05, steps=60)
    for layer in run.ranker.lm.base_model.layers:
        gate_up = layer.mlp.experts.gate_up_proj
        assert not torch.equal(gate_up[:4], gate_up[4:]), "each copy learned from its own slots"
        rows = layer.mlp.gate.weight.unflatten(0, (2, 4))
        assert all(not torch.equal(rows[:, 0], rows[:, shard]) for shard in (1, 2, 3)), "shards go their own ways"
    late = torch.stack([report.load_ME for report in reports[-20:]]).sum(dim=0)
    share_ME = late / late.sum(dim=1, keepdim=True)
    assert share_ME.min() > 0.03, "an eighth would be all alike"
    accuracy = [float(report.losses.accuracy) for report in reports]
    assert sum(accuracy[-10:]) / 10 > sum(accuracy[:10]) / 10 + 0.1


def test_without_the_balance_some_expert_does_most(tmp_path: Path, tiny_encoder: TextEncoder) -> None:
    def evenness(balance: float) -> float:
        _, reports = trained(tmp_path / str(balance), tiny_encoder, balance, steps=25)
        share_ME = reports[-1].load_ME / reports[-1].load_ME.sum(dim=1, keepdim=True)
        return float(-(share_ME * share_ME.clamp(min=1e-9).log()).sum(dim=1).mean())

    assert evenness(0.1) > evenness(0.0)
