"""What is read off a load, off a server's `/metrics`, and off its memory."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from serve.bench.load import NONE, Load, Sample

WAY_S = 0.05
"""What a reply may take beyond its deadline: the way there and back, on a machine that does other things too."""
LATE_S = 0.05
"""A generator that sends one request in a hundred later than this has not kept up."""
LINE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$")

Row = dict[str, float | str]
"""The figures of a run, by name."""


class Bound(NamedTuple):
    """A promise, what was measured of it, and how much is allowed: at most, or at least."""

    what: str
    measured: float
    allowed: float
    at_least: bool = False

    @property
    def kept(self) -> bool:
        """Whether the measured is within what is allowed."""
        return self.measured >= self.allowed if self.at_least else self.measured <= self.allowed


class Found(NamedTuple):
    """What a scenario found: rows of figures under a title, and the promises that they speak of."""

    title: str
    rows: Sequence[Row]
    bounds: Sequence[Bound] = ()


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that `share` of the values do not exceed (nearest rank); NaN of none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """What `y` gains for one of `x`, by least squares; 0 for fewer than two points."""
    if len(set(x)) < 2:
        return 0.0
    return float(np.polyfit(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), 1)[0])


def read(load: Load, deadline_s: float) -> Row:
    """Rates a second, milliseconds, and shares (0 to 1) of a load.

    `goodput` counts replies in time that the model made; `sent_late_p99_ms` is how late the generator sent.
    """
    samples, seconds = load.samples, load.seconds
    took = [1000 * sample.took for sample in samples if sample.status != NONE]
    late = percentile([sample.sent - sample.due for sample in samples], 0.99)
    in_time = [sample for sample in samples if sample.good and sample.took <= deadline_s + WAY_S]
    return {
        "requests": len(samples),
        "offered_per_s": len(samples) / seconds,
        "replies_per_s": sum(sample.status != NONE and sample.done <= seconds for sample in samples) / seconds,
        "goodput_per_s": len(in_time) / seconds,
        **{f"p{name}_ms": percentile(took, share) for name, share in ((50, 0.5), (90, 0.9), (99, 0.99))},
        "sent_late_p99_ms": 1000 * late,
        "kept_up": "no" if late > LATE_S else "yes",
    }


def degraded(load: Load) -> Row:
    """The share of degraded slates, and of each reason."""
    reasons = Counter(sample.reason for sample in load.samples if sample.reason)
    shares = {f"degraded_{reason}": reasons[reason] for reason in ("deadline", "capacity", "engine")}
    return {name: count / max(1, len(load.samples)) for name, count in {"degraded": reasons.total(), **shares}.items()}


def statuses(samples: Sequence[Sample]) -> str:
    """How often each status came, as text; `none` is no reply."""
    counted = sorted(Counter(sample.status for sample in samples).items())
    return ", ".join(f"{status or 'none'}: {count}" for status, count in counted)


def errors(load: Load) -> int:
    """Requests without a reply, and replies of 5xx other than 503."""
    return sum(sample.status == NONE or (sample.status >= 500 and sample.status != 503) for sample in load.samples)


def parsed(metrics: str) -> dict[str, float]:
    """Prometheus' text format as values by name, each name's labels summed."""
    found: dict[str, float] = {}
    for line in metrics.splitlines():
        if match := LINE.match(line):
            found[match[1]] = found.get(match[1], 0.0) + float(match[3])
    return found


def between(before: Mapping[str, float], after: Mapping[str, float]) -> Row:
    """Of the forwards between two readings: trees and time of a batch, share of cached slots that were there."""

    def gained(name: str) -> float:
        return after.get(f"prismrank_{name}", 0.0) - before.get(f"prismrank_{name}", 0.0)

    hits, missed = gained("cache_hit_slots_total"), gained("cache_missed_slots_total")
    forwards = gained("forward_seconds_count")
    return {
        "batch_trees": gained("batch_trees_sum") / max(1.0, gained("batch_trees_count")),
        "batch_ms": 1000 * gained("forward_seconds_sum") / max(1.0, forwards),
        "cache_hit": hits / max(1.0, hits + missed),
    }
