"""`prismrank train`: from a configuration to a checkpoint.

Reads the ledgers, learns a tokenizer from their texts, and hands labelled trees to `foundation.training`. What
validates is the event before the last of each member, among a surface's items; the last event is never looked at.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from foundation import model as models
from foundation import tokenizer
from foundation.config import ModelConfig, explain, find_config, read_yaml
from foundation.engine.heap import keep_freed_memory
from foundation.engine.torch import TorchEngine
from foundation.tokenizer import TextEncoder
from foundation.training import checkpoint
from foundation.training.distributed import Processes, joined
from foundation.training.progress import TrainingProgress
from foundation.training.settings import TrainSettings
from foundation.training.trainer import Trainer, Watcher
from prompts.errors import ConfigError
from prompts.verbalize import Happening, TrunkForm, event_piece, profile_piece
from surfaces import evidence
from surfaces.compose import leaf_piece, stem_pieces
from surfaces.evaluation.foundation import FoundationMethod
from surfaces.evaluation.protocols import Split, leave_one_out, validation_of
from surfaces.evaluation.run import rank
from surfaces.examples.data import DataSpec, check_surfaces, opened
from surfaces.examples.mix import Mix
from surfaces.examples.settings import ExampleSettings
from surfaces.examples.trees import Examples, Shelf
from surfaces.happenings import attributes_of
from surfaces.heads.base import NO, NONE, YES
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry, shipped_folder
from surfaces.spec import SurfaceSpec

LOG_FILE = "log.jsonl"
RELEASE = "model"
CONFIG_FILE = "config.json"
NDCG, AUC = "ndcg@10", "auc"


class ValidationSettings(BaseModel):
    """Who validates, and how.

    A run keeps the checkpoint with the highest mean NDCG@10 over the surfaces that `best` names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    members: int = Field(200, ge=1, description="Of each surface.")
    candidates: int | None = Field(None, ge=2, description="Of each ranking; by default the whole catalogue.")
    zero_shot: bool = Field(False, description="Whether each surface is ranked without evidence, too.")
    best: tuple[str, ...] = Field((), description="By default those that are learned from.")
    seed: int = 1


class TrainConfig(BaseModel):
    """A file of `configs/train`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="A model configuration's name or file, or a model folder to go on from.")
    data: tuple[DataSpec, ...] = Field(min_length=1)
    surfaces: tuple[Path, ...] = Field((), description="Folders of surface files, beside the shipped ones.")
    temperature: float = Field(1.0, gt=0, description="Of the mix: at 1 every choice counts the same, above it small "
                               "surfaces count more.")  # fmt: skip
    weights: dict[str, float] = Field(default_factory=dict, description="Of surfaces in the mix, by name.")
    out: Path
    examples: ExampleSettings
    training: TrainSettings
    validation: ValidationSettings = ValidationSettings()

    @classmethod
    def load(cls, name: str | Path) -> TrainConfig:
        """From a shipped name ("movies") or a path. Raises ConfigError."""
        path = find_config("train", name)
        content = read_yaml(path)
        try:
            config = cls.model_validate(content)
            check_surfaces(config.data)
        except ValidationError as error:
            raise ConfigError(explain(path, error)) from None
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        return config


@dataclass(frozen=True)
class Taught:
    """One surface of a run, over its ledger."""

    spec: SurfaceSpec
    form: TrunkForm
    ledger: Ledger
    learn: bool
    settings: ValidationSettings

    @cached_property
    def split(self) -> Split:
        """What validates: the event before the last, of some members."""
        who = self.settings
        return validation_of(
            leave_one_out(self.ledger, self.spec), self.ledger, self.spec,
            members=who.members, seed=who.seed, candidates=who.candidates,
        )  # fmt: skip

    def validate(self, engine: TorchEngine) -> dict[str, float]:
        """The model's figures on the surface, `zero_shot` ones without evidence."""
        asked = (True, False) if self.settings.zero_shot else (True,)
        methods = [
            FoundationMethod(self.spec, self.form, self.ledger, engine, self.split.train, evidence=heard)
            for heard in asked
        ]
        found = rank(self.split, methods, self.ledger)
        told = {NDCG: _mean(found[methods[0].name].values(NDCG))}
        if self.settings.zero_shot:
            values = found[methods[1].name]
            told |= {f"zero_shot_{name}": _mean(values.values(name)) for name in (NDCG, AUC)}
        return told


def run(name: str | Path, *, fresh: bool = False) -> Path:
    """Train as the configuration says; a run that was stopped goes on unless `fresh`. Returns the model folder.

    Raises ConfigError, LedgerError or CheckpointError.
    """
    keep_freed_memory()
    config = TrainConfig.load(name)
    registry = Registry.load([shipped_folder(), *config.surfaces])
    with joined() as group, opened(config.data, config.out) as ledgers:
        taught = [each for spec, ledger in zip(config.data, ledgers, strict=True)
                  for each in _taught(config, registry, spec, ledger)]  # fmt: skip
        trainer = prepared(config, taught, fresh=fresh)
        engine = TorchEngine(trainer.ranker, trainer.encoder)
        mix = mixed(config, taught, engine)

        with TrainingProgress(config.training.steps, config.out / LOG_FILE) as progress:

            def validate(ranker: models.Ranker) -> float:
                found = validated(taught, TorchEngine(ranker, trainer.encoder))
                progress.figures(trainer.step, found)
                best = config.validation.best or tuple(each.spec.surface for each in taught if each.learn)
                return _mean([found[f"{name}_{NDCG}"] for name in best])

            trainer.fit(mix, Watcher(progress.step, progress.validation, validate))
    return release(config.out) if group.first else config.out / RELEASE


def _taught(config: TrainConfig, registry: Registry, spec: DataSpec, ledger: Ledger) -> Iterator[Taught]:
    for name in spec.surfaces:
        surface = registry.surface(name)
        yield Taught(surface, registry.trunk(surface.trunk), ledger, spec.learn, config.validation)


def mixed(config: TrainConfig, taught: Sequence[Taught], engine: TorchEngine) -> Mix:
    """The trees of all surfaces that are learned from. What one of them holds out is in no trunk of another."""
    shelves: dict[tuple[int, str], Shelf] = {}
    parts = []
    for each in (each for each in taught if each.learn):
        key = id(each.ledger), each.spec.trunk
        if key not in shelves:
            shelves[key] = Shelf.of(each.ledger, each.form, engine, config.examples)
        parts.append(Examples(each.spec, shelves[key], seed=config.training.seed))
    return Mix(
        parts,
        trees_per_step=config.training.trees_per_step,
        seed=config.training.seed,
        temperature=config.temperature,
        weights=config.weights,
    )


def validated(taught: Sequence[Taught], engine: TorchEngine) -> dict[str, float]:
    """Figures of every surface, by its name and theirs."""
    return {f"{each.spec.surface}_{name}": value for each in taught for name, value in each.validate(engine).items()}


def release(out: Path) -> Path:
    """The run's best model by itself, in 16 bits: a folder to serve, and to give away."""
    ranker, encoder = models.load(out / checkpoint.BEST)
    ranker.save(out / RELEASE, encoder, torch.float16)
    return out / RELEASE


def prepared(config: TrainConfig, taught: Sequence[Taught], *, fresh: bool) -> Trainer:
    """A trainer: resumed from the run's last checkpoint, started from a model folder, or new."""
    group = Processes.here()
    with group.in_turn():
        if fresh and group.first:
            _forget(config.out)
        _check_same(config)
    if checkpoint.exists(config.out / checkpoint.LAST):
        return Trainer.resume(config.training, config.out)
    if Path(config.model).is_dir():
        ranker, encoder = models.load(Path(config.model))
    else:
        described = ModelConfig.load(config.model)
        said = (text for each in taught if each.learn for text in texts(each.spec, each.form, each.ledger, config))
        encoder = TextEncoder(tokenizer.train(said, described.vocab_size))
        size = len(encoder.tokenizer)
        ranker = models.build(described.model_copy(update={"vocab_size": size}), config.training.seed)
    return Trainer(ranker, encoder, config.training, config.out)


def _forget(out: Path) -> None:
    for name in (checkpoint.LAST, checkpoint.BEST, RELEASE):
        shutil.rmtree(out / name, ignore_errors=True)
    (out / CONFIG_FILE).unlink(missing_ok=True)


def _check_same(config: TrainConfig) -> None:
    """A run goes on only as it began: other data or another seed would mix what is held out with what is learned."""
    told = config.model_dump(mode="json")
    path = config.out / CONFIG_FILE
    if path.is_file() and TrainConfig.model_validate_json(path.read_text(encoding="utf-8")) != config:
        raise ConfigError(f"{config.out} holds a run of another configuration: use --fresh, or name another 'out'")
    config.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=1), encoding="utf-8")


def texts(spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, config: TrainConfig) -> Iterator[str]:
    """What the tokenizer learns from: members, items and events in the surface's words, and the words themselves.

    Short texts that every tree holds are repeated, for their words to become single tokens.
    """
    for member in ledger.all_members():
        yield profile_piece(form, member.profile).text
    done = {action for head in spec.heads for action in head.actions} & form.actions.keys()
    for item in ledger.all_items(spec.item_kind):
        attributes = attributes_of(item)
        yield leaf_piece(spec, attributes).text
        for action in done:
            yield event_piece(form, Happening(item.kind, action, attributes), compress=False).text
    repeated = [piece.text for piece in stem_pieces(spec)] + evidence.vocabulary()
    repeated += [f"{said}\n" for said in config.examples.instructions.get(spec.surface, ())]
    repeated += [f" {word}" for words in config.examples.words.values() for word in words]
    repeated += [f" {word}" for word in (*spec.answers, YES, NO, NONE)]
    for _ in range(500):
        yield from repeated


def _mean(values: Sequence[float] | npt.NDArray[np.float64]) -> float:
    return round(float(np.mean(values)), 4)
