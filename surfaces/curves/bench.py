"""`prismrank bench curves`: how the quality of a ranking follows from data, size, history, newness and time.

Every training run takes the same time. A run's checkpoints, and every point that is done, are kept in a folder under
keys of all that they depend on, so that a bench which was stopped goes on there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from foundation.bench.machine import machine
from foundation.engine.heap import keep_freed_memory
from prompts.errors import ConfigError
from prompts.suggest import suggest
from surfaces.curves.axes import AXES, Point
from surfaces.curves.trial import Laboratory, Outcome, Step
from surfaces.evaluation.bootstrap import intervals
from surfaces.evaluation.foundation import FoundationMethod
from surfaces.evaluation.results import code_version, kept, key_of
from surfaces.evaluation.run import Keeping, rank
from surfaces.examples.data import DataSpec
from surfaces.training.run import TrainConfig, ValidationSettings, lessons

FIGURES = ("ndcg@10", "hr@10", "auc")
VALIDATION = ValidationSettings(members=200, candidates=100)
NETWORK = ("feed", "jobs", "people", "ads")

Tell = Callable[[str], None]
"""Called with a line that a reader should see before the work starts."""
Found = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What is measured: axes by name, on `warm` data, on `unseen` those about surfaces that were never seen.

    `validation` of either says which members are asked, among how many candidates. A training run takes `minutes`.
    `evidence`: see `Laboratory`.
    """

    axes: tuple[str, ...]
    warm: TrainConfig
    unseen: TrainConfig
    minutes: float
    out: Path
    evidence: bool = True

    def __post_init__(self) -> None:
        """Raises ConfigError for an axis that is none."""
        for name in self.axes:
            if name not in AXES:
                raise ConfigError(
                    f"--axes: no axis is called '{name}'{suggest(name, AXES)}; there are {', '.join(AXES)}"
                )
        if not self.axes or len(set(self.axes)) < len(self.axes):
            raise ConfigError("--axes: name one axis or more, each once")


def shipped(
    axes: Sequence[str], *, dataset: str, world: str, members: int, minutes: float, out: Path, evidence: bool
) -> Asked:
    """The shipped configurations' settings, on a data set and on a world of so many members."""
    warm, unseen = TrainConfig.load("movies"), TrainConfig.load("foundation")
    films = DataSpec.model_validate({"dataset": dataset, "surfaces": ("movies",)})
    network = DataSpec.model_validate({"world": world, "members": members, "seed": 11, "surfaces": NETWORK})
    return Asked(tuple(axes), _on(warm, films, out), _on(unseen, network, out), minutes, out, evidence)


def _on(config: TrainConfig, data: DataSpec, out: Path) -> TrainConfig:
    training = config.training.model_copy(update={"threads": torch.get_num_threads()})
    changed = {"data": (data,), "out": out, "training": training, "validation": VALIDATION}
    return config.model_copy(update=changed)


def run(asked: Asked, tell: Tell = lambda _: None, step: Step = lambda *_: None) -> Found:
    """Every axis that is asked for, as JSON can hold it: see `to_tables`, and `picture.draw`.

    Raises ConfigError, LedgerError.
    """
    keep_freed_memory()
    version = code_version()
    with ExitStack() as stack:
        labs = {
            unseen: Laboratory(
                config, stack.enter_context(lessons(config)), asked.minutes, version, step, asked.evidence
            )
            for unseen, config in ((False, asked.warm), (True, asked.unseen))
            if any(AXES[name].unseen == unseen for name in asked.axes)
        }
        planned = {name: list(AXES[name].points(labs[AXES[name].unseen])) for name in asked.axes}
        _foretell(asked, labs, planned, tell)
        found = {name: _axis(name, labs[AXES[name].unseen], points, asked) for name, points in planned.items()}
    about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), "code": version}
    return {**about, "minutes": asked.minutes, "evidence": asked.evidence, "axes": found}


def _foretell(
    asked: Asked, labs: Mapping[bool, Laboratory], planned: Mapping[str, Sequence[Point]], tell: Tell
) -> None:
    """Says what the bench takes, less what is done."""
    left = [(AXES[name].unseen, point) for name, points in planned.items() for point in points
            if not _path(asked, labs[AXES[name].unseen], point).is_file()]  # fmt: skip
    runs = len({(unseen, point.trial) for unseen, point in left})
    rankings = sum(len(point.split.cases) for _, point in left)
    tell(
        f"{runs} training runs of {asked.minutes:g} minutes, {runs * asked.minutes:g} minutes in all, and "
        f"{rankings:,} rankings after them; what is done is kept in {asked.out}"
    )


def _axis(name: str, lab: Laboratory, points: Sequence[Point], asked: Asked) -> Found:
    """The points in their order; a model that several of them ask is loaded once, one at a time is in memory."""
    axis, learned = AXES[name], lru_cache(1)(lab.learned)
    order = sorted(range(len(points)), key=lambda place: points[place].trial.name)
    found = {place: _point(lab, points[place], asked, learned) for place in order}
    note = lab.taught[0].ledger.note
    return {
        "title": axis.title,
        "unit": axis.unit,
        **({"note": note} if note else {}),
        "points": [found[place] for place in range(len(points))],
    }


def _point(lab: Laboratory, point: Point, asked: Asked, learned: Callable[..., Outcome]) -> Found:
    path = _path(asked, lab, point)
    told = kept(path, path.stem, lambda: _measured(lab, point, learned(point.trial), asked))
    x = told["parameters"] if point.x is None else point.x
    return {"x": x, "label": point.label, **({"series": point.series} if point.series else {}), **told}


def _path(asked: Asked, lab: Laboratory, point: Point) -> Path:
    key = key_of(lab.key(point.trial), point.surface, point.split.digest)
    return asked.out / "points" / f"{key}.json"


def _measured(lab: Laboratory, point: Point, outcome: Outcome, asked: Asked) -> Found:
    """The model's figures on the cases, with intervals over members, and what the run was."""
    taught = next(each for each in outcome.taught if each.spec.surface == point.surface)
    method = FoundationMethod(taught.spec, taught.form, taught.ledger, outcome.engine, point.split.train)
    keeping = Keeping(asked.out / "rankings", {method.name: lab.key(point.trial)})
    progress = partial(lab.step, f"ranking: {point.label}")
    results = rank(point.split, [method], taught.ledger, keeping=keeping, progress=progress)[method.name]
    values_MF = np.stack([results.values(name) for name in FIGURES], axis=1)
    pace = outcome.pace
    return {
        "surface": point.surface,
        "members": len(point.split.cases),
        **{name: each._asdict() for name, each in zip(FIGURES, intervals(values_MF), strict=True)},
        "learned_members": pace.members,
        "parameters": pace.parameters,
        "steps": outcome.steps,
        "leaves": round(outcome.steps * pace.leaves),
        "leaves_per_s": round(pace.leaves / pace.seconds, 1),
        "tokens": round(float(results.tokens_M.mean()), 1),
    }


def to_tables(found: Found) -> Iterator[Table]:
    """For a terminal: one table an axis."""
    for axis in found["axes"].values():
        table = Table(title=axis["title"], caption=axis.get("note"))
        for name in ("", "surface", "NDCG@10", "95% interval", "members", "parameters", "leaves learned", "tokens"):
            table.add_column(name, justify="left" if name in ("", "surface") else "right")
        for point in axis["points"]:
            ndcg = point["ndcg@10"]
            table.add_row(
                ", ".join(filter(None, (point["label"], point.get("series")))), point["surface"],
                f"{ndcg['value']:.3f}", f"{ndcg['low']:.3f} to {ndcg['high']:.3f}", str(point["members"]),
                f"{point['parameters']:,}", f"{point['leaves']:,}", f"{point['tokens']:,.0f}",
            )  # fmt: skip
        yield table
