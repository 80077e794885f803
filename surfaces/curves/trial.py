"""One training run of a curve, and the laboratory in which it is made: the data and settings that all runs share."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from foundation.config import ModelConfig
from foundation.engine.torch import TorchEngine
from foundation.model import Ranker
from foundation.tokenizer import TextEncoder
from foundation.training import checkpoint
from foundation.training.ahead import Data
from foundation.training.settings import TrainSettings
from foundation.training.trainer import StepReport, Trainer, Watcher
from prompts.errors import ConfigError
from prompts.verbalize import Detail
from surfaces.evaluation.results import kept, key_of
from surfaces.examples.timelines import Timeline
from surfaces.examples.trees import Shelf
from surfaces.training.run import Taught, TrainConfig, examples_of, mixed, new_encoder, new_model

PROBE = 6
"""Steps that tell how long one takes."""
SAVE_EVERY_S = 60.0
STRANGERS = 0.2
"""Share of members that a run knows nothing of, where it is to meet strangers."""

Step = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What a run does otherwise than the laboratory's settings.

    `scale` multiplies width and depth of the model, `budget` is that of the trunk in slots, and `detail` says whether
    its events, and the candidates (but with `mixed`), are vectors or text. Leaves hang in the trees of
    a `share` of the members. Nothing is learned of `strangers`, of what came at or after the moment `until`, and on the
    surface `without`.
    """

    scale: float = 1.0
    budget: int | None = None
    detail: Detail | None = None
    share: float = 1.0
    strangers: bool = False
    until: float | None = None
    without: str | None = None

    @property
    def name(self) -> str:
        """What differs, for people."""
        told = [f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                for key, value in asdict(self).items() if value != getattr(Trial(), key)]  # fmt: skip
        return ", ".join(told) or "as it comes"


class Pace(NamedTuple):
    """How a run goes: seconds and leaves of a step, parameters, and how many members leaves hang for."""

    seconds: float
    leaves: float
    parameters: int
    members: int

    def steps(self, minutes: float) -> int:
        """So many take that long."""
        return max(1, int(minutes * 60 / self.seconds))


class Lessons(NamedTuple):
    """The trees of a run, and how many members they are of."""

    data: Data
    members: int


class Outcome(NamedTuple):
    """A run that is over."""

    engine: TorchEngine
    taught: Sequence[Taught]
    steps: int
    pace: Pace


@dataclass(frozen=True)
class Laboratory:
    """One ledger and its surfaces, and what every run on it shares; runs are kept in folders under `config.out`.

    `minutes` are those of a run's training, `code` is the programme's version. Without `evidence` nothing that other
    members did stands in a leaf, in training and when asked: the model reads texts alone.
    """

    config: TrainConfig
    taught: Sequence[Taught]
    minutes: float
    code: str
    step: Step
    evidence: bool = True

    @cached_property
    def member_ids(self) -> list[str]:
        """In an order that is drawn; the first ones are learned from where only a share is."""
        names = self.taught[0].ledger.member_ids()
        order = np.random.default_rng(self.config.training.seed).permutation(len(names))
        return [names[place] for place in order]

    @cached_property
    def encoder(self) -> TextEncoder:
        """One tokenizer for all runs: it knows the words of every surface, also of one that a run leaves out."""
        return new_encoder(self.config, self.taught, ModelConfig.load(self.config.model).vocab_size)

    @cached_property
    def strangers(self) -> frozenset[str]:
        """Members that a run with strangers knows nothing of."""
        return frozenset(self.member_ids[-max(1, int(STRANGERS * len(self.member_ids))) :])

    def members(self, share: float) -> int:
        """How many members a share of them is."""
        return max(1, round(share * len(self.member_ids)))

    def key(self, trial: Trial) -> str:
        """What a run's outcome depends on."""
        told = self.config.model_dump(mode="json", exclude={"out"})
        return key_of(asdict(trial), told, self.minutes, self.code, self.evidence, self.taught[0].ledger.counts())

    def learned(self, trial: Trial) -> Outcome:
        """The model that the run leaves; one that was stopped goes on, one that is over is not made again.

        Raises ConfigError where nothing is left to learn from.
        """
        folder = self.config.out / "trials" / self.key(trial)
        taught = [_changed(each, trial, evidence=self.evidence) for each in self.taught]
        resumed = checkpoint.exists(folder / checkpoint.LAST)
        ranker, encoder = checkpoint.restore(folder / checkpoint.LAST)[:2] if resumed else self._model(trial)
        made = cache(partial(self._lessons, trial, taught, TorchEngine(ranker, encoder)))
        pace = Pace(**kept(folder / "pace.json", "pace", lambda: self._pace(ranker, encoder, made())._asdict()))
        settings = self._settings(pace.steps(self.minutes), max(1, int(SAVE_EVERY_S / pace.seconds)))
        trainer = Trainer.resume(settings, folder) if resumed else Trainer(ranker, encoder, settings, folder)
        if trainer.step < settings.steps:
            trainer.fit(made().data, _watcher(partial(self._tell, trial, settings.steps)))
        return Outcome(TorchEngine(trainer.ranker.eval(), trainer.encoder), taught, settings.steps, pace)

    def _tell(self, trial: Trial, steps: int, report: StepReport) -> None:
        self.step(f"training: {trial.name}", report.step + 1, steps)

    def _model(self, trial: Trial) -> tuple[Ranker, TextEncoder]:
        described = scaled(ModelConfig.load(self.config.model), trial.scale)
        return new_model(described, self.encoder, self.config.training.seed), self.encoder

    def _lessons(self, trial: Trial, taught: Sequence[Taught], engine: TorchEngine) -> Lessons:
        strangers = self.strangers if trial.strangers else frozenset()
        parts = examples_of(self.config, taught, engine, partial(narrowed, trial=trial, strangers=strangers))
        learning = set(self.member_ids[: self.members(trial.share)])
        parts = [part.only([each for each in part.courses if each.timeline.member_id in learning]) for part in parts]
        members = {each.timeline.member_id for part in parts for each in part.courses}
        if not members:
            raise ConfigError(f"run '{trial.name}': no member has enough choices to learn from; import more events")
        return Lessons(mixed(self.config, [part for part in parts if part.size]), len(members))

    def _pace(self, ranker: Ranker, encoder: TextEncoder, lessons: Lessons) -> Pace:
        """Measured on a copy of the model, which is thrown away."""
        moments, leaves = list[float](), list[int]()

        def note(report: StepReport) -> None:
            moments.append(time.perf_counter())
            leaves.append(report.leaves)

        settings = self._settings(PROBE, PROBE)
        with TemporaryDirectory(prefix="probe-") as scratch:
            Trainer(deepcopy(ranker), encoder, settings, Path(scratch)).fit(lessons.data, _watcher(note))
        seconds = median(after - before for before, after in pairwise(moments))
        parameters = sum(each.numel() for each in ranker.parameters())
        return Pace(seconds, float(np.mean(leaves)), parameters, lessons.members)

    def _settings(self, steps: int, save_every: int) -> TrainSettings:
        """The shared ones for so many steps."""
        warmup = min(self.config.training.warmup, steps // 10)
        changed = {"steps": steps, "warmup": warmup, "validate_every": steps, "checkpoint_every": save_every}
        return self.config.training.model_copy(update=changed)


def scaled(described: ModelConfig, factor: float) -> ModelConfig:
    """Width and depth times a factor; the variance of the weights falls as the width grows."""
    if factor == 1.0:
        return described
    changed = {
        "hidden_size": int(described.hidden_size * factor),
        "expert_size": int(described.expert_size * factor),
        "layers": max(1, int(described.layers * factor)),
        "initializer_range": described.initializer_range * factor**-0.5,
    }
    return ModelConfig.model_validate(described.model_dump() | changed)


def _changed(taught: Taught, trial: Trial, *, evidence: bool) -> Taught:
    """The surface as a run sees it: its evidence, its trunk, its candidates, and whether it is learned from."""
    spec, form = taught.spec, taught.form
    if not evidence:
        spec = spec.model_copy(update={"evidence": ()})
    if trial.budget is not None:
        form = replace(form, budget=trial.budget, step=max(1, form.step * trial.budget // form.budget))
    if trial.detail is not None:
        form = replace(form, detail=trial.detail)
        leaf = spec.prompt.model_copy(update={"detail": "text" if trial.detail == "text" else "vector"})
        spec = spec.model_copy(update={"prompt": leaf})
    return replace(taught, spec=spec, form=form, learn=taught.learn and spec.surface != trial.without)


def narrowed(shelf: Shelf, trial: Trial, strangers: Collection[str]) -> Shelf:
    """Without what the run is not to know."""

    def known(timeline: Timeline) -> Timeline:
        parts = (
            tuple(
                event for event in events
                if event.surface != trial.without and (trial.until is None or event.timestamp < trial.until)
            )
            for events in (timeline.acts, timeline.impressions)
        )  # fmt: skip
        acts, impressions = parts
        return replace(timeline, acts=acts, impressions=impressions)

    timelines = [known(each) for each in shelf.timelines if each.member_id not in strangers]
    return replace(shelf, timelines=timelines)


def _watcher(on_step: Callable[[StepReport], None]) -> Watcher:
    """Nothing is chosen by validation: the last step's model is the run's."""
    return Watcher(on_step, lambda *_: None, lambda _: 0.0)
