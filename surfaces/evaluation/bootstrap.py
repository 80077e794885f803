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
    return intervals(values_M[:, None], seed=seed, resamples=resamples)[0]


def intervals(values_MF: npt.NDArray[np.float64], *, seed: int = 0, resamples: int = RESAMPLES) -> list[Interval]:
    """The same of F figures at once, every one from the same resamples of the members."""
    size = len(values_MF)
    if not size:
        raise ValueError("no values to resample")
    rng = np.random.default_rng(seed)
    rows = max(1, DRAWS_AT_ONCE // size)
    parts = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    means_RF = np.concatenate([_times(size, part, rng) @ values_MF / size for part in parts])
    low_F, high_F = np.percentile(means_RF, [2.5, 97.5], axis=0)
    return [Interval(*map(float, found)) for found in zip(values_MF.mean(axis=0), low_F, high_F, strict=True)]


def _times(size: int, resamples: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """[resamples, members]: how often each member is drawn."""
    drawn = rng.integers(size, size=(resamples, size)) + size * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * size).reshape(resamples, size).astype(np.float64)
