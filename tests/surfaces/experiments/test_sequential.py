"""The sequential test: valid at every look."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from prompts.errors import ConfigError, LedgerError
from surfaces.experiments.sequential import START, Look, SequentialTest, pseudo_outcomes

PLANNED, MOST, BATCH = 500, 2000, 10


def looks(values: npt.NDArray[np.float64], *, batch: int = BATCH, null: float = 0.0) -> list[Look]:
    test = SequentialTest(PLANNED, null=null)
    return [test.update(values[start : start + batch]) for start in range(0, len(values), batch)]


def draws(rng: np.random.Generator, kind: str) -> npt.NDArray[np.float64]:
    """Mean 0: even numbers, rare ones as credits are, and the pseudo-outcomes of an A/B test without an effect."""
    if kind == "normal":
        return rng.normal(size=MOST)
    if kind == "rare":
        return np.asarray(rng.choice([-1.0, 0.0, 1.0], p=[0.05, 0.9, 0.05], size=MOST))
    actions, treated = rng.poisson(0.3, size=MOST), rng.random(MOST) < 0.3
    return np.asarray(pseudo_outcomes(actions, treated, 0.3, centre=0.25), dtype=np.float64)


@pytest.mark.parametrize("kind", ["normal", "rare", "ab"])
def test_peeking_all_the_time_keeps_the_level(kind: str) -> None:
    """196 looks at 400 experiments without an effect: at most 5% stop, where a t-test at every look stops a third."""
    rng = np.random.default_rng(5)
    ends = np.arange(START, MOST + 1, BATCH)
    stopped, naive = [], []
    for _ in range(400):
        values = draws(rng, kind)
        stopped.append(looks(values)[-1].stop)
        means = np.cumsum(values)[ends - 1] / ends
        spread = np.sqrt(np.cumsum(values**2)[ends - 1] / ends - means**2)
        naive.append((np.abs(means) / spread * np.sqrt(ends) > 1.96).any())
    assert np.mean(stopped) <= 0.05
    assert np.mean(naive) > 0.25


def test_intervals_hold_the_truth_at_every_look() -> None:
    rng = np.random.default_rng(6)
    held = [all(look.low <= 0.3 <= look.high for look in looks(rng.exponential(0.3, size=MOST))) for _ in range(200)]
    assert np.mean(held) >= 0.95


def test_a_large_effect_ends_it_early() -> None:
    rng = np.random.default_rng(7)
    fixed = math.ceil((2.8 / 0.125) ** 2)  # members for 80% power at half the effect: 502
    ends = []
    for _ in range(100):
        found = looks(rng.normal(0.25, 1.0, size=MOST))
        ends.append(next(look.n for look in found if look.stop))
    assert np.mean(ends) < 0.5 * fixed


def test_batches_do_not_matter() -> None:
    values = np.random.default_rng(8).normal(3.0, 2.0, size=600)
    one, many = looks(values, batch=600)[-1], looks(values, batch=7)[-1]
    assert one[:4] == pytest.approx(many[:4])
    assert one.value == pytest.approx(values.mean())
    assert SequentialTest(10).update(np.array([])) == Look(0, 0.0, -math.inf, math.inf, 1.0, False)


def test_the_interval_and_the_p_value_say_the_same() -> None:
    """At the null at which the interval ends, the p-value is alpha."""
    values = np.random.default_rng(9).normal(size=400)
    for edge in looks(values, batch=400)[-1][2:4]:
        assert looks(values, batch=400, null=edge)[-1].p_value == pytest.approx(0.05)


def test_a_look_never_takes_back_what_was_found() -> None:
    values = np.concatenate([np.random.default_rng(10).normal(1.0, 1.0, 200), np.full(4000, -0.05)])
    found = looks(values)
    p_values = [look.p_value for look in found]
    assert p_values == sorted(p_values, reverse=True)
    assert found[-1].stop
    assert found[-1].low < 0 < found[-1].high


def test_nothing_is_said_before_the_start() -> None:
    look = SequentialTest(PLANNED).update(np.full(START - 1, 1.0))
    assert (look.low, look.high, look.p_value) == (-math.inf, math.inf, 1.0)
    assert math.isfinite(looks(np.arange(float(START)), batch=START)[-1].low)


def test_it_is_narrowest_for_its_plan() -> None:
    values = np.random.default_rng(11).normal(size=PLANNED)
    widths = {}
    for planned in (PLANNED // 8, PLANNED // 2, PLANNED, PLANNED * 2, PLANNED * 8):
        look = SequentialTest(planned).update(values)
        widths[planned] = look.high - look.low
    assert min(widths, key=widths.__getitem__) == PLANNED
    fixed = 2 * stats.sem(values) * stats.norm.ppf(0.975)
    assert 1.4 < widths[PLANNED] / fixed < 1.6


def test_pseudo_outcomes_mean_the_effect() -> None:
    rng = np.random.default_rng(12)
    treated = rng.random(200_000) < 0.2
    values = rng.normal(5.0, 1.0, size=200_000) + 0.1 * treated
    for centre in (0.0, 5.0):
        found = pseudo_outcomes(values, treated, 0.2, centre)
        assert found.mean() == pytest.approx(0.1, abs=4 * found.std() / math.sqrt(200_000))
    assert pseudo_outcomes(values, treated, 0.2, 5.0).std() < 0.3 * pseudo_outcomes(values, treated, 0.2).std()


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match="planned: 0"):
        SequentialTest(0)
    with pytest.raises(ConfigError, match="alpha: 0"):
        SequentialTest(10, alpha=0.0)
    with pytest.raises(LedgerError, match="not a finite number"):
        SequentialTest(10).update(np.array([1.0, np.nan]))
    with pytest.raises(ConfigError, match="share: 1"):
        pseudo_outcomes(np.ones(2), np.array([True, False]), 1.0)
