"""`prismrank train`: from a configuration to a checkpoint.

Reads the ledgers, learns a tokenizer from their texts, and hands labelled trees to `foundation.training`. What
validates is the event before the last of each member, among a surface's items; the last event is never looked at. Of
A/B tests, some validate, and others are never looked at.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from foundation import model as models
from foundation import tokenizer
from foundation.config import ModelConfig, explain, find_config, read_yaml
from foundation.engine.heap import keep_freed_memory
from foundation.engine.torch import TorchEngine
from foundation.tokenizer import TextEncoder
from foundation.training import checkpoint
from foundation.training.ahead import Data
from foundation.training.distillation import WithTeacher
from foundation.training.distributed import Processes, joined
from foundation.training.preference import WithReference
from foundation.training.progress import TrainingProgress
from foundation.training.settings import TrainSettings
from foundation.training.trainer import Trainer, Watcher
from prompts.errors import ConfigError
from prompts.verbalize import Happening, TrunkForm, event_piece, profile_piece
from surfaces import evidence
from surfaces.compose import stem_pieces
from surfaces.evaluation.foundation import FoundationMethod
from surfaces.evaluation.protocols import Split, leave_one_out, validation_of
from surfaces.evaluation.run import rank
from surfaces.examples.ab_trees import ABSurface, ABTrees
from surfaces.examples.data import DataSpec, check_surfaces, opened, split_tests
from surfaces.examples.mix import Mix, Part
from surfaces.examples.settings import ExampleSettings
from surfaces.examples.trees import Examples, Shelf
from surfaces.happenings import attributes_of
from surfaces.heads.base import NO, NONE, YES
from surfaces.leaves import leaf_piece
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry, shipped_folder
from surfaces.spec import SurfaceSpec
from surfaces.training.adapter import AdapterSettings, check_base
from surfaces.training.trained import TRAINED_FILE, Learned, Trained

LOG_FILE = "log.jsonl"
RELEASE, ADAPTER = "model", "adapter"
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


class UpdateSettings(BaseModel):
    """How a checkpoint learns what came since, and what it takes to be released; see `surfaces.training.update`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(200, ge=1)
    learning_rate: float = Field(3e-4, gt=0, le=1)
    warmup: int = Field(10, ge=0)
    rehearsal: float = Field(0.3, ge=0, lt=1, description="Share of trees whose leaves hang at old events.")
    tolerance: float = Field(0.005, ge=0, le=1, description="How much lower the mean NDCG@10 may be than before.")


class TrainConfig(BaseModel):
    """A file of `configs/train`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="A model configuration's name or file, or a model folder to go on from.")
    teacher: Path | None = Field(None, description="A model folder whose answers are learned beside the labels.")
    data: tuple[DataSpec, ...] = Field(min_length=1)
    surfaces: tuple[Path, ...] = Field((), description="Folders of surface files, beside the shipped ones.")
    temperature: float = Field(1.0, gt=0, description="Of the mix: at 1 every choice counts the same, above it small "
                               "surfaces count more.")  # fmt: skip
    weights: dict[str, float] = Field(default_factory=dict, description="Of surfaces in the mix, by name.")
    adapter: AdapterSettings | None = Field(None, description="What is learned on top of a model folder.")
    out: Path
    examples: ExampleSettings
    training: TrainSettings
    validation: ValidationSettings = ValidationSettings()
    update: UpdateSettings = UpdateSettings()

    @model_validator(mode="after")
    def _others_speak(self) -> Self:
        """Other models than the one that learns are there where they are needed, and only there."""
        loss = self.training.loss
        if (self.teacher is None) != (loss.distill == 0):
            raise ValueError("'teacher' and a weight 'distill' under training.loss go together: give both, or neither")
        if loss.preference and not Path(self.model).is_dir():
            raise ValueError("training.loss.preference holds a model to where it began: 'model' should be its folder")
        return self

    @classmethod
    def load(cls, name: str | Path) -> TrainConfig:
        """From a shipped name ("movies") or a path. Raises ConfigError."""
        path = find_config("train", name)
        content = read_yaml(path)
        try:
            config = cls.model_validate(content)
            check_surfaces(config.data)
            if config.adapter:
                config.adapter.check(Path(config.model), config.training)
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

    def texts(self) -> Iterator[str]:
        """What is learned from, as text: members, items, and events in the trunk's words."""
        for member in self.ledger.all_members():
            yield profile_piece(self.form, member.profile).text
        done = {action for head in self.spec.heads for action in head.actions} & self.form.actions.keys()
        for item in self.ledger.all_items(self.spec.item_kind):
            attributes = attributes_of(item)
            yield leaf_piece(self.spec, attributes).text
            for action in done:
                yield event_piece(self.form, Happening(item.kind, action, attributes), compress=False).text

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
    """Train as the configuration says; a run that was stopped goes on unless `fresh`.

    Returns the folder of the model, or of the adapter. Raises ConfigError, LedgerError or CheckpointError.
    """
    keep_freed_memory()
    config = TrainConfig.load(name)
    with joined() as group, lessons(config) as taught:
        tested = list(tests_of(config))
        trainer = prepared(config, [*taught, *tested], fresh=fresh)
        over = trainer.step >= config.training.steps and (config.out / RELEASE / TRAINED_FILE).is_file()
        if over:  # what is there may have learned more since
            return config.out / RELEASE
        engine = TorchEngine(trainer.ranker, trainer.encoder)
        parts = examples_of(config, taught, engine)
        trees = [ABTrees(each, engine, positions=config.examples.positions) for each in tested if each.learn]
        learn(config, [*taught, *tested], trainer, with_others(config, mixed(config, [*parts, *trees])))
    if config.adapter:
        base = Path(config.model)
        return release_adapter(config.adapter, base, config.out) if group.first else config.out / ADAPTER
    return release(config.out, trained_on(name, parts, trees)) if group.first else config.out / RELEASE


@contextmanager
def lessons(config: TrainConfig) -> Iterator[list[Taught]]:
    """Every surface of a run that has a ledger, its ledger open."""
    registry = Registry.load([shipped_folder(), *config.surfaces])
    specs = [spec for spec in config.data if spec.tests is None]
    with opened(specs, config.out) as ledgers:
        yield [each for spec, ledger in zip(specs, ledgers, strict=True)
               for each in _taught(config, registry, spec, ledger)]  # fmt: skip


def tests_of(config: TrainConfig) -> Iterator[ABSurface]:
    """Every surface of a run that has A/B tests."""
    registry = Registry.load([shipped_folder(), *config.surfaces])
    for spec in config.data:
        for surface in _surfaces(config, registry, spec) if spec.tests is not None else ():
            form = registry.trunk(surface.trunk)
            yield ABSurface(surface, form, split_tests(spec), spec.learn, config.validation.members)


def with_others(config: TrainConfig, data: Data) -> Data:
    """Trees with the answers of a teacher, and of the model that the run began from, where they are learned from."""
    if config.teacher is not None:
        data = WithTeacher(data, *models.load(config.teacher))
    if config.training.loss.preference:
        data = WithReference(data, models.load(Path(config.model))[0])
    return data


def learn(config: TrainConfig, taught: Sequence[Taught | ABSurface], trainer: Trainer, data: Data) -> None:
    """From the trainer's step to the last one, with a bar, a log and validations."""
    with TrainingProgress(config.training.steps, config.out / LOG_FILE) as progress:

        def validate(ranker: models.Ranker) -> float:
            found = validated(taught, TorchEngine(ranker, trainer.encoder))
            progress.figures(trainer.step, found)
            best = config.validation.best or tuple(each.spec.surface for each in taught if each.learn)
            return _mean([found[f"{name}_{NDCG}"] for name in best])

        trainer.fit(data, Watcher(progress.step, progress.validation, validate))


def _taught(config: TrainConfig, registry: Registry, spec: DataSpec, ledger: Ledger) -> Iterator[Taught]:
    for surface in _surfaces(config, registry, spec):
        yield Taught(surface, registry.trunk(surface.trunk), ledger, spec.learn, config.validation)


def _surfaces(config: TrainConfig, registry: Registry, spec: DataSpec) -> Iterator[SurfaceSpec]:
    """Those of a place, under the run's adapter, whatever adapter their files name."""
    for name in spec.surfaces:
        yield registry.surface(name).model_copy(update={"adapter": config.adapter and config.adapter.name})


def examples_of(
    config: TrainConfig,
    taught: Sequence[Taught],
    engine: TorchEngine,
    change: Callable[[Shelf], Shelf] = lambda shelf: shelf,
) -> list[Examples]:
    """Of every surface that is learned from. What one of them holds out is in no trunk of another.

    `change` may leave out a part of what a ledger tells.
    """
    shelves: dict[tuple[int, str], Shelf] = {}
    parts = []
    for each in (each for each in taught if each.learn):
        key = id(each.ledger), each.spec.trunk
        if key not in shelves:
            pairs = config.training.loss.contrast > 0
            shelves[key] = change(Shelf.of(each.ledger, each.form, engine, config.examples, pairs=pairs))
        parts.append(Examples(each.spec, shelves[key], seed=config.training.seed))
    return parts


def mixed(config: TrainConfig, parts: Sequence[Part]) -> Mix:
    """The trees of several surfaces as one run's data."""
    return Mix(
        parts,
        trees_per_step=config.training.trees_per_step,
        seed=config.training.seed,
        temperature=config.temperature,
        weights=config.weights,
    )


def trained_on(name: str | Path, parts: Sequence[Examples], trees: Sequence[ABTrees] = ()) -> Trained:
    """What a run of that configuration has learned from, when it is over; A/B tests have no times."""
    learned = {
        part.spec.surface: Learned(newest=part.newest if part.shelf.timed else None, spots=part.size) for part in parts
    } | {part.spec.surface: Learned(newest=None, spots=part.size) for part in trees}
    return Trained(config=Path(name).stem, surfaces=learned)


def validated(taught: Sequence[Taught | ABSurface], engine: TorchEngine) -> dict[str, float]:
    """Figures of every surface, by its name and theirs."""
    return {f"{each.spec.surface}_{name}": value for each in taught for name, value in each.validate(engine).items()}


def release_adapter(settings: AdapterSettings, base: Path, out: Path) -> Path:
    """The run's best adapter by itself, for the model folder `base`: a folder to serve, and to give away."""
    settings.save(checkpoint.restore(out / checkpoint.BEST)[0], base, out / ADAPTER)
    return out / ADAPTER


def release(out: Path, trained: Trained) -> Path:
    """The run's best model by itself, in 16 bits: a folder to serve, and to give away."""
    ranker, encoder = models.load(out / checkpoint.BEST)
    ranker.save(out / RELEASE, encoder, torch.float16)
    trained.save(out / RELEASE)
    return out / RELEASE


def prepared(config: TrainConfig, taught: Sequence[Taught | ABSurface], *, fresh: bool) -> Trainer:
    """A trainer: resumed from the run's last checkpoint, started from a model folder, or new."""
    group = Processes.here()
    with group.in_turn():
        if fresh and group.first:
            forget(config.out)
        _check_same(config)
    if checkpoint.exists(config.out / checkpoint.LAST):
        trainer = Trainer.resume(config.training, config.out)
        if config.adapter:
            check_base(trainer.ranker, Path(config.model))
        return trainer
    if Path(config.model).is_dir():
        ranker, encoder = models.load(Path(config.model))
        if config.adapter:
            config.adapter.attach(ranker, config.training.seed)
    else:
        described = ModelConfig.load(config.model)
        encoder = new_encoder(config, taught, described.vocab_size)
        ranker = new_model(described, encoder, config.training.seed)
    return Trainer(ranker, encoder, config.training, config.out)


def new_encoder(config: TrainConfig, taught: Sequence[Taught | ABSurface], vocab_size: int) -> TextEncoder:
    """A tokenizer of the words of what is learned from."""
    said = (text for each in taught if each.learn for text in (*each.texts(), *repeated(each.spec, config)))
    return TextEncoder(tokenizer.train(said, vocab_size))


def new_model(described: ModelConfig, encoder: TextEncoder, seed: int) -> models.Ranker:
    """Random weights, and as many words as the tokenizer has."""
    return models.build(described.model_copy(update={"vocab_size": len(encoder.tokenizer)}), seed)


def forget(out: Path) -> None:
    """Removes a run, but for its log."""
    for name in (checkpoint.LAST, checkpoint.BEST, RELEASE, ADAPTER):
        shutil.rmtree(out / name, ignore_errors=True)
    (out / CONFIG_FILE).unlink(missing_ok=True)


def _check_same(config: TrainConfig) -> None:
    """A run goes on only as it began: other data or another seed would mix what is held out with what is learned."""
    told = config.model_dump(mode="json", exclude={"update"})
    path, plain = config.out / CONFIG_FILE, config.model_copy(update={"update": UpdateSettings()})
    if path.is_file() and _begun_with(path) != plain:
        raise ConfigError(f"{config.out} holds a run of another configuration: use --fresh, or name another 'out'")
    config.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=1), encoding="utf-8")


def _begun_with(path: Path) -> TrainConfig | None:
    """What a run was started with; None where that is no configuration any more: its model may be gone."""
    try:
        return TrainConfig.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError:
        return None


def repeated(spec: SurfaceSpec, config: TrainConfig) -> Iterator[str]:
    """Short texts that every tree of a surface holds, so often that a tokenizer makes single tokens of their words."""
    said = [piece.text for piece in stem_pieces(spec)] + evidence.vocabulary()
    said += [f"{asked}\n" for asked in config.examples.instructions.get(spec.surface, ())]
    said += [f" {word}" for words in config.examples.words.values() for word in words]
    said += [f" {word}" for word in (*spec.answers, YES, NO, NONE)]
    for _ in range(500):
        yield from said


def _mean(values: Sequence[float] | npt.NDArray[np.float64]) -> float:
    return round(float(np.mean(values)), 4)
