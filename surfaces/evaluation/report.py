"""What an evaluation found: figures of every member, and what is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.table import Table

from surfaces.evaluation.bootstrap import Interval, interval
from surfaces.evaluation.metrics import METRICS
from surfaces.evaluation.splits import Held

Values = npt.NDArray[np.float64]

SEGMENTS = (("history: up to 20 events", 0, 20), ("history: 21 to 100", 21, 100), ("history: over 100", 101, 10**9))
"""Members by the length of their history: name, shortest, longest."""


@dataclass(frozen=True, slots=True)
class Report:
    """Figures by method, metric and member. The first method is the one that the others are compared with.

    `candidates` is how many items each member's target stood among; None is the full catalogue without seen items.
    """

    surface: str
    protocol: str
    held: Held
    candidates: int | None
    histories_M: npt.NDArray[np.int64]
    values: Mapping[str, Mapping[str, Values]]

    @property
    def subject(self) -> str:
        """The method that is compared with the others."""
        return next(iter(self.values))

    def figure(self, method: str, metric: str) -> Interval:
        """The mean over members, with its 95% interval."""
        return interval(self.values[method][metric])

    def difference(self, other: str, metric: str) -> Interval:
        """How much the first method is above `other`, member by member, with the 95% interval of the mean."""
        return interval(self.values[self.subject][metric] - self.values[other][metric])

    def to_json(self) -> dict[str, object]:
        """The report as JSON can hold it; `differences` are those of the first method from each other one."""
        others = [name for name in self.values if name != self.subject]
        return {
            "surface": self.surface,
            "protocol": self.protocol,
            "held": self.held,
            "candidates": self.candidates,
            "members": len(self.histories_M),
            "methods": {name: {key: self.figure(name, key)._asdict() for key in METRICS} for name in self.values},
            "subject": self.subject,
            "differences": {name: {key: self.difference(name, key)._asdict() for key in METRICS} for name in others},
            "segments": self._segments(),
        }

    def _segments(self) -> dict[str, object]:
        """By segment that has members: how many, and every method's figures."""
        told: dict[str, object] = {}
        for name, shortest, longest in SEGMENTS:
            inside_M = (self.histories_M >= shortest) & (self.histories_M <= longest)
            if inside_M.any():
                figures = {
                    method: {key: interval(values[inside_M])._asdict() for key, values in by_metric.items()}
                    for method, by_metric in self.values.items()
                }
                told[name] = {"members": int(inside_M.sum()), "methods": figures}
        return told

    def to_table(self) -> Table:
        """The report for a terminal: a row a method, a column a metric."""
        among = "the full catalogue" if self.candidates is None else f"{self.candidates} candidates"
        table = Table(title=f"{self.surface}: {self.protocol}, {len(self.histories_M)} members, {among}")
        table.add_column("method")
        for metric in METRICS:
            table.add_column(metric, justify="right")
        table.add_column(f"{self.subject} is above by (ndcg@10)", justify="right")
        for method in self.values:
            figures = [_shown(self.figure(method, metric)) for metric in METRICS]
            above = "" if method == self.subject else _shown(self.difference(method, "ndcg@10"), "+")
            table.add_row(method, *figures, above)
        return table


def _shown(found: Interval, sign: str = "") -> str:
    return f"{found.value:{sign}.3f} \\[{found.low:{sign}.3f}, {found.high:{sign}.3f}]"
