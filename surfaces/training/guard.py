"""Whether a checkpoint may take the place of the one that it was trained on from.

Both rank the same held-out events: the validation split of every surface of the run, or the A/B tests that validate.
Members (or tests) are resampled in pairs, see `surfaces.evaluation.bootstrap`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from foundation.engine.torch import TorchEngine
from prompts.errors import TrainingError
from surfaces.evaluation.bootstrap import Interval, interval
from surfaces.evaluation.foundation import FoundationMethod
from surfaces.evaluation.run import rank
from surfaces.examples.ab_trees import ABSurface, expected_ndcg, scored
from surfaces.training.run import NDCG, Taught


class Compared(NamedTuple):
    """One surface's mean NDCG@10 by both checkpoints; `change` is after less before, by member."""

    surface: str
    before: float
    after: float
    change: Interval

    def __str__(self) -> str:
        low, high = self.change.low, self.change.high
        return f"{self.surface}: NDCG@10 {self.before:.4f}, then {self.after:.4f} (change {low:+.4f} to {high:+.4f})"


def compared(taught: Sequence[Taught | ABSurface], before: TorchEngine, after: TorchEngine) -> list[Compared]:
    """Both checkpoints on every surface's held-out events."""
    return list(_compared(taught, before, after))


def _compared(taught: Sequence[Taught | ABSurface], before: TorchEngine, after: TorchEngine) -> Iterator[Compared]:
    for each in taught:
        before_M, after_M = (_values(each, engine) for engine in (before, after))
        change = interval(after_M - before_M)
        yield Compared(each.spec.surface, float(before_M.mean()), float(after_M.mean()), change)


def _values(taught: Taught | ABSurface, engine: TorchEngine) -> npt.NDArray[np.float64]:
    """[members]: NDCG@10 of each; [tests] for a surface over A/B tests."""
    if isinstance(taught, ABSurface):
        tests = taught.tests.validating[: taught.validating]
        scores = scored(taught.spec, taught.form, engine, tests)
        return np.array([expected_ndcg(*pair) for pair in zip(tests, scores, strict=True)])
    method = FoundationMethod(taught.spec, taught.form, taught.ledger, engine, taught.split.train)
    return rank(taught.split, [method], taught.ledger)[method.name].values(NDCG)


def check(found: Sequence[Compared], tolerance: float) -> None:
    """Raises TrainingError for a surface that is worse beyond chance, and for a mean that is lower than it may be.

    Beyond chance: the whole 95% interval of the change is below zero. `tolerance` is how much the mean NDCG@10 over
    the surfaces may fall.
    """
    worst = min(found, key=lambda each: each.change.value)
    for each in sorted(found, key=lambda each: each.change.value):
        if each.change.high < 0:
            raise TrainingError(f"{_fell(each)}, more than by chance (95%: {-each.change.high:.4f} or more)")
    mean = float(np.mean([each.change.value for each in found]))
    if mean < -tolerance:
        raise TrainingError(
            f"{_fell(worst)}; the mean over {len(found)} surfaces fell by {-mean:.4f}, and {tolerance:g} is allowed"
        )


def _fell(each: Compared) -> str:
    return (
        f"surface '{each.surface}': NDCG@10 on held-out events fell by {-each.change.value:.4f}, "
        f"from {each.before:.4f} to {each.after:.4f}"
    )
