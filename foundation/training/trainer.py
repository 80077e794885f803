"""Training on labelled trees: many leaves a trunk, answers only.

A step packs its trees into one forward, as serving does, and learns from every leaf at once; the trunk is computed once
for all of them. Runs resume from their last checkpoint and keep the best by validation; several processes may share
one.
Shapes: L leaves, A answers, M layers with experts, E experts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from foundation.engine.pack import pack
from foundation.model import Ranker
from foundation.tokenizer import TextEncoder
from foundation.training import checkpoint, distributed
from foundation.training.ahead import Batch, Data, ahead
from foundation.training.distillation import distill_loss
from foundation.training.distributed import Processes
from foundation.training.labels import Losses, contrast_loss, losses
from foundation.training.preference import preference_loss
from foundation.training.settings import LossWeights, TrainSettings
from prompts.errors import TrainingError


class StepReport(NamedTuple):
    """One step: losses in nats, leaves scored, seconds, slots read, the sum that was minimised.

    `load_ME` counts for how many slots each expert was chosen; [0, 0] for a dense model.
    """

    step: int
    losses: Losses
    leaves: int
    seconds: float
    slots: int
    loss: float
    gradient_norm: float
    learning_rate: float
    load_ME: torch.Tensor


class Learned(NamedTuple):
    """What one part of a step came to in this process: its share of every loss and of their weighted sum."""

    losses: Losses
    loss: torch.Tensor
    load_ME: torch.Tensor


@dataclass(frozen=True, slots=True)
class Watcher:
    """What a run tells while it goes on, and what it asks; of several processes only the first does."""

    on_step: Callable[[StepReport], None]
    on_validation: Callable[[int, float], None]
    validate: Callable[[Ranker], float]


class Trainer:
    """One run in one folder: `last/` to resume from, `best/` by validation."""

    def __init__(self, ranker: Ranker, encoder: TextEncoder, settings: TrainSettings, folder: Path) -> None:
        self.ranker, self.encoder, self.settings, self.folder = ranker, encoder, settings, folder
        self.processes = Processes.here()
        if settings.gradient_checkpointing:
            recompute(ranker)
        self.optimizer = _optimizer(ranker, settings)
        self.step, self.best, self.seconds = 0, float("-inf"), 0.0

    @classmethod
    def resume(cls, settings: TrainSettings, folder: Path) -> Trainer:
        """From `folder/last`, whatever the number of processes that wrote it. Raises CheckpointError."""
        with Processes.here().in_turn():
            ranker, encoder, moments, state = checkpoint.restore(folder / checkpoint.LAST)
        trainer = cls(ranker, encoder, settings, folder)
        checkpoint.load_moments(ranker, trainer.optimizer, moments)
        trainer.step, trainer.best = int(state["step"] or 0), float("-inf" if state["best"] is None else state["best"])
        trainer.seconds = float(state["seconds"] or 0.0)
        return trainer

    def fit(self, data: Data, watcher: Watcher) -> None:
        """Train to the last step; interrupted, all but the steps since the last checkpoint is kept.

        Raises TrainingError: a step whose loss or gradient is no number, which is not taken.
        """
        torch.set_num_threads(self.settings.threads)
        self._spread()
        for batch in ahead(data, self.step, self.settings.steps, workers=self.settings.workers):
            started = time.perf_counter()
            report = self._learn(batch, started)
            if self.processes.first:
                watcher.on_step(report)
            self.step += 1
            self.seconds += time.perf_counter() - started
            self._look_up(watcher)

    def _spread(self) -> None:
        """Over the processes; before it, each has the whole model, which data may be made with."""
        moments = dict(checkpoint.moments_of(self.ranker, self.optimizer))
        distributed.spread(self.ranker, self.settings.strategy, self.processes)
        self.optimizer = _optimizer(self.ranker, self.settings)
        checkpoint.load_moments(self.ranker, self.optimizer, moments)

    def _look_up(self, watcher: Watcher) -> None:
        last = self.step == self.settings.steps
        if last or self.step % self.settings.validate_every == 0:
            value = self._validated(watcher)
            if value > self.best:
                self.best = value
                self._save(checkpoint.BEST)
        if last or self.step % self.settings.checkpoint_every == 0:
            self._save(checkpoint.LAST)

    def _validated(self, watcher: Watcher) -> float:
        ranker, value = distributed.gathered(self.ranker, self.processes), 0.0
        if ranker is not None:
            value = watcher.validate(ranker.eval())
            watcher.on_validation(self.step, value)
        return self.processes.told(value)

    def _learn(self, batch: Batch, started: float) -> StepReport:
        rate = self._begin()
        parts = distributed.cut(batch, self.settings.accumulate, self.processes)
        learned = [self._backward(part, batch) for part in parts]
        terms = torch.stack([torch.stack([each.loss, *each.losses]) for each in learned]).sum(dim=0)
        loss, *found = self.processes.total(terms)
        self._check_finite("the loss", loss)
        distributed.sum_gradients(self.ranker, self.processes)
        norm = distributed.clip(self.ranker, self.settings.clip)
        self._check_finite("the gradient", norm)
        self.optimizer.step()
        leaves = sum(labelled.leaves for labelled in batch)
        load_ME = torch.stack([each.load_ME for each in learned]).sum(dim=0)
        seconds = time.perf_counter() - started
        return StepReport(
            self.step, Losses(*found), leaves, seconds, slots(batch), float(loss), float(norm), rate, load_ME
        )

    def _begin(self) -> float:
        """Everything that a step depends on besides its trees and the weights; returns the learning rate."""
        torch.manual_seed((self.settings.seed * 1_000_003 + self.step) * self.processes.number + self.processes.rank)
        rate = self.settings.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.ranker.train()
        self.optimizer.zero_grad(set_to_none=True)
        return rate

    def _backward(self, part: Batch, batch: Batch) -> Learned:
        """Adds a part's share of the step's gradient."""
        learned = self._loss(part, batch)
        learned.loss.backward()  # type: ignore[no-untyped-call]
        found = Losses(*(each.detach() for each in learned.losses))  # else the graph of every reported step lives on
        return Learned(found, learned.loss.detach(), learned.load_ME)

    def _loss(self, part: Batch, batch: Batch) -> Learned:
        with RouterTap(self.ranker) as routed:
            logits_LA = self.ranker(pack([labelled.tree for labelled in part]), self._compress)
        load_ME = self.processes.total(routed.load())
        found = distributed.shared(self._losses(logits_LA, part), part, batch)
        balance = self.settings.loss.balance * routed.balance(load_ME, slots(batch))
        nothing = 0 * logits_LA[:, 0].sum()  # a part without labels has a gradient, too, and it is zero
        return Learned(found, weighted(found, self.settings.loss) + balance + nothing, load_ME)

    def _losses(self, logits_LA: torch.Tensor, part: Batch) -> Losses:
        """Those of the labels, and those that have a weight of the others."""
        every, weights = losses(logits_LA, part), self.settings.loss
        if weights.contrast:
            every = every._replace(contrast=contrast_loss(part, self.ranker.compress))
        if weights.distill:
            every = every._replace(distill=distill_loss(logits_LA, part, weights.distill_temperature))
        if weights.preference:
            every = every._replace(preference=preference_loss(logits_LA, part, weights.preference_beta))
        return every

    def _compress(self, texts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        return F.dropout(self.ranker.compress(texts), self.settings.vector_dropout)

    def _check_finite(self, what: str, value: torch.Tensor) -> None:
        if not value.isfinite():
            raise TrainingError(
                f"step {self.step}: {what} is no number; the last checkpoint stands: lower learning_rate or clip"
            )

    def _save(self, name: str) -> None:
        """Every process takes part; the first one writes."""
        ranker = distributed.gathered(self.ranker, self.processes)
        moments = distributed.collected(checkpoint.moments_of(self.ranker, self.optimizer), self.processes)
        best = self.best if math.isfinite(self.best) else None
        state: checkpoint.State = {"step": self.step, "best": best, "seconds": round(self.seconds, 1)}
        if ranker is not None:
            checkpoint.save(self.folder / name, ranker, self.encoder, moments, state)


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

    @torch.no_grad()
    def load(self) -> torch.Tensor:
        """[M, E]: for how many of the slots heard each expert was chosen; [0, 0] for a dense model."""
        top_k = self.config.num_experts_per_tok if self.logits else 0
        chosen = [logits.topk(top_k).indices.flatten().bincount(minlength=logits.shape[1]) for logits in self.logits]
        return torch.stack(chosen) if chosen else torch.zeros(0, 0, dtype=torch.long)

    def balance(self, load_ME: torch.Tensor, slots: int) -> torch.Tensor:
        """What was heard of a step's load-balancing loss; zero for a dense model.

        For a whole step E · Σ f P (Fedus et al. 2021, equations 4 to 6), over all layers together: f the share of
        slots for which an expert was chosen, P its mean probability. `load_ME` is the load of the part of the step that
        this was heard in, in all processes, and `slots` are those of the step.
        """
        if not self.logits:
            return torch.zeros(())
        probability_E = torch.stack([logits.float().softmax(dim=-1).sum(dim=0) for logits in self.logits]).sum(dim=0)
        rows = load_ME.sum() / self.config.num_experts_per_tok
        chosen_E = load_ME.sum(dim=0) / rows
        return torch.dot(chosen_E, probability_E) * (len(chosen_E) / (len(self.logits) * slots))


def slots(batch: Batch) -> int:
    """How many the trees of a step have."""
    return sum(labelled.tree.size for labelled in batch)


def weighted(found: Losses, weights: LossWeights) -> torch.Tensor:
    """The sum that is minimised, balance aside: every loss that has a weight."""
    counted = [name for name in found._fields if name in LossWeights.model_fields]
    return torch.stack([getattr(weights, name) * getattr(found, name) for name in counted]).sum()


def recompute(ranker: Ranker) -> None:
    """Layers keep their input alone and compute the rest again in the backward (Chen et al. 2016).

    Raises TrainingError for an architecture that cannot.
    """
    if not ranker.lm.supports_gradient_checkpointing:
        raise TrainingError(f"gradient_checkpointing: {type(ranker.lm).__name__} cannot, set it to false")
    ranker.lm.activation_checkpointing_enable()
    ranker.lm.disable_input_require_grads()  # type: ignore[no-untyped-call]


def _optimizer(ranker: Ranker, settings: TrainSettings) -> torch.optim.Optimizer:
    groups = distributed.groups(ranker, settings.weight_decay)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))
