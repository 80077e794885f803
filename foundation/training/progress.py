"""What a run shows: a bar for people, a line a hundred steps where nobody watches, a log and TensorBoard for figures.

The log has a JSON object for each step and one for each validation; `step` counts the steps done. What a killed run
wrote after its last checkpoint goes when it is resumed, as those steps are taken again.
Shapes: M layers with experts, E experts.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from foundation.training.trainer import StepReport

EVERY = 100
"""Steps between two lines for people."""

BOARD = "tensorboard"
Line = dict[str, float | list[float]]


class TrainingProgress:
    """Use as a context; `step` and `validation` are a `Watcher`'s ears."""

    def __init__(self, steps: int, log: Path) -> None:
        self._steps, self._log = steps, log
        self._recent: deque[Line] = deque(maxlen=EVERY)
        self._moments: deque[float] = deque(maxlen=EVERY)
        self._board: Any = None
        self._console = Console(stderr=True)
        columns = (
            TextColumn("training"), BarColumn(), MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[rate]:,.0f} leaves/s"), TimeRemainingColumn(),
        )  # fmt: skip
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("training", total=steps, loss=0.0, rate=0.0)

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._board is not None:
            self._board.close()

    def step(self, report: StepReport) -> None:
        """Moves the bar and notes the step's figures."""
        if not self._moments:
            self._open(report)
        self._moments.append(time.monotonic())
        line = figures(report) | {"eta_s": round(self._remaining(report.step + 1), 1)}
        self._recent.append(line)
        self._bar.update(self._task, completed=report.step + 1, loss=line["listwise"], rate=line["leaves_per_s"])
        self._write(line)
        if (report.step + 1) % EVERY == 0:
            self._say(self._means(report.step + 1))

    def validation(self, step: int, value: float) -> None:
        """Notes a validation's NDCG@10."""
        line: Line = {"step": step, "validation_ndcg@10": round(value, 4)}
        self._write(line)
        self._say(line)

    def figures(self, step: int, found: Mapping[str, float]) -> None:
        """Notes further figures of a validation."""
        self._write({"step": step, **found})
        self._say({"step": step, **found})

    def _open(self, report: StepReport) -> None:
        """At the first step, which may be the first after a stop."""
        self._moments.append(time.monotonic() - report.seconds)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        cut_log(self._log, report.step)
        if find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            folder = self._log.parent / BOARD
            self._board = SummaryWriter(folder, purge_step=report.step + 1)
        self._bar.reset(self._task, completed=report.step)
        self._bar.start()

    def _remaining(self, done: int) -> float:
        """Seconds to the last step, at the pace of the recent ones and what came between them."""
        pace = (self._moments[-1] - self._moments[0]) / (len(self._moments) - 1)
        return (self._steps - done) * pace

    def _means(self, step: int) -> Line:
        names = [name for name, value in self._recent[0].items() if isinstance(value, float)]
        means = {name: sum(float(str(line[name])) for line in self._recent) / len(self._recent) for name in names}
        means["eta_s"] = float(str(self._recent[-1]["eta_s"]))
        return {"step": step, **{name: round(mean, 4) for name, mean in means.items()}}

    def _write(self, line: Line) -> None:
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        if self._board is not None:
            for tag, value in curves(line).items():
                self._board.add_scalar(tag, value, line["step"])
            self._board.flush()  # a curve has no hole where a run is killed

    def _say(self, line: Line) -> None:
        self._console.print(json.dumps(line), highlight=False, soft_wrap=True)


def figures(report: StepReport) -> Line:
    """A step's line of the log. Of experts, by layer: the least and the largest share of slots, and `evenness`."""
    losses = {name: float(value) for name, value in report.losses._asdict().items()}
    share_ME = report.load_ME / report.load_ME.sum(dim=1, keepdim=True)
    experts = {} if not len(share_ME) else {
        "expert_least": share_ME.min(dim=1).values, "expert_most": share_ME.max(dim=1).values,
        "expert_evenness": evenness(share_ME),
    }  # fmt: skip
    return {
        "step": report.step + 1,
        "loss": report.loss,
        **losses,
        "learning_rate": report.learning_rate,
        "gradient_norm": report.gradient_norm,
        **{name: [round(value, 4) for value in each.tolist()] for name, each in experts.items()},
        "leaves_per_s": round(report.leaves / report.seconds, 1),
        "tokens_per_s": round(report.slots / report.seconds, 1),
        "seconds": round(report.seconds, 4),
    }


def evenness(share_ME: torch.Tensor) -> torch.Tensor:
    """[M]: the entropy of a layer's experts over its largest value; 1 where all are used alike, 0 where one is used."""
    entropy_M: torch.Tensor = torch.special.entr(share_ME).sum(dim=1)
    return entropy_M / math.log(max(2, share_ME.shape[1]))


def curves(line: Mapping[str, float | list[float]]) -> dict[str, float]:
    """TensorBoard's names of a line's figures; what has a value for each layer becomes a curve for each."""
    found: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, list):
            found |= {f"{name}/layer_{layer}": each for layer, each in enumerate(value)}
        elif name != "step":
            found[f"training/{name}"] = value
    return found


def cut_log(log: Path, done: int) -> None:
    """Keeps the lines of the first `done` steps; a line that a kill cut short goes, too."""
    if not log.is_file():
        return
    kept = [line for line in log.read_text(encoding="utf-8").splitlines() if _step(line) <= done]
    fresh = log.with_name(f".{log.name}.new")
    fresh.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    os.replace(fresh, log)


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
