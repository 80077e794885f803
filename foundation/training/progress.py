"""What a run shows: a bar for people, a line a hundred steps where nobody watches, and a log for figures."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from foundation.training.trainer import StepReport

EVERY = 100
"""Steps between two lines of the log."""


class TrainingProgress:
    """Use as a context; `step` and `validation` are a `Watcher`'s ears."""

    def __init__(self, steps: int, log: Path) -> None:
        self._recent: deque[StepReport] = deque(maxlen=EVERY)
        self._log = log
        self._console = Console(stderr=True)
        columns = (
            TextColumn("training"), BarColumn(), MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[rate]:,.0f} leaves/s"), TimeRemainingColumn(),
        )  # fmt: skip
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("training", total=steps, loss=0.0, rate=0.0)

    def __enter__(self) -> TrainingProgress:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, report: StepReport) -> None:
        """Moves the bar."""
        self._recent.append(report)
        loss = float(report.losses.listwise.detach())
        self._bar.update(self._task, completed=report.step + 1, loss=loss, rate=report.leaves / report.seconds)
        if (report.step + 1) % EVERY == 0:
            self._write(self._means(report.step + 1))

    def validation(self, step: int, value: float) -> None:
        """Notes a validation's NDCG@10."""
        self._write({"step": step, "validation_ndcg@10": round(value, 4)})

    def figures(self, step: int, found: Mapping[str, float]) -> None:
        """Notes further figures of a validation."""
        self._write({"step": step, **found})

    def _means(self, step: int) -> dict[str, float]:
        seconds = sum(report.seconds for report in self._recent)
        names = self._recent[0].losses._fields
        means = {
            name: sum(float(getattr(report.losses, name).detach()) for report in self._recent) / len(self._recent)
            for name in names
        }
        leaves = sum(report.leaves for report in self._recent)
        rounded = {name: round(mean, 4) for name, mean in means.items()}
        return {"step": step, **rounded, "leaves_per_s": round(leaves / seconds), "seconds": round(seconds, 1)}

    def _write(self, line: dict[str, float]) -> None:
        text = json.dumps(line)
        with self._log.open("a", encoding="utf-8") as log:
            log.write(text + "\n")
        self._console.print(text, highlight=False, soft_wrap=True)
