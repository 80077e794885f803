"""How sure a mean is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from surfaces.evaluation.bootstrap import Interval, interval, intervals


def test_the_interval_holds_the_mean_most_of_the_time() -> None:
    rng, inside = np.random.default_rng(0), 0
    for trial in range(200):
        found = interval(rng.exponential(size=60), seed=trial, resamples=400)
        assert found.low <= found.value <= found.high
        inside += found.low <= 1.0 <= found.high
    assert 180 <= inside <= 198


def test_the_interval_is_that_of_the_normal_law_for_many() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=4_000)
    found = interval(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_intervals_repeat_and_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).random(50)
    assert interval(values) == interval(values) != interval(values, seed=1)
    whole = interval(values)
    monkeypatch.setattr("surfaces.evaluation.bootstrap.DRAWS_AT_ONCE", 120)
    assert interval(values) == pytest.approx(whole)


def test_many_figures_at_once_are_each_alone() -> None:
    values_MF = np.random.default_rng(4).random((70, 3))
    together = intervals(values_MF)
    assert [pytest.approx(interval(values_MF[:, place])) for place in range(3)] == together


def test_resamples_are_draws_with_replacement() -> None:
    """The mean of one outlier among n is drawn k/n times of it: the interval ends at such a multiple."""
    values = np.zeros(50)
    values[7] = 50.0
    found = interval(values)
    assert (found.value, found.low, found.high) == (1.0, 0.0, 3.0)


def test_paired_differences_are_surer_than_their_parts() -> None:
    rng = np.random.default_rng(3)
    hard = rng.random(300)
    one, other = hard + 0.05 + 0.01 * rng.random(300), hard
    difference = interval(one - other)
    assert difference.low > 0
    assert difference.high - difference.low < 0.1 * (interval(one).high - interval(one).low)


def test_one_value_and_none() -> None:
    assert interval(np.array([0.5])) == Interval(0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="no values"):
        interval(np.zeros(0))
