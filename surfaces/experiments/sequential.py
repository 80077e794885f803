"""An experiment that may be looked at any time, and stopped when it has said enough.

The asymptotic confidence sequence of I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy, A. Ramdas, "Time-uniform
central limit theory and asymptotic confidence sequences", Annals of Statistics 52 (2024), theorem 2.2. Its p-value is
that of the mixture sequential probability ratio test with a normal mixture, variance and all estimated: R. Johari,
P. Koomen, L. Pekelis, D. Walsh, "Peeking at A/B tests", KDD 2017.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prompts.errors import ConfigError, LedgerError

Floats = npt.NDArray[np.floating]
Numbers = npt.NDArray[np.floating] | npt.NDArray[np.integer]

START = 50
"""So many units come before the first word: the guarantee is one of large samples."""


class Look(NamedTuple):
    """What is known so far. Before START units, the interval is endless and the p-value 1."""

    n: int
    value: float
    low: float
    high: float
    p_value: float
    """The least of all looks so far."""
    stop: bool
    """Whether `p_value` is at most alpha."""


class SequentialTest:
    """The mean of independent units against `null`, fed in batches; every look is valid, however many there are.

    A unit is a member, once: the credit difference of all interleaved slates, or `pseudo_outcomes` of an A/B test.
    `planned` is the number of units at which the interval is to be narrowest; it stays valid at any other.
    """

    def __init__(self, planned: int, *, alpha: float = 0.05, null: float = 0.0) -> None:
        """Raises ConfigError for fewer planned units than one, and for an alpha that is not between 0 and 1."""
        if planned < 1:
            raise ConfigError(f"planned: {planned}; plan for one unit or more")
        if not 0 < alpha < 1:
            raise ConfigError(f"alpha: {alpha}; it must be above 0 and below 1")
        self.alpha, self.null = alpha, null
        wide = -2 * math.log(alpha)
        self._rho2 = (wide + math.log(wide) + 1) / planned  # Waudby-Smith et al., appendix on tuning rho
        self._n, self._mean, self._squares, self._least = 0, 0.0, 0.0, 1.0

    def update(self, values_N: Numbers) -> Look:
        """Adds a batch, and looks. Raises LedgerError for values that are not finite."""
        if not np.isfinite(values_N).all():
            raise LedgerError("a value of the batch is not a finite number")
        self._add(np.asarray(values_N, dtype=np.float64))
        return self.look()

    def look(self) -> Look:
        """What is known now."""
        if self._n < START or not self._squares:
            return Look(self._n, self._mean, -math.inf, math.inf, self._least, self._least <= self.alpha)
        deviation, grown = math.sqrt(self._squares / self._n), self._n * self._rho2
        half = deviation * math.sqrt(2 * (grown + 1) / (grown * self._n) * math.log(math.sqrt(grown + 1) / self.alpha))
        z = (self._mean - self.null) / deviation * math.sqrt(self._n)
        p_value = math.sqrt(grown + 1) * math.exp(-(z**2) * grown / (2 * (grown + 1)))
        self._least = min(self._least, p_value)
        low, high = self._mean - half, self._mean + half
        return Look(self._n, self._mean, low, high, self._least, self._least <= self.alpha)

    def _add(self, values_N: Floats) -> None:
        """Welford's update for batches: T. Chan, G. Golub, R. LeVeque, The American Statistician 37 (1983)."""
        count = len(values_N)
        if not count:
            return
        mean, n = float(values_N.mean()), self._n + count
        self._squares += float(((values_N - mean) ** 2).sum()) + (mean - self._mean) ** 2 * self._n * count / n
        self._mean += (mean - self._mean) * count / n
        self._n = n


def pseudo_outcomes(values_M: Numbers, treated_M: npt.NDArray[np.bool_], share: float, centre: float = 0.0) -> Floats:
    """(M) numbers whose mean is the effect of the treatment, for members who get it with the probability `share`.

    `centre` is any guess of the values' mean made before this batch was seen: the nearer, the less they spread
    (inverse propensity weighting; Waudby-Smith et al. 2024, section 3). Raises ConfigError for a share of 0 or 1.
    """
    if not 0 < share < 1:
        raise ConfigError(f"share: {share}; it must be above 0 and below 1")
    return np.asarray((values_M - centre) * np.where(treated_M, 1 / share, -1 / (1 - share)))
