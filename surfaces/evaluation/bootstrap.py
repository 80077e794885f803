"""How sure a mean over members is. Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES = 2_000
DRAWS_AT_ONCE = 4_000_000


class Interval(NamedTuple):
    """A mean and its 95% percentile interval."""

    value: float
    low: float
    high: float


def interval(values_M: npt.NDArray[np.float64], *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The mean of one value a member, with the interval from resampling members.

    For the difference of two methods, give the differences member by member: the interval is then a paired one.
    Raises ValueError without values.
    """
    size = len(values_M)
    if not size:
        raise ValueError("no values to resample")
    rng = np.random.default_rng(seed)
    rows = max(1, DRAWS_AT_ONCE // size)
    parts = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    means = np.concatenate([values_M[rng.integers(size, size=(part, size))].mean(axis=1) for part in parts])
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(values_M.mean()), float(low), float(high))
