"""How far probabilities are what they say: by hand, against scikit-learn, and what must hold of every diagram."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from surfaces.evaluation.calibration import Bin, Calibration, brier, calibration, ece, log_loss, reliability

Floats = npt.NDArray[np.float64]
Predictions = tuple[Floats, Floats]


def sets(count: int, *, ties: bool, size: int | None = None) -> list[Predictions]:
    """Predictions with labels of 0 and 1, both among them; `ties` rounds the predictions."""
    rng = np.random.default_rng(7)
    found: list[Predictions] = []
    while len(found) < count:
        number = size or int(rng.integers(2, 200))
        p = rng.beta(0.5, 2.0, size=number)
        p, y = np.round(p, 1) if ties else p, (rng.random(number) < p**0.7).astype(np.float64)
        if 0 < y.sum() < number:
            found.append((p, y))
    return found


@st.composite
def predictions(draw: st.DrawFn) -> Predictions:
    """Few levels, so many ties; soft labels."""
    share = st.sampled_from([0.0, 1e-17, 0.1, 0.25, 0.5, 0.75, 1.0])
    pairs = draw(st.lists(st.tuples(share, share), min_size=1, max_size=40))
    return np.array([p for p, _ in pairs]), np.array([y for _, y in pairs])


# Scores


@pytest.mark.parametrize("ties", [False, True])
def test_scores_are_scikit_learns(ties: bool) -> None:
    for p, y in sets(200, ties=ties):
        inside = np.clip(p, 1e-9, 1 - 1e-9)
        assert log_loss(inside, y) == pytest.approx(sklearn.metrics.log_loss(y, inside), abs=1e-9)
        assert brier(p, y) == pytest.approx(sklearn.metrics.brier_score_loss(y, p), abs=1e-9)


def test_scores_by_hand() -> None:
    p, y = np.array([0.5, 0.25]), np.array([1.0, 0.0])
    assert log_loss(p, y) == pytest.approx((math.log(2) - math.log(0.75)) / 2)
    assert brier(p, y) == pytest.approx((0.25 + 0.0625) / 2)


def test_a_sure_prediction_that_was_wrong_costs_a_finite_amount() -> None:
    dear = pytest.approx(-math.log(1e-15), rel=1e-3)
    assert log_loss(np.array([0.0]), np.array([1.0])) == dear
    assert log_loss(np.array([1.0]), np.array([0.0])) == dear
    assert log_loss(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == pytest.approx(0.0, abs=1e-14)


@given(y=st.floats(0.01, 0.99), p=st.floats(0.01, 0.99))
def test_both_scores_are_proper(y: float, p: float) -> None:
    """Nothing beats to say what will be; so with soft labels as with many hard ones."""
    truth, told = np.array([y]), np.array([p])
    assert log_loss(truth, truth) <= log_loss(told, truth) + 1e-12
    assert brier(truth, truth) == 0.0
    hard = np.repeat([1.0, 0.0], [3, 1])
    for score in (log_loss, brier):
        assert score(told, np.array([0.75])) == pytest.approx(
            score(np.repeat(told, 4), hard) - (0.1875 if score is brier else 0.0)
        )


# Diagrams


@pytest.mark.parametrize("bins", [3, 15])
def test_without_ties_the_diagram_is_scikit_learns(bins: int) -> None:
    for p, y in sets(100, ties=False, size=150):
        observed, predicted = calibration_curve(y, p, n_bins=bins, strategy="quantile")
        found = reliability(p, y, bins)
        assert [part.count for part in found] == [150 // bins] * bins
        assert np.allclose([part.observed for part in found], observed, rtol=0, atol=1e-9)
        assert np.allclose([part.predicted for part in found], predicted, rtol=0, atol=1e-9)
        assert ece(p, y, bins) == pytest.approx(np.abs(observed - predicted).mean(), abs=1e-9)
    assert reliability(p, y) == reliability(p, y, 15)
    assert ece(p, y) == ece(p, y, 15)


def test_a_diagram_by_hand() -> None:
    p, y = np.array([0.9, 0.1, 0.2, 0.6, 0.3, 0.4]), np.array([1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    found = reliability(p, y, 2)
    assert [part[:3] for part in found] == [(0.1, 0.3, 3), (0.4, 0.9, 3)]
    assert np.allclose([part[3:] for part in found], [(0.2, 1 / 3), (1.9 / 3, 2 / 3)])
    assert ece(p, y, 2) == pytest.approx((1 / 3 - 0.2 + 2 / 3 - 1.9 / 3) / 2)


def test_equal_predictions_stay_together() -> None:
    p = np.repeat([0.1, 0.2, 0.9], [10, 70, 20])
    y = np.concatenate([np.zeros(10), np.tile([1.0, 0.0], 35), np.ones(20)])
    found = reliability(p, y, 4)
    assert [part[:3] for part in found] == [(0.1, 0.1, 10), (0.2, 0.2, 70), (0.9, 0.9, 20)]
    assert np.allclose([part[3:] for part in found], [(0.1, 0.0), (0.2, 0.5), (0.9, 1.0)])
    assert ece(p, y, 4) == pytest.approx(0.1 * 0.1 + 0.7 * 0.3 + 0.2 * 0.1)
    assert len(reliability(np.full(50, 0.3), np.ones(50))) == 1


@given(drawn=predictions(), bins=st.integers(1, 20), seed=st.integers(0, 99))
def test_what_holds_of_every_diagram(drawn: Predictions, bins: int, seed: int) -> None:
    p, y = drawn
    found = reliability(p, y, bins)
    assert 1 <= len(found) <= min(bins, len(set(p.tolist())))
    assert sum(part.count for part in found) == len(p)
    assert all(one.high < other.low for one, other in pairwise(found))
    for part in found:
        inside = (p >= part.low) & (p <= part.high)
        assert part == Bin(p[inside].min(), p[inside].max(), inside.sum(), part.predicted, part.observed)
        assert part.predicted == pytest.approx(p[inside].mean())
        assert part.observed == pytest.approx(y[inside].mean())
    assert 0.0 <= ece(p, y, bins) <= 1.0
    assert ece(p, y, 1) == pytest.approx(abs(p.mean() - y.mean()), abs=1e-12)
    assert ece(p, y, bins) >= ece(p, y, 1) - 1e-12
    order = np.random.default_rng(seed).permutation(len(p))
    assert ece(p[order], y[order], bins) == pytest.approx(ece(p, y, bins), abs=1e-12)


def test_the_error_tells_calibrated_from_overconfident() -> None:
    rng = np.random.default_rng(2)
    p = rng.random(40_000)
    y = (rng.random(40_000) < p).astype(np.float64)
    assert ece(p, y) < 0.015
    sharp = p**3 / (p**3 + (1 - p) ** 3)
    assert ece(sharp, y) == pytest.approx(np.abs(sharp - p).mean(), abs=0.015)
    assert ece(sharp, y) > 0.1


# All of it


def test_all_figures_of_one_set() -> None:
    p, y = sets(1, ties=True, size=120)[0]
    found = calibration(p, y)
    assert found == Calibration(log_loss(p, y), brier(p, y), ece(p, y), reliability(p, y), 120, y.mean())
    assert (found.count, found.bins[0].count) == (120, reliability(p, y)[0].count)


FIGURES: list[Callable[[Floats, Floats], object]] = [log_loss, brier, ece, reliability, calibration]


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize(
    ("p", "y", "told"),
    [
        ([], [], r"predictions \(0,\) and labels \(0,\); give one or more, a label each"),
        ([0.5], [1.0, 0.0], r"predictions \(1,\) and labels \(2,\)"),
        ([[0.5]], [[1.0]], r"predictions \(1, 1\)"),
        ([1.5], [1.0], r"predictions: some are not in \[0, 1\]"),
        ([math.nan], [1.0], r"predictions: some are not in \[0, 1\]"),
        ([0.5], [-1.0], r"labels: some are not in \[0, 1\]"),
        ([0.5], [math.nan], r"labels: some are not in \[0, 1\]"),
    ],
)
def test_what_is_no_prediction(
    figure: Callable[[Floats, Floats], object], p: list[float], y: list[float], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        figure(np.array(p), np.array(y))


@pytest.mark.parametrize("figure", [ece, reliability])
def test_no_bins(figure: Callable[[Floats, Floats, int], object]) -> None:
    with pytest.raises(ValueError, match="bins: 0; give 1 or more"):
        figure(np.array([0.5]), np.array([1.0]), 0)
