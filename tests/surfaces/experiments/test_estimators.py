"""Estimators against other libraries, against hand-made cases, and against the truth in repeated draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from prompts.errors import ConfigError, LedgerError
from surfaces.experiments.estimators import (
    OffPolicy,
    credit_difference,
    difference,
    ips,
    linearised,
    mean,
    snips,
    win_rate,
)

Floats = npt.NDArray[np.float64]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def test_a_mean_is_students(rng: np.random.Generator) -> None:
    values = rng.exponential(size=40)
    found, wanted = mean(values, null=0.8), stats.ttest_1samp(values, 0.8)
    assert found.p_value == pytest.approx(wanted.pvalue)
    assert found[1:3] == pytest.approx(tuple(wanted.confidence_interval()))
    assert found.n == 40


def test_a_difference_is_welchs(rng: np.random.Generator) -> None:
    control, treated = rng.normal(0, 1, 30), rng.normal(0.5, 3, 50)
    found, wanted = difference(control, treated), stats.ttest_ind(treated, control, equal_var=False)
    assert found.value == pytest.approx(treated.mean() - control.mean())
    assert found.p_value == pytest.approx(wanted.pvalue)
    assert found[1:3] == pytest.approx(tuple(wanted.confidence_interval()))
    narrow = difference(control, treated, alpha=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_what_never_varies() -> None:
    assert mean(np.ones(5), null=1.0)[:5] == (1.0, 1.0, 1.0, 0.0, 1.0)
    assert difference(np.zeros(3), np.ones(3))[:5] == (1.0, 1.0, 1.0, 0.0, 0.0)


def test_cuped_takes_away_what_was_known(rng: np.random.Generator) -> None:
    """The variance falls to 1 - correlation ** 2 of it, and the effect stays."""
    known = rng.normal(3.0, size=20_000)
    outcome = 2 * known + rng.normal(size=20_000)
    treated = rng.random(20_000) < 0.5
    outcome = outcome + 0.1 * treated
    plain = difference(outcome[~treated], outcome[treated])
    cuped = difference(outcome[~treated], outcome[treated], before=(known[~treated], known[treated]))
    assert cuped.error / plain.error == pytest.approx(np.sqrt(1 / 5), rel=0.02)
    assert cuped.low < 0.1 < cuped.high


def test_cuped_with_a_constant_changes_nothing(rng: np.random.Generator) -> None:
    control, treated = rng.normal(size=9), rng.normal(size=8)
    assert difference(control, treated, before=(np.ones(9), np.ones(8))) == difference(control, treated)


def test_a_rate_has_the_jackknifes_error(rng: np.random.Generator) -> None:
    bottom = rng.integers(1, 30, size=25)
    top = rng.binomial(bottom, 0.3)
    found = mean(linearised(top, bottom))
    left_out = (top.sum() - top) / (bottom.sum() - bottom)
    jackknife = np.sqrt(24 / 25 * ((left_out - left_out.mean()) ** 2).sum())
    assert found.value == pytest.approx(top.sum() / bottom.sum())
    assert found.error == pytest.approx(jackknife)


def test_a_rate_over_ones_is_a_mean(rng: np.random.Generator) -> None:
    values = rng.random(12)
    assert linearised(values, np.ones(12)) == pytest.approx(values)


@pytest.mark.parametrize("bottom", [[0, 0, 0], [0, 3, 0]])
def test_a_rate_needs_two_members(bottom: list[int]) -> None:
    with pytest.raises(LedgerError, match="needs two members"):
        linearised(np.array([0, 1, 0]), np.array(bottom))


def test_win_rate_counts() -> None:
    first, second = np.array([1, 0, 2, 0, 1.0]), np.array([0, 1, 1, 0, 1.0])
    found = win_rate(first, second, np.array(["a", "a", "b", "b", "c"]))
    assert (found.wins, found.losses, found.ties) == (2, 1, 2)
    assert found.rate.value == pytest.approx(0.6)
    assert found.rate.n == 3
    assert found.sign_p == 1.0  # member b alone prefers one


def test_the_sign_test_is_the_binomial(rng: np.random.Generator) -> None:
    gap = rng.integers(-1, 3, size=60)
    found = win_rate(gap.astype(float), np.zeros(60), np.arange(60))
    wanted = stats.binomtest(int((gap > 0).sum()), int((gap != 0).sum()))
    assert found.sign_p == pytest.approx(wanted.pvalue)


def test_credit_difference_is_per_slate() -> None:
    found = credit_difference(np.array([3.0, 0.0, 1.0]), np.array([1.0, 1.0, 1.0]), np.array([7, 7, 9]))
    assert found.value == pytest.approx(1 / 3)


def coverage(trial: Callable[[np.random.Generator], tuple[float, float]], truth: float, times: int = 600) -> float:
    rng = np.random.default_rng(1)
    return float(np.mean([low <= truth <= high for low, high in (trial(rng) for _ in range(times))]))


def clustered(rng: np.random.Generator) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Slates of 60 members of very different activity, each with a preference of its own; 0.5 in the mean."""
    slates = np.minimum(rng.geometric(0.1, size=60), 50)
    member = np.repeat(np.arange(60), slates)
    taste = rng.beta(1, 1, size=60)
    return (rng.random(len(member)) < taste[member]).astype(float), member


def test_intervals_hold_only_with_members_as_clusters() -> None:
    def by_member(rng: np.random.Generator) -> tuple[float, float]:
        first, member = clustered(rng)
        return win_rate(first, 1 - first, member).rate[1:3]

    def by_slate(rng: np.random.Generator) -> tuple[float, float]:
        first, member = clustered(rng)
        return win_rate(first, 1 - first, np.arange(len(member))).rate[1:3]

    assert coverage(by_member, 0.5) == pytest.approx(0.95, abs=0.03)
    assert coverage(by_slate, 0.5) < 0.75


def log(rng: np.random.Generator, members: int = 400) -> tuple[Floats, Floats, Floats, npt.NDArray[np.int64], float]:
    """Rewards, both propensities, members, and the true value of the target policy, over three actions."""
    logged, target = np.array([0.6, 0.3, 0.1]), np.array([0.1, 0.3, 0.6])
    member = np.repeat(np.arange(members), 3)
    warmth = rng.beta(2, 2, size=members)[member]
    action = rng.choice(3, size=len(member), p=logged)
    rewards = (rng.random(len(member)) < warmth * np.array([0.2, 0.4, 0.8])[action]).astype(float)
    return rewards, logged[action], target[action], member, 0.5 * (0.02 + 0.12 + 0.48)


@pytest.mark.parametrize("estimator", [ips, snips])
def test_off_policy_values_are_recovered(estimator: Callable[..., OffPolicy]) -> None:
    values = []

    def trial(rng: np.random.Generator) -> tuple[float, float]:
        rewards, logged, target, member, _ = log(rng)
        found = estimator(rewards, logged, target, member_N=member)
        values.append(found.value)
        return found.low, found.high

    truth = log(np.random.default_rng(0))[4]
    assert coverage(trial, truth) == pytest.approx(0.95, abs=0.03)
    assert np.mean(values) == pytest.approx(truth, abs=3.5 * np.std(values) / np.sqrt(len(values)))


def test_the_formulas_of_ips_and_snips(rng: np.random.Generator) -> None:
    rewards, logged, target, member, _ = log(rng, 50)
    weights = target / logged
    plain, normal = ips(rewards, logged, target, member_N=member), snips(rewards, logged, target, member_N=member)
    assert plain.value == pytest.approx((weights * rewards).mean())
    assert normal.value == pytest.approx((weights * rewards).sum() / weights.sum())
    assert plain.effective == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert (plain.n, plain.clipped, plain.lost) == (50, 0.0, 0.0)
    assert ips(rewards, logged, target).n == 150


def test_the_logging_policy_is_worth_its_own_mean(rng: np.random.Generator) -> None:
    rewards, logged, _, _, _ = log(rng, 50)
    for found in (ips(rewards, logged, logged), snips(rewards, logged, logged)):
        assert found.value == pytest.approx(rewards.mean())
        assert found.effective == pytest.approx(150)


def test_snips_of_a_constant_is_the_constant(rng: np.random.Generator) -> None:
    """Adding a constant to all rewards moves SNIPS by just that, and IPS by more or less."""
    rewards, logged, target, _, _ = log(rng, 50)
    assert snips(np.full_like(rewards, 7.0), logged, target).value == pytest.approx(7.0)
    assert ips(np.full_like(rewards, 7.0), logged, target).value != pytest.approx(7.0, abs=1e-3)


@pytest.mark.parametrize("estimator", [ips, snips])
def test_clipping_tells_what_it_loses(rng: np.random.Generator, estimator: Callable[..., OffPolicy]) -> None:
    rewards, logged, target, _, _ = log(rng, 2000)
    whole, some = estimator(rewards, logged, target), estimator(rewards, logged, target, clip=2.0)
    assert some.value < whole.value
    assert some.value + some.lost == pytest.approx(whole.value)
    assert some.clipped == pytest.approx(0.1, abs=0.02)
    assert some.error < whole.error
    assert some.effective > whole.effective


@pytest.mark.parametrize(
    ("logged", "target", "message"),
    [
        ([0.5, 0.0], [0.5, 0.5], "logged propensity"),
        ([0.5, 1.5], [0.5, 0.5], "logged propensity"),
        ([0.5, np.nan], [0.5, 0.5], "logged propensity"),
        ([0.5, 0.5], [0.5, -0.1], "target propensity"),
        ([0.5, 0.5], [0.5], "2, 2 and 1 rewards"),
    ],
)
def test_propensities_are_checked(logged: list[float], target: list[float], message: str) -> None:
    with pytest.raises(LedgerError, match=message):
        ips(np.ones(2), np.array(logged), np.array(target))


def test_what_cannot_be_estimated() -> None:
    with pytest.raises(LedgerError, match="control arm has 1 member"):
        difference(np.ones(1), np.ones(5))
    with pytest.raises(LedgerError, match="one value for each member"):
        difference(np.ones(4), np.ones(5), before=(np.ones(5), np.ones(4)))
    with pytest.raises(LedgerError, match="needs two members"):
        win_rate(np.ones(3), np.zeros(3), np.zeros(3, int))
    with pytest.raises(LedgerError, match="2 members for 3 rows"):
        win_rate(np.ones(3), np.zeros(3), np.zeros(2, int))
    with pytest.raises(ConfigError, match="clip: 0"):
        snips(np.ones(2), np.ones(2), np.ones(2), clip=0.0)
    with pytest.raises(ConfigError, match=r"alpha: 1\.0"):
        mean(np.arange(3.0), alpha=1.0)
