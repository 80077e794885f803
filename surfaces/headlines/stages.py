"""`prismrank bench headlines`: teachers and preferences on A/B tests that nothing was learned from.

Each seed holds out other tests and draws other models. A stage is a training run of its own in the bench's folder, so
what was stopped goes on, and what is finished is not done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from rich.table import Table

from foundation.config import ModelConfig
from foundation.engine.torch import TorchEngine
from foundation.minilm import embedded
from prompts.errors import ConfigError
from surfaces.examples.ab_tests import ABTest, Columns, Floats, SplitTests
from surfaces.examples.ab_trees import scored
from surfaces.headlines import linear
from surfaces.headlines.report import Figure, Judged, differences, figures, table
from surfaces.registry import Registry
from surfaces.training import run as training

SURFACE = "headlines"
HELD_OUT = 0.3
STEPS = 150
EXAMPLES = {"positions": 4}
TRAINING = {
    "trees_per_step": 4, "learning_rate": 0.001, "warmup": 20, "weight_decay": 0.3, "threads": 1,
    "validate_every": 25, "checkpoint_every": 50,
}  # fmt: skip
SMALL = {"vocab_size": 2048, "compressor": False}
"""The nano, with words enough for a few thousand headlines."""
SMALLER = {"vocab_size": 1024, "compressor": False, "hidden_size": 48, "layers": 1, "experts": 4, "expert_size": 96}
"""The student: a tenth of its teacher."""

Step = Callable[[str], None]


class Stage(NamedTuple):
    """One training run of a seed, and the minutes that it took on one core with about 800 tests to learn from."""

    name: str
    minutes: float
    model: str
    training: Mapping[str, object]
    teacher: str = ""
    share: float = 1.0
    """Of the steps that are asked for."""


STAGES = (
    Stage("sft", 0.7, "nano", {}),
    Stage("student", 0.3, "student", {"learning_rate": 0.002}),
    Stage("distilled", 0.5, "student", {"learning_rate": 0.002, "loss": {"distill": 1.0, "distill_temperature": 1.0}},
          teacher="sft"),
    Stage("dpo", 0.5, "sft", {"learning_rate": 0.0003, "warmup": 5,
                              "loss": {"listwise": 0.0, "preference": 1.0, "preference_beta": 0.1}}, share=0.5),
)  # fmt: skip
EMBEDDING_MINUTES = 1.0


class Measured(NamedTuple):
    """What came out: how many tests the first seed has in each part, figures by method, and paired differences."""

    seeds: int
    parts: dict[str, int]
    methods: dict[str, dict[str, Figure]]
    differences: dict[str, dict[str, Figure]]

    def to_json(self) -> dict[str, object]:
        """As JSON can hold it."""
        told = {
            name: {method: {key: figure.to_json() for key, figure in each.items()} for method, each in rows.items()}
            for name, rows in (("methods", self.methods), ("differences", self.differences))
        }
        return {"seeds": self.seeds, "parts": self.parts, **told}

    def to_tables(self) -> list[Table]:
        """For a terminal."""
        return [table("method", self.methods), table("difference, test by test", self.differences)]


def budget(seeds: int, steps: int) -> str:
    """How long it takes, told before it begins."""
    minutes = {stage.name: stage.minutes * steps / STEPS for stage in STAGES}
    each = ", ".join(f"{name} {need:.2g}" for name, need in minutes.items())
    total = EMBEDDING_MINUTES + seeds * sum(minutes.values())
    return (
        f"minutes on one core, where there are about 800 tests to learn from: text_embedding {EMBEDDING_MINUTES:g}; "
        f"for each of {seeds} seeds {each}; {total:.2g} in all"
    )


def columns_of(names: str) -> Columns:
    """From "test=NAME,text=NAME" to the columns of a table. Raises ConfigError."""
    pairs = [pair.strip().partition("=") for pair in names.split(",") if pair.strip()]
    wrong = next(("".join(pair) for pair in pairs if pair[0] not in Columns.model_fields or not pair[2]), None)
    if wrong is not None:
        raise ConfigError(f"columns: '{wrong}' is no KEY=NAME; the keys are {', '.join(Columns.model_fields)}")
    return Columns(**{key: name for key, _, name in pairs})


@dataclass(frozen=True)
class Bench:
    """The tests of a file, a folder for all runs on them, and the steps of a run."""

    tests: Path
    columns: Columns
    out: Path
    steps: int = STEPS

    def measure(self, seeds: int, step: Step) -> Measured:
        """All methods. Raises ConfigError, LedgerError, DownloadError, TrainingError."""
        found: dict[str, list[Judged]] = {}
        splits = [self._split(seed) for seed in range(seeds)]
        for seed, split in enumerate(splits):
            for method, scores in self._seed(seed, split, step):
                judged = map(Judged, split.held_out, scores)
                found.setdefault(method, []).extend(judged)
        parts = {name: len(getattr(splits[0], name)) for name in ("learned", "validating", "held_out")}
        return Measured(seeds, parts, figures(found), differences(found))

    def _split(self, seed: int) -> SplitTests:
        return SplitTests.read(self.tests, self.columns, held_out=HELD_OUT, seed=seed)

    def _seed(self, seed: int, split: SplitTests, step: Step) -> Iterator[tuple[str, Sequence[Floats]]]:
        """By method, scores of the held-out tests."""
        yield "random", [np.zeros(len(test.texts)) for test in split.held_out]
        step("text_embedding")
        yield from _baselines(split)
        for stage in STAGES:
            step(f"seed {seed}: {stage.name}")
            yield stage.name, _scores(training.run(self.configuration(stage, seed)), split.held_out)

    def configuration(self, stage: Stage, seed: int) -> Path:
        """The stage as a file that `prismrank train` takes, too."""
        folder = self.out / f"seed-{seed}"
        models = {"nano": self._model("nano", SMALL), "student": self._model("student", SMALLER)}
        columns = self.columns.model_dump(exclude_unset=True)
        content: dict[str, Any] = {
            "model": str(models.get(stage.model, folder / stage.model / training.RELEASE)),
            "data": [{"tests": str(self.tests), "columns": columns, "held_out": HELD_OUT, "seed": seed,
                      "surfaces": [SURFACE]}],
            "out": str(folder / stage.name),
            "examples": EXAMPLES,
            "training": {"steps": max(1, round(stage.share * self.steps)), **TRAINING, **stage.training, "seed": seed},
        }  # fmt: skip
        if stage.teacher:
            content["teacher"] = str(folder / stage.teacher / training.RELEASE)
        return _written(folder / f"{stage.name}.yaml", content)

    def _model(self, name: str, changes: Mapping[str, object]) -> Path:
        described = ModelConfig.load("nano").model_copy(update=dict(changes))
        return _written(self.out / f"{name}.yaml", described.model_dump())


def _written(path: Path, content: Mapping[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False), encoding="utf-8")
    return path


def _baselines(split: SplitTests) -> Iterator[tuple[str, Sequence[Floats]]]:
    """A line through all-MiniLM-L6-v2's vectors: fitted to each text's clicks, and to pairs of texts."""
    every = (*split.learned, *split.validating, *split.held_out)
    texts = sorted({text for test in every for text in test.texts})
    vectors = dict(zip(texts, embedded(texts), strict=True))
    for name, rows in (("text_embedding", linear.pointwise_rows), ("text_embedding_pairs", linear.pairwise_rows)):
        line_D = linear.best_of(rows(split.learned, vectors), split.validating, vectors)
        yield name, linear.scores(split.held_out, vectors, line_D)


def _scores(folder: Path, tests: Sequence[ABTest]) -> Sequence[Floats]:
    registry = Registry.shipped()
    spec = registry.surface(SURFACE)
    return scored(spec, registry.trunk(spec.trunk), TorchEngine.load(folder), tests)
