"""`prismrank train --since`: a released checkpoint learns what came since, and is replaced only by one as good.

The run is in `update/` of the configuration's `out`, and starts from `out/model`. Leaves hang at new events, and in a
share of the trees at old ones, so that what was known stays known (rehearsal: A. Robins, "Catastrophic forgetting,
rehearsal and pseudorehearsal", Connection Science 7, 1995). Trunks hold whatever came before. `guard` compares
both checkpoints; the new one takes the place of the old one in one step, or not at all.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foundation import model as models
from foundation.engine.heap import keep_freed_memory
from foundation.engine.torch import TorchEngine
from foundation.training.distributed import Processes, joined
from foundation.training.labels import LabelledTree
from prompts.errors import CheckpointError, ConfigError, TrainingError
from surfaces.examples.ab_trees import ABSurface, ABTrees
from surfaces.examples.mix import Mix, Part
from surfaces.examples.trees import Examples
from surfaces.moments import moment
from surfaces.training.guard import Compared, check, compared
from surfaces.training.run import (
    RELEASE,
    Taught,
    TrainConfig,
    examples_of,
    forget,
    learn,
    lessons,
    mixed,
    prepared,
    release,
    tests_of,
    trained_on,
    with_others,
)
from surfaces.training.trained import Trained

LAST = "last"
FOLDER = "update"
BEGUN_FILE = "since.json"
HELD_OUT = 2
"""The guard asks for the choice before the last of each member: neither checkpoint may have learned from it."""

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux's renameat2(2)


class Updated(NamedTuple):
    """The folder that serves, and how the new checkpoint compares with the one before, by surface."""

    folder: Path
    figures: Sequence[Compared]


class Rehearsing:
    """New trees, and a share of old ones. Implements `foundation.training.trainer.Data`."""

    def __init__(self, new: Mix, old: Mix | None, share: float) -> None:
        """Without `old` trees all are new."""
        self.new, self.old, self.share = new, old or new, share

    def batch(self, step: int) -> list[LabelledTree]:
        """The trees of one step; the same step gives the same trees."""
        rng = np.random.default_rng((self.new.seed, step))
        kinds = (self.old if rng.random() < self.share else self.new for _ in range(self.new.trees_per_step))
        return [kind.drawn(rng) for kind in kinds]


def run(name: str | Path, since: str, *, fresh: bool = False) -> Updated:
    """Train on from the released checkpoint; a run that was stopped goes on unless `fresh`.

    `since` is a time (seconds since 1970, or ISO 8601) or `last`: the newest event that was learned from, by surface.
    Raises ConfigError, LedgerError, CheckpointError, and TrainingError where nothing new came or where the new
    checkpoint is refused: then the old one stays.
    """
    keep_freed_memory()
    config = TrainConfig.load(name)
    serving = config.out / RELEASE
    with joined() as group, lessons(config) as taught:
        with group.in_turn():
            _check_guarded(config, serving)
        moments = _moments(since, taught, serving)
        learning, tested = _learning(config, serving), list(tests_of(config))
        every: list[Taught | ABSurface] = [*taught, *tested]
        begun = _begun(config, moments, serving)
        trainer = prepared(learning, every, fresh=fresh or _text(learning.out / BEGUN_FILE) != begun)
        engine = TorchEngine(trainer.ranker, trainer.encoder)
        parts = examples_of(learning, taught, engine)
        trees = [ABTrees(each, engine, positions=config.examples.positions) for each in tested if each.learn]
        data = rehearsing(learning, parts, moments, trees)
        _begin(learning, begun)
        learn(learning, every, trainer, with_others(learning, data))
        if not group.first:
            return Updated(serving, ())
        fresh_model = release(learning.out, trained_on(name, parts, trees))
        return Updated(serving, _replaced(learning, every, serving, fresh_model))


def rehearsing(
    config: TrainConfig, parts: Sequence[Examples], moments: Mapping[str, float], timeless: Sequence[Part] = ()
) -> Rehearsing:
    """The data of an update; what is `timeless` counts as old. Raises TrainingError where nothing new came."""
    halves = [part.parted(moments[part.spec.surface]) for part in parts]
    new = [late for late, _ in halves if late.size]
    old = [*(early for _, early in halves if early.size), *timeless]
    if not new:
        told = ", ".join(f"'{name}' after {_written(at)}" for name, at in moments.items())
        raise TrainingError(f"nothing new to learn from on surface {told}; the model stays as it is")
    return Rehearsing(mixed(config, new), mixed(config, old) if old else None, config.update.rehearsal)


def _check_guarded(config: TrainConfig, serving: Path) -> None:
    """Raises where there is nothing to go on from, or nothing to compare on."""
    if config.adapter:
        raise ConfigError("adapter: --since trains a model on; leave --since out to learn the adapter again")
    if Processes.here().first:
        _recover(serving)
    if not serving.is_dir():
        raise CheckpointError(f"{serving}: no model to train on from; train one first, without --since")
    if config.examples.holdout < HELD_OUT:
        raise ConfigError(
            f"examples.holdout: {config.examples.holdout}; --since needs {HELD_OUT} or more, or the new model would be "
            "compared on what it learned"
        )


def _moments(since: str, taught: Sequence[Taught], serving: Path) -> dict[str, float]:
    """By surface that is learned from, the moment after which events are new. Raises ConfigError, CheckpointError."""
    learning = [each for each in taught if each.learn]
    for each in learning:
        if each.ledger.clock == "order":
            raise ConfigError(
                f"--since needs times, but the clock of surface '{each.spec.surface}'s ledger is 'order': "
                "train anew instead"
            )
    if since == LAST:
        return _last(serving, [each.spec.surface for each in learning])
    at = moment(since)
    if at is None:
        raise ConfigError(
            f"--since: {since!r} is not a time; write 'last', seconds since 1970 or ISO 8601, "
            "such as 2026-01-31T12:00:00Z"
        )
    return {each.spec.surface: at for each in learning}


def _last(serving: Path, names: Sequence[str]) -> dict[str, float]:
    learned = Trained.load(serving).surfaces
    found = {name: learned[name].newest for name in names if name in learned}
    known = {name: at for name, at in found.items() if at is not None}
    if missing := [name for name in names if name not in known]:
        raise CheckpointError(
            f"{serving}: the model learned nothing on surface '{missing[0]}' that has a time; "
            "give --since a time instead of 'last'"
        )
    return known


def _learning(config: TrainConfig, serving: Path) -> TrainConfig:
    """The update as a run of its own, validated once, at its end."""
    update = config.update
    steps = {"steps": update.steps, "validate_every": update.steps}
    training = config.training.model_copy(
        update={**steps, "learning_rate": update.learning_rate, "warmup": update.warmup}
    )
    return config.model_copy(
        update={"model": str(serving), "out": config.out / FOLDER, "training": training}
    )  # fmt: skip


def _begun(config: TrainConfig, moments: Mapping[str, float], serving: Path) -> str:
    """What an update goes on only with, beside its configuration: else it begins anew."""
    told = {"since": moments, "from": models.version(serving), "rehearsal": config.update.rehearsal}
    return json.dumps(told, indent=1)


def _begin(config: TrainConfig, begun: str) -> None:
    if Processes.here().first:
        (config.out / BEGUN_FILE).write_text(begun, encoding="utf-8")


def _replaced(config: TrainConfig, taught: Sequence[Taught | ABSurface], serving: Path, fresh: Path) -> list[Compared]:
    """Both compared, and the fresh folder in the place of the other. Raises TrainingError where it is refused.

    Whatever comes of it, the run is over: the next one begins anew.
    """
    found = compared(taught, TorchEngine.load(serving), TorchEngine.load(fresh))
    (config.out / BEGUN_FILE).unlink()
    try:
        check(found, config.update.tolerance)
    except TrainingError as error:
        raise TrainingError(f"{error}: {serving} stays as it was, the refused model is in {fresh}") from None
    swap(fresh, serving)
    forget(config.out)
    return found


def swap(fresh: Path, serving: Path) -> None:
    """Two folders change places in one step, so that whoever opens `serving` finds one of them, whole.

    Where the system cannot exchange folders, there are two steps, and between them none.
    """
    os.sync()
    if _exchanged(fresh, serving):
        return
    aside = _aside(serving)
    serving.rename(aside)
    fresh.rename(serving)
    aside.rename(fresh)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether Linux's renameat2 exchanged them; other systems, and some file systems, do not have it."""
    exchange = getattr(ctypes.CDLL(None), "renameat2", None)
    return exchange is not None and not exchange(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE)


def _recover(serving: Path) -> None:
    """What a kill between the two steps of `swap` left aside is put back."""
    if not serving.exists() and _aside(serving).is_dir():
        _aside(serving).rename(serving)


def _aside(serving: Path) -> Path:
    return serving.with_name(f".{serving.name}.old")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _written(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
