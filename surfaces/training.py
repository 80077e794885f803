"""`prismrank train`: from a configuration to a checkpoint.

Reads the ledger, learns a tokenizer from its texts, and hands labelled trees to `foundation.training`. What validates
is the NDCG@10 of the event before the last over the whole catalogue; the last event is never looked at.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from foundation import model as models
from foundation import tokenizer
from foundation.config import ModelConfig, explain, find_config, read_yaml
from foundation.engine.torch import TorchEngine
from foundation.tokenizer import TextEncoder
from foundation.training import checkpoint
from foundation.training.progress import TrainingProgress
from foundation.training.settings import TrainSettings
from foundation.training.trainer import Trainer, Watcher
from prompts.errors import ConfigError
from prompts.verbalize import Happening, TrunkForm, event_piece, profile_piece
from surfaces import evidence
from surfaces.compose import leaf_piece, stem_pieces
from surfaces.evaluation.foundation import FoundationMethod
from surfaces.evaluation.protocols import leave_one_out, validation_of
from surfaces.evaluation.run import rank
from surfaces.examples import Examples, ExampleSettings
from surfaces.happenings import attributes_of
from surfaces.heads.base import NO, NONE, YES
from surfaces.ledger.store import Ledger
from surfaces.ledger.tables import import_tables
from surfaces.registry import Registry
from surfaces.spec import SurfaceSpec
from surfaces.worlds.movielens import load_movielens

MOVIELENS = "movielens-100k"
LOG_FILE = "log.jsonl"
RELEASE = "model"
CONFIG_FILE = "config.json"


class ValidationSettings(BaseModel):
    """Who validates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    members: int = Field(200, ge=1)
    seed: int = 1


class TrainConfig(BaseModel):
    """A file of `configs/train`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="A model configuration's name or file, or a model folder to go on from.")
    surface: str
    dataset: str | None = None
    ledger: str | None = None
    out: Path
    examples: ExampleSettings
    training: TrainSettings
    validation: ValidationSettings = ValidationSettings()

    @classmethod
    def load(cls, name: str | Path) -> TrainConfig:
        """From a shipped name ("movies") or a path. Raises ConfigError."""
        path = find_config("train", name)
        try:
            config = cls.model_validate(read_yaml(path))
        except ValidationError as error:
            raise ConfigError(explain(path, error)) from None
        if (config.dataset is None) == (config.ledger is None):
            raise ConfigError(f"{path}: give either 'dataset' or 'ledger'")
        return config


def run(name: str | Path, *, fresh: bool = False) -> Path:
    """Train as the configuration says; a run that was stopped goes on unless `fresh`. Returns the model folder.

    Raises ConfigError, LedgerError or CheckpointError.
    """
    config = TrainConfig.load(name)
    registry = Registry.shipped()
    spec = registry.surface(config.surface)
    form = registry.trunk(spec.trunk)
    with opened_ledger(config) as ledger:
        trainer = prepared(config, spec, form, ledger, fresh=fresh)
        engine = TorchEngine(trainer.ranker, trainer.encoder)
        data = Examples(
            spec, form, ledger, engine, config.examples,
            trees_per_step=config.training.trees_per_step, seed=config.training.seed,
        )  # fmt: skip
        who = config.validation
        split = validation_of(leave_one_out(ledger, spec), ledger, spec, members=who.members, seed=who.seed)

        def validate(ranker: models.Ranker) -> float:
            method = FoundationMethod(spec, form, ledger, TorchEngine(ranker, trainer.encoder), split.train)
            return float(rank(split, [method], ledger)[method.name].values("ndcg@10").mean())

        with TrainingProgress(config.training.steps, config.out / LOG_FILE) as progress:
            trainer.fit(data, Watcher(progress.step, progress.validation, validate))
    return release(config.out)


def release(out: Path) -> Path:
    """The run's best model by itself, in 16 bits: a folder to serve, and to give away."""
    ranker, encoder = models.load(out / checkpoint.BEST)
    ranker.save(out / RELEASE, encoder, torch.float16)
    return out / RELEASE


@contextmanager
def opened_ledger(config: TrainConfig) -> Iterator[Ledger]:
    """The configuration's ledger, or its data set in a ledger of the run's own."""
    if config.ledger is not None:
        with Ledger.open(config.ledger, create=False) as ledger:
            yield ledger
        return
    if config.dataset != MOVIELENS:
        raise ConfigError(f"dataset: '{config.dataset}' is not known; there is '{MOVIELENS}'")
    config.out.mkdir(parents=True, exist_ok=True)
    with Ledger.open(f"sqlite:///{config.out / 'ledger.sqlite'}") as ledger:
        if not ledger.counts().events:
            import_tables(load_movielens(), ledger)
        yield ledger


def prepared(config: TrainConfig, spec: SurfaceSpec, form: TrunkForm, ledger: Ledger, *, fresh: bool) -> Trainer:
    """A trainer: resumed from the run's last checkpoint, started from a model folder, or new."""
    if fresh:
        for name in (checkpoint.LAST, checkpoint.BEST, RELEASE):
            shutil.rmtree(config.out / name, ignore_errors=True)
        (config.out / CONFIG_FILE).unlink(missing_ok=True)
    _check_same(config)
    if checkpoint.exists(config.out / checkpoint.LAST):
        return Trainer.resume(config.training, config.out)
    if Path(config.model).is_dir():
        ranker, encoder = models.load(Path(config.model))
    else:
        described = ModelConfig.load(config.model)
        encoder = TextEncoder(tokenizer.train(texts(spec, form, ledger), described.vocab_size))
        size = len(encoder.tokenizer)
        ranker = models.build(described.model_copy(update={"vocab_size": size}), config.training.seed)
    return Trainer(ranker, encoder, config.training, config.out)


def _check_same(config: TrainConfig) -> None:
    """A run goes on only as it began: other data or another seed would mix what is held out with what is learned."""
    told = config.model_dump(mode="json")
    path = config.out / CONFIG_FILE
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != told:
        raise ConfigError(f"{config.out} holds a run of another configuration: use --fresh, or name another 'out'")
    config.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=1), encoding="utf-8")


def texts(spec: SurfaceSpec, form: TrunkForm, ledger: Ledger) -> Iterator[str]:
    """What the tokenizer learns from: members, items and events in the surface's words, and the words themselves.

    Short texts that every tree holds are repeated, for their words to become single tokens.
    """
    for member in ledger.all_members():
        yield profile_piece(form, member.profile).text
    for item in ledger.all_items(spec.item_kind):
        attributes = attributes_of(item)
        yield leaf_piece(spec, attributes).text
        for action in form.actions:
            yield event_piece(form, Happening(item.kind, action, attributes), compress=False).text
    repeated = [piece.text for piece in stem_pieces(spec)] + evidence.vocabulary()
    repeated += [f" {word}" for word in (*spec.answers, YES, NO, NONE)]
    for _ in range(500):
        yield from repeated
