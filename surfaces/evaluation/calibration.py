"""How far probabilities are what they say: proper scores, calibration error, reliability diagrams.

Everywhere, `p_N` are predicted probabilities and `y_N` what happened, both in [0, 1]. Labels may be soft (the share of
yes among several answers). Every function raises ValueError for other input, and without any prediction.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

BINS = 15
"""As many as Guo et al. (2017) use."""
CLIP = 1e-15
"""The log-loss of a sure prediction that was wrong stays finite: 34.5 nats."""


class Bin(NamedTuple):
    """Predictions from `low` to `high`, both found in the bin: how many, their mean, and the mean of what happened."""

    low: float
    high: float
    count: int  # type: ignore[assignment]  # the field's word, though every tuple has a method of that name
    predicted: float
    observed: float


class Calibration(NamedTuple):
    """The figures of one set of predictions; `rate` is the mean of what happened, `count` how many there are."""

    log_loss: float
    brier: float
    ece: float
    bins: list[Bin]
    count: int  # type: ignore[assignment]
    rate: float


def calibration(p_N: Values, y_N: Values) -> Calibration:
    """Every figure of this module."""
    bins = reliability(p_N, y_N)
    return Calibration(log_loss(p_N, y_N), brier(p_N, y_N), _gap(bins), bins, len(p_N), float(np.mean(y_N)))


def log_loss(p_N: Values, y_N: Values) -> float:
    """Mean cross-entropy in nats; p is clipped to [1e-15, 1 - 1e-15]."""
    p_N, y_N = _checked(p_N, y_N)
    clipped_N = np.clip(p_N, CLIP, 1.0 - CLIP)
    return float(-np.mean(y_N * np.log(clipped_N) + (1.0 - y_N) * np.log1p(-clipped_N)))


def brier(p_N: Values, y_N: Values) -> float:
    """Mean squared difference. Brier, "Verification of forecasts expressed in terms of probability" (1950)."""
    p_N, y_N = _checked(p_N, y_N)
    return float(np.mean((p_N - y_N) ** 2))


def ece(p_N: Values, y_N: Values, bins: int = BINS) -> float:
    """Expected calibration error: the mean over predictions of |predicted - observed| of their bin.

    Guo et al., "On calibration of modern neural networks", ICML (2017), equation 3; bins of equal mass as in Nixon et
    al., "Measuring calibration in deep learning", CVPR Workshops (2019).
    """
    return _gap(reliability(p_N, y_N, bins))


def reliability(p_N: Values, y_N: Values, bins: int = BINS) -> list[Bin]:
    """The bins of a reliability diagram, lowest predictions first, as equal in mass as ties allow.

    Equal predictions stay together, in the bin where the middle of their places falls; a bin that stays empty is left
    out, so there may be fewer than `bins`.
    """
    p_N, y_N = _checked(p_N, y_N)
    if bins < 1:
        raise ValueError(f"bins: {bins}; give 1 or more")
    order_N = np.argsort(p_N, kind="stable")
    _, starts_D, sizes_D = np.unique(p_N[order_N], return_index=True, return_counts=True)
    bin_D = (2 * starts_D + sizes_D) * bins // (2 * len(p_N))
    cuts_B = starts_D[1:][np.diff(bin_D) > 0]
    parts = zip(np.split(p_N[order_N], cuts_B), np.split(y_N[order_N], cuts_B), strict=True)
    return [Bin(float(p[0]), float(p[-1]), len(p), float(p.mean()), float(y.mean())) for p, y in parts]


def _gap(bins: list[Bin]) -> float:
    total = sum(part.count for part in bins)
    return sum(part.count * abs(part.predicted - part.observed) for part in bins) / total


def _checked(p_N: Values, y_N: Values) -> tuple[Values, Values]:
    """Both as float64."""
    if p_N.ndim != 1 or p_N.shape != y_N.shape or not p_N.size:
        raise ValueError(f"predictions {p_N.shape} and labels {y_N.shape}; give one or more, a label each")
    for name, values_N in (("predictions", p_N), ("labels", y_N)):
        if not ((values_N >= 0) & (values_N <= 1)).all():
            raise ValueError(f"{name}: some are not in [0, 1]")
    return p_N.astype(np.float64), y_N.astype(np.float64)
