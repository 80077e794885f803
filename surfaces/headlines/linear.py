"""What a text encoder and a line through its vectors know of A/B tests: the baselines of any model that reads.

Legend of array names: N rows, D dimensions, K texts of a test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from surfaces.examples.ab_tests import ABTest, Floats
from surfaces.examples.ab_trees import expected_ndcg

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Of the penalty on weights, of which the tests that validate choose one."""

Vectors = Mapping[str, npt.NDArray[np.float32]]


class Rows(NamedTuple):
    """Vectors [N, D], and how often [N] the answer was yes, and no: counts, or parts of one."""

    x_ND: Floats
    yes_N: Floats
    no_N: Floats


def pointwise_rows(tests: Sequence[ABTest], vectors: Vectors) -> Rows:
    """A row for each text: its clicks, and the impressions that were none."""
    x_ND = np.stack([vectors[text] for test in tests for text in test.texts]).astype(np.float64)
    clicks_N = np.concatenate([test.clicks for test in tests]).astype(np.float64)
    shown_N = np.concatenate([test.impressions for test in tests])
    return Rows(x_ND, clicks_N, shown_N - clicks_N)


def pairwise_rows(tests: Sequence[ABTest], vectors: Vectors) -> Rows:
    """A row for each two texts of a test: their vectors' difference, and how sure it is that the first is better."""
    pairs = [(test, *pair) for test in tests for pair in combinations(range(len(test.texts)), 2)]
    x_ND = np.stack([vectors[test.texts[a]] - vectors[test.texts[b]] for test, a, b in pairs]).astype(np.float64)
    sure_N = np.array([test.posterior.beats_KK[a, b] for test, a, b in pairs])
    return Rows(x_ND, sure_N, 1 - sure_N)


def fitted(rows: Rows, strength: float) -> Floats:
    """[D]: logistic regression with an intercept, which moves no ranking and is left out, and an L2 penalty."""
    x_ND = np.concatenate([rows.x_ND, np.ones((len(rows.x_ND), 1))], axis=1)
    total = float((rows.yes_N + rows.no_N).sum())

    def loss(w_D: Floats) -> tuple[float, Floats]:
        odds_N = x_ND @ w_D
        penalty_D = strength * np.append(w_D[:-1], 0.0)
        value = -(rows.yes_N @ log_expit(odds_N) + rows.no_N @ log_expit(-odds_N)) / total
        slope_N = (rows.yes_N + rows.no_N) * expit(odds_N) - rows.yes_N
        return float(value + penalty_D @ w_D / 2), x_ND.T @ slope_N / total + penalty_D

    found: Floats = minimize(loss, np.zeros(x_ND.shape[1]), jac=True, method="L-BFGS-B").x[:-1]
    return found


def scores(tests: Sequence[ABTest], vectors: Vectors, w_D: Floats) -> list[Floats]:
    """[K] of each test."""
    return [np.stack([vectors[text] for text in test.texts]) @ w_D for test in tests]


def best_of(rows: Rows, validating: Sequence[ABTest], vectors: Vectors) -> Floats:
    """[D]: the line whose penalty is the best for the tests that validate."""
    lines = [fitted(rows, strength) for strength in STRENGTHS]
    return max(lines, key=lambda w_D: _value(validating, scores(validating, vectors, w_D)))


def _value(tests: Sequence[ABTest], scores_K: Sequence[Floats]) -> float:
    return float(np.mean([expected_ndcg(test, each) for test, each in zip(tests, scores_K, strict=True)]))
