"""Looking at an interleaved experiment all the time, on the simulated network: who finds what, and when.

A fixed-horizon test may be read once, at its end. Read at every look, it finds differences where there are none; the
sequential test does not, and ends early where the difference is larger than what was planned for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from rich.table import Table
from scipy.special import stdtr

from surfaces.experiments.estimators import ALPHA, Estimate, credit_difference
from surfaces.experiments.population import STAGE, Arm, Population, populations
from surfaces.experiments.sequential import START, SequentialTest
from surfaces.experiments.simulate import DRAFTS, REPETITIONS, interleaved_credits, pairs, per_member, planned
from surfaces.worlds.network.arrays import Floats, Ints, generator

LOOKS = 40
CASES = (("none", 0.0), ("as planned", 1.0), ("1.5 times", 1.5), ("twice", 2.0))
"""How large the true difference is, beside the one that the horizon finds with 80% power."""


class Stopping(NamedTuple):
    """One case, over all repetitions."""

    surface: str
    difference: str
    horizon: int
    """Members of the fixed test."""
    fixed: float
    """The share of the repetitions in which the fixed test, read at its end, finds a difference."""
    peeked: float
    """The same for the fixed test read at all looks."""
    sequential: float
    """And for the sequential test."""
    members: float
    """Until the sequential test stops, or the horizon ends it, in the mean."""
    held: float
    """The share of the repetitions whose intervals hold the truth at every look."""


def stopping(members: int, seed: int, surfaces: Sequence[str], *, repetitions: int = REPETITIONS) -> list[Stopping]:
    """All cases on each surface, with the second pair of arms of `compare`; without a difference, an arm beside itself.

    Raises ConfigError for a surface that is not simulated, and whatever `Network` raises.
    """
    rows = []
    for number, population in enumerate(populations(members, seed, surfaces)):
        rng = generator(seed, STAGE + 3, number)
        first, second = pairs(population, rng)[1]
        truth = _truth(population, first, second, rng)
        enough = planned(population, partial(_fixed, population, first, second), truth, rng)
        for name, times in CASES:
            arms, gap = ((first, second), truth) if times else ((first, first), 0.0)
            horizon = max(2 * START, round(enough * max(times, 1.0) ** 2))
            found = [_watched(_gaps(population, *arms, horizon, rng), gap) for _ in range(repetitions)]
            rows.append(_row(population.surface.surface, name, horizon, found))
    return rows


class _Watched(NamedTuple):
    """One repetition."""

    fixed: bool
    peeked: bool
    sequential: bool
    members: int
    held: bool


def _row(surface: str, name: str, horizon: int, found: Sequence[_Watched]) -> Stopping:
    fixed, peeked, sequential, members, held = (float(np.mean(column)) for column in zip(*found, strict=True))
    return Stopping(surface, name, horizon, fixed, peeked, sequential, members, held)


def _watched(gap_M: Floats, truth: float) -> _Watched:
    test, ends = SequentialTest(len(gap_M)), np.linspace(0, len(gap_M), LOOKS + 1).astype(int)
    looks = [test.update(gap_M[start:end]) for start, end in pairwise(ends)]
    stopped = next((look for look in looks if look.stop), None)
    naive = _p_values(gap_M, ends[1:][ends[1:] >= START])
    return _Watched(
        fixed=bool(naive[-1] < ALPHA),
        peeked=bool((naive < ALPHA).any()),
        sequential=stopped is not None,
        members=stopped.n if stopped else len(gap_M),
        held=all(look.low <= truth <= look.high for look in looks),
    )


def _p_values(gap_M: Floats, ends: Ints) -> Floats:
    """Student's, of the first so many members."""
    mean = np.cumsum(gap_M)[ends - 1] / ends
    variance = (np.cumsum(gap_M**2)[ends - 1] - ends * mean**2) / (ends - 1)
    return np.asarray(2 * stdtr(ends - 1, -np.abs(mean) / np.sqrt(np.maximum(variance, 1e-300) / ends)))


def _gaps(population: Population, first: Arm, second: Arm, size: int, rng: np.random.Generator) -> Floats:
    """(size) each member's credit of the first arm less that of the second."""
    drawn = population.draw(size, rng)
    credits = interleaved_credits(population, first, second, drawn.rows_S, rng)
    return per_member(credits[0] - credits[1], drawn)


def _fixed(population: Population, first: Arm, second: Arm, size: int, rng: np.random.Generator) -> Estimate:
    gap_M = _gaps(population, first, second, size, rng)
    return credit_difference(gap_M, np.zeros_like(gap_M), np.arange(size))


def _truth(population: Population, first: Arm, second: Arm, rng: np.random.Generator) -> float:
    """The mean of `_gaps`, over many drafts of all slates."""
    rows_S = np.arange(len(population.truth_SP))
    sums = []
    for _ in range(math.ceil(DRAFTS / len(rows_S))):
        credits = interleaved_credits(population, first, second, rows_S, rng)
        sums.append(float((credits[0] - credits[1]).sum()))
    return float(np.mean(sums)) / len(population.first_M)


def table(rows: Sequence[Stopping]) -> Table:
    """The rows for a terminal."""
    made = Table(title=f"Found at alpha 5% by {LOOKS} looks at interleaved slates, on the simulated network")
    made.add_column("surface")
    made.add_column("difference")
    for name in ("horizon", "fixed test", "fixed, peeked", "sequential", "its members", "of the horizon", "held"):
        made.add_column(name, justify="right")
    for row in rows:
        found = (f"{share:.3f}" for share in (row.fixed, row.peeked, row.sequential))
        size = (f"{row.members:,.0f}", f"{row.members / row.horizon:.2f}", f"{row.held:.3f}")
        made.add_row(row.surface, row.difference, f"{row.horizon:,}", *found, *size)
    return made
