"""How often each way to rank picks the text that won its A/B test, with intervals over tests.

Legend of array names: K texts of a test, T tests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from rich.table import Column, Table

from surfaces.evaluation.bootstrap import Interval, interval
from surfaces.examples.ab_tests import ABTest, Floats
from surfaces.examples.ab_trees import won

AGAINST = (("distilled", "student"), ("dpo", "sft"), ("sft", "text_embedding_pairs"))
"""Methods that are compared test by test."""


class Judged(NamedTuple):
    """A test that nothing was learned from, and what a method says of its texts."""

    test: ABTest
    scores_K: Floats


Found = Mapping[str, Sequence[Judged]]
"""By method, every held-out test once for each seed that held it out."""


class Figure(NamedTuple):
    """A mean over tests, from so many of them."""

    interval: Interval
    tests: int

    def to_json(self) -> dict[str, float]:
        """As JSON can hold it."""
        return {**{name: round(value, 4) for name, value in self.interval._asdict().items()}, "tests": self.tests}


def won_clear(test: ABTest, scores_K: Floats) -> float | None:
    """`won` of a test whose best text is significantly better than every other, else None."""
    return won(test, scores_K) if test.clear else None


def pairs_right(test: ABTest, scores_K: Floats) -> float | None:
    """Of the pairs whose rates differ significantly, the share that is in the right order; equal scores are half."""
    pairs = [pair for pair in combinations(range(len(test.texts)), 2) if test.significant(*pair)]
    gaps = [np.sign(test.rates_K[a] - test.rates_K[b]) * np.sign(scores_K[a] - scores_K[b]) for a, b in pairs]
    return float(np.mean(gaps) + 1) / 2 if gaps else None


FIGURES: Mapping[str, Callable[[ABTest, Floats], float | None]] = {
    "won": won,
    "won_clear": won_clear,
    "pairs": pairs_right,
}


def values(judged: Sequence[Judged], figure: str) -> dict[str, float]:
    """By test, the mean over the seeds that held it out; tests that the figure is not about are left out."""
    found: dict[str, list[float]] = defaultdict(list)
    for test, scores_K in judged:
        value = FIGURES[figure](test, scores_K)
        if value is not None:
            found[test.test_id].append(value)
    return {test_id: float(np.mean(each)) for test_id, each in found.items()}


def figures(found: Found) -> dict[str, dict[str, Figure]]:
    """By method, every figure that some test is about."""
    return {method: _means(_values(judged)) for method, judged in found.items()}


def differences(found: Found) -> dict[str, dict[str, Figure]]:
    """By "one - other", the paired differences of methods that are to be compared."""
    known = {method: _values(judged) for method, judged in found.items()}
    return {
        f"{one} - {other}": _means({name: _gaps(known[one][name], known[other][name]) for name in FIGURES})
        for one, other in AGAINST
        if one in known and other in known
    }


def _values(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    return {name: values(judged, name) for name in FIGURES}


def _gaps(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, float]:
    return {test_id: value - theirs[test_id] for test_id, value in ours.items()}


def _means(by_figure: Mapping[str, Mapping[str, float]]) -> dict[str, Figure]:
    told = {name: np.array(list(each.values())) for name, each in by_figure.items()}
    return {name: Figure(interval(values_T), len(values_T)) for name, values_T in told.items() if len(values_T)}


def table(title: str, rows: Mapping[str, Mapping[str, Figure]]) -> Table:
    """For a terminal."""
    first = next(iter(rows.values()), {})
    heads = [f"{name} ({figure.tests} tests)" for name, figure in first.items()]
    drawn = Table(title, *(Column(head, justify="right") for head in heads))
    for method, told in rows.items():
        drawn.add_row(method, *(f"{v:.3f} [{low:.3f}, {high:.3f}]" for (v, low, high), _ in told.values()))
    return drawn
