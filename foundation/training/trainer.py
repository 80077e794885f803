"""Training on labelled trees: many leaves a trunk, answers only.

A step packs its trees into one forward, as serving does, and learns from every leaf at once; the trunk is computed once
for all of them. Runs resume from their last checkpoint and keep the best by validation.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from foundation.engine.pack import pack
from foundation.model import Ranker
from foundation.tokenizer import TextEncoder
from foundation.training import checkpoint
from foundation.training.labels import LabelledTree, Losses, contrast_loss, losses
from foundation.training.settings import LossWeights, TrainSettings
from prompts.errors import TrainingError

Batch = Sequence[LabelledTree]
SUMMED = ("listwise", "pointwise", "choice", "contrast")


class Data(Protocol):
    """Where a run's trees come from."""

    def batch(self, step: int) -> Batch:
        """The trees of a step; the same step gives the same trees."""
        ...


class StepReport(NamedTuple):
    """One step: losses in nats, leaves scored, seconds."""

    step: int
    losses: Losses
    leaves: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Watcher:
    """What a run tells while it goes on, and what it asks."""

    on_step: Callable[[StepReport], None]
    on_validation: Callable[[int, float], None]
    validate: Callable[[Ranker], float]


class Trainer:
    """One run in one folder: `last/` to resume from, `best/` by validation."""

    def __init__(self, ranker: Ranker, encoder: TextEncoder, settings: TrainSettings, folder: Path) -> None:
        self.ranker, self.encoder, self.settings, self.folder = ranker, encoder, settings, folder
        self.optimizer = _optimizer(ranker, settings)
        self.step, self.best, self.seconds = 0, float("-inf"), 0.0

    @classmethod
    def resume(cls, settings: TrainSettings, folder: Path) -> Trainer:
        """From `folder/last`. Raises CheckpointError."""
        ranker, encoder, moments, state = checkpoint.restore(folder / checkpoint.LAST)
        trainer = cls(ranker, encoder, settings, folder)
        checkpoint.load_moments(ranker, trainer.optimizer, moments)
        trainer.step, trainer.best = int(state["step"] or 0), float("-inf" if state["best"] is None else state["best"])
        trainer.seconds = float(state["seconds"] or 0.0)
        return trainer

    def fit(self, data: Data, watcher: Watcher) -> None:
        """Train to the last step; interrupted, all but the steps since the last checkpoint is kept."""
        torch.set_num_threads(self.settings.threads)
        for batch in _ahead(data, self.step, self.settings.steps):
            started = time.perf_counter()
            watcher.on_step(self._learn(batch, started))
            self.step += 1
            self.seconds += time.perf_counter() - started
            self._look_up(watcher)

    def _look_up(self, watcher: Watcher) -> None:
        last = self.step == self.settings.steps
        if last or self.step % self.settings.validate_every == 0:
            value = watcher.validate(self.ranker.eval())
            watcher.on_validation(self.step, value)
            if value > self.best:
                self.best = value
                self._save(checkpoint.BEST)
        if last or self.step % self.settings.checkpoint_every == 0:
            self._save(checkpoint.LAST)

    def _learn(self, batch: Batch, started: float) -> StepReport:
        torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(self.step)
        self.ranker.train()
        logits_LA, found, loss = self._loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.ranker.parameters(), self.settings.clip)
        if not norm.isfinite():
            raise TrainingError(
                f"step {self.step}: the gradient is no number; the last checkpoint stands, lower the rate"
            )
        self.optimizer.step()
        found = Losses(*(each.detach() for each in found))  # else the graph of every reported step lives on
        return StepReport(self.step, found, len(logits_LA), time.perf_counter() - started)

    def _loss(self, batch: Batch) -> tuple[torch.Tensor, Losses, torch.Tensor]:
        with RouterTap(self.ranker) as routed:
            logits_LA = self.ranker(pack([labelled.tree for labelled in batch]), self._compress)
        found = losses(logits_LA, batch)
        if self.settings.loss.contrast:
            found = found._replace(contrast=contrast_loss(batch, self.ranker.compress))
        return logits_LA, found, weighted(found, self.settings.loss) + self.settings.loss.balance * routed.balance()

    def _compress(self, texts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        return F.dropout(self.ranker.compress(texts), self.settings.vector_dropout)

    def _save(self, name: str) -> None:
        best = self.best if math.isfinite(self.best) else None
        state: checkpoint.State = {"step": self.step, "best": best, "seconds": round(self.seconds, 1)}
        checkpoint.save(self.folder / name, self.ranker, self.encoder, self.optimizer, state)


class RouterTap:
    """Listens to every router of a forward."""

    def __init__(self, ranker: Ranker) -> None:
        self.config = ranker.lm.config
        self.routers = [module for name, module in ranker.named_modules() if name.endswith(".mlp.gate")]
        self.logits: list[torch.Tensor] = []

    def __enter__(self) -> RouterTap:
        self._hooks = [router.register_forward_hook(self._hear) for router in self.routers]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _hear(self, _module: nn.Module, _inputs: object, output: tuple[torch.Tensor, ...]) -> None:
        self.logits.append(output[0])

    def balance(self) -> torch.Tensor:
        """The load-balancing loss of what was heard; zero for a dense model."""
        if not self.logits:
            return torch.zeros(())
        top_k = self.config.num_experts_per_tok
        experts = getattr(self.config, "num_local_experts", None) or self.config.num_experts
        return torch.as_tensor(load_balancing_loss_func(cast(Any, tuple(self.logits)), experts, top_k))


def weighted(found: Losses, weights: LossWeights) -> torch.Tensor:
    """The sum that is minimised, balance aside."""
    by_name = {name: getattr(weights, name) * getattr(found, name) for name in SUMMED}
    return cast(torch.Tensor, sum(by_name.values()))


def _optimizer(ranker: Ranker, settings: TrainSettings) -> torch.optim.Optimizer:
    matrices = [p for p in ranker.parameters() if p.ndim >= 2]
    others = [p for p in ranker.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))


def _ahead(data: Data, start: int, end: int) -> Iterator[Batch]:
    """Batches in order, the next one made while this one is learned from."""
    with ThreadPoolExecutor(1) as pool:
        coming: deque[Future[Batch]] = deque()
        for step in range(start, end + 1):
            if step < end:
                coming.append(pool.submit(data.batch, step))
            if step > start:
                yield coming.popleft().result()
