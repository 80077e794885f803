"""What an experiment or a log says, and how sure that is.

Members, not impressions, are independent of each other: everything here takes a member's rows as one cluster. Intervals
are two-sided, by Student's t with the delta method for ratios (A. Deng, U. Knoblich, J. Lu, "Applying the delta method
in metric analytics", KDD 2018). Array names say their shape: M members, S slates, N rows of a log.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, stdtr, stdtrit

from prompts.errors import ConfigError, LedgerError

Floats = npt.NDArray[np.floating]
Numbers = npt.NDArray[np.floating] | npt.NDArray[np.integer]
Ids = npt.NDArray[np.integer] | npt.NDArray[np.str_] | npt.NDArray[np.object_]

ALPHA = 0.05
"""One minus the coverage of the intervals."""


class Estimate(NamedTuple):
    """A value with its interval."""

    value: float
    low: float
    high: float
    error: float
    """The standard error."""
    p_value: float
    """Two-sided, of the value that says: no difference."""
    n: int
    """Members."""


class WinRate(NamedTuple):
    """What interleaved slates say of the first arm against the second."""

    rate: Estimate
    """(wins + ties / 2) / slates; 0.5 says: no difference."""
    wins: int
    losses: int
    ties: int
    sign_p: float
    """Of the sign test, over the members who prefer one arm."""


class OffPolicy(NamedTuple):
    """The value of another policy, from a log."""

    value: float
    low: float
    high: float
    error: float
    n: int
    """Members, or rows where no members were given."""
    effective: float
    """Kish's effective number of rows, sum(w) ** 2 / sum(w ** 2): with few, believe neither value nor interval."""
    clipped: float
    """The share of the rows whose weight was clipped."""
    lost: float
    """How much the value would be higher without clipping: the estimated bias, with its sign turned."""


def linearised(top_M: Numbers, bottom_M: Numbers) -> Floats:
    """(M) numbers whose mean is sum(top) / sum(bottom), and whose spread gives that ratio's standard error.

    So a rate, such as actions per slate, goes into `difference` and keeps members as the units (Deng et al. 2018,
    section 3.2). Each residual is divided by one less the member's share of the denominator, as the jackknife does
    (B. Efron, C. Stein, Annals of Statistics 9, 1981): else intervals of few or uneven members come out too narrow.
    Raises LedgerError where all of the denominator is one member's, or there is none.
    """
    whole, most = float(np.sum(bottom_M)), float(np.max(bottom_M, initial=0.0))
    if not whole > most:
        raise LedgerError(f"a rate needs two members with a denominator above 0; the denominators sum to {whole}")
    rate = float(np.sum(top_M)) / whole
    apart_M = (top_M - rate * bottom_M) / (whole - bottom_M) * (len(bottom_M) - 1)
    return np.asarray(rate + apart_M - apart_M.mean())


def win_rate(first_S: Numbers, second_S: Numbers, member_S: Ids, *, alpha: float = ALPHA) -> WinRate:
    """From both teams' credit on each slate, and the slate's member.

    A slate is won by the larger credit; a tie counts half (O. Chapelle, T. Joachims, F. Radlinski, Y. Yue, "Large-scale
    validation and analysis of interleaved search evaluation", TOIS 30, 2012, equation 1). The sign test is exact.
    Raises LedgerError for fewer than two members.
    """
    sign_S = np.sign(np.asarray(first_S, dtype=np.float64) - second_S)
    top_M, slates_M = _clusters(member_S, (1 + sign_S) / 2)
    signs_M = np.sign(top_M - slates_M / 2)
    rate = mean(linearised(top_M, slates_M), null=0.5, alpha=alpha)
    wins, losses = int((sign_S > 0).sum()), int((sign_S < 0).sum())
    return WinRate(rate, wins, losses, len(sign_S) - wins - losses, _sign_test(signs_M))


def _sign_test(signs_M: Floats) -> float:
    """Two-sided binomial test of one half, without ties."""
    more, fewer = int((signs_M > 0).sum()), int((signs_M < 0).sum())
    return min(1.0, 2 * float(bdtr(min(more, fewer), more + fewer, 0.5))) if more + fewer else 1.0


def credit_difference(first_S: Numbers, second_S: Numbers, member_S: Ids, *, alpha: float = ALPHA) -> Estimate:
    """The mean of the first team's credit less the second's, per slate: what `win_rate` says, with sizes of rewards."""
    gap_M, slates_M = _clusters(member_S, np.asarray(first_S, dtype=np.float64) - second_S)
    return mean(linearised(gap_M, slates_M), alpha=alpha)


def mean(values_M: Numbers, *, null: float = 0.0, alpha: float = ALPHA) -> Estimate:
    """The mean of one value a member, against `null`. Raises LedgerError for fewer than two members."""
    _enough(values_M, "the experiment")
    error = float(np.std(values_M, ddof=1)) / len(values_M) ** 0.5
    return _estimate(float(np.mean(values_M)), error, len(values_M) - 1, len(values_M), null, alpha)


def difference(
    control_M: Numbers,
    treated_M: Numbers,
    *,
    before: tuple[Numbers, Numbers] | None = None,
    alpha: float = ALPHA,
) -> Estimate:
    """The treated members' mean less the control's, one value a member: B. L. Welch, Biometrika 34 (1947).

    `before` are the same members' (control, treated) values of something from before the experiment, such as the same
    metric: what it foretells is taken away, and the interval gets narrower (CUPED: A. Deng, Y. Xu, R. Kohavi and
    T. Walker, "Improving the sensitivity of online controlled experiments by utilizing pre-experiment data", WSDM 2013,
    section 3.2). It must not hang on the arm. Raises LedgerError for fewer than two members in an arm.
    """
    _enough(control_M, "the control arm")
    _enough(treated_M, "the treated arm")
    if before is not None:
        control_M, treated_M = _adjusted(control_M, treated_M, *before)
    parts = [float(np.var(values, ddof=1)) / len(values) for values in (control_M, treated_M)]
    whole = sum(parts)
    spread = sum(part**2 / (len(values) - 1) for part, values in zip(parts, (control_M, treated_M), strict=True))
    value = float(np.mean(treated_M) - np.mean(control_M))
    freedom = whole**2 / spread if spread else 1.0
    return _estimate(value, whole**0.5, freedom, len(control_M) + len(treated_M), 0.0, alpha)


def _adjusted(control_M: Numbers, treated_M: Numbers, control_x: Numbers, treated_x: Numbers) -> tuple[Floats, Floats]:
    """Both arms less theta times the covariate; theta is that of both arms together, within arms."""
    pairs = ((control_M, control_x), (treated_M, treated_x))
    if any(len(values) != len(covariate) for values, covariate in pairs):
        raise LedgerError("CUPED: `before` must have one value for each member of each arm")
    shared = sum(float(np.dot(values - np.mean(values), x - np.mean(x))) for values, x in pairs)
    own = sum(float(np.sum((x - np.mean(x)) ** 2)) for _, x in pairs)
    theta = shared / own if own else 0.0
    return np.asarray(control_M - theta * control_x), np.asarray(treated_M - theta * treated_x)


def ips(
    rewards_N: Numbers,
    logged_N: Floats,
    target_N: Floats,
    *,
    member_N: Ids | None = None,
    clip: float | None = None,
    alpha: float = ALPHA,
) -> OffPolicy:
    """The mean reward that another policy would have got: inverse propensity scoring, unbiased without `clip`.

    `logged_N` and `target_N` are the probabilities with which the log's policy and the other one do what was done. For
    a place of a slate below the first, give the products over the places down to it. `clip` is the largest weight
    (E. Ionides, "Truncated importance sampling", JCGS 17, 2008): less variance for a bias, which `lost` tells. D. G.
    Horvitz, D. J. Thompson, JASA 47 (1952). Raises LedgerError for rows that are not probabilities.
    """
    weights_N = _weights(rewards_N, logged_N, target_N)
    return _off_policy(rewards_N, weights_N, np.ones_like(weights_N), member_N, clip, alpha)


def snips(
    rewards_N: Numbers,
    logged_N: Floats,
    target_N: Floats,
    *,
    member_N: Ids | None = None,
    clip: float | None = None,
    alpha: float = ALPHA,
) -> OffPolicy:
    """As `ips`, over the sum of the weights instead of the number of rows: self-normalised.

    A little biased (the bias falls as 1 / N), mostly with far less variance, and never outside the rewards' range:
    A. Swaminathan, T. Joachims, "The self-normalized estimator for counterfactual learning", NIPS 2015.
    """
    weights_N = _weights(rewards_N, logged_N, target_N)
    return _off_policy(rewards_N, weights_N, None, member_N, clip, alpha)


def _weights(rewards_N: Numbers, logged_N: Floats, target_N: Floats) -> Floats:
    if not len(rewards_N) == len(logged_N) == len(target_N):
        lengths = f"{len(rewards_N)}, {len(logged_N)} and {len(target_N)}"
        raise LedgerError(f"{lengths} rewards, logged and target propensities; each row has one of each")
    if not np.all((np.asarray(logged_N) > 0) & (np.asarray(logged_N) <= 1)):
        raise LedgerError("a logged propensity is not above 0 and at most 1")
    if not np.all((np.asarray(target_N) >= 0) & (np.asarray(target_N) <= 1)):
        raise LedgerError("a target propensity is not from 0 to 1")
    return np.asarray(target_N, dtype=np.float64) / logged_N


def _off_policy(
    rewards_N: Numbers, weights_N: Floats, ones_N: Floats | None, member_N: Ids | None, clip: float | None, alpha: float
) -> OffPolicy:
    """The sum of weight times reward over that of `ones_N`, or of the weights where there is None."""
    if clip is not None and not clip > 0:
        raise ConfigError(f"clip: {clip}; the largest weight is a number above 0")
    used_N = weights_N if clip is None else np.minimum(weights_N, clip)
    member_N = np.arange(len(used_N)) if member_N is None else member_N
    top_M, bottom_M = _clusters(member_N, used_N * rewards_N, used_N if ones_N is None else ones_N)
    found = mean(linearised(top_M, bottom_M), alpha=alpha)
    whole = weights_N if ones_N is None else ones_N
    lost = 0.0 if clip is None else float(np.sum(weights_N * rewards_N) / np.sum(whole)) - found.value
    effective = float(np.sum(used_N) ** 2 / max(float(np.sum(used_N**2)), 1e-300))
    clipped = float(np.mean(used_N < weights_N))
    return OffPolicy(found.value, found.low, found.high, found.error, found.n, effective, clipped, lost)


def _clusters(member_N: Ids, top_N: Numbers, bottom_N: Numbers | None = None) -> tuple[Floats, Floats]:
    """Each member's sums of both; of rows where the second is None."""
    if len(member_N) != len(top_N):
        raise LedgerError(f"{len(member_N)} members for {len(top_N)} rows; each row has one")
    _, place_N = np.unique(member_N, return_inverse=True)
    bottom_N = np.ones(len(top_N)) if bottom_N is None else bottom_N
    return np.bincount(place_N, top_N).astype(np.float64), np.bincount(place_N, bottom_N).astype(np.float64)


def _enough(values_M: Numbers, what: str) -> None:
    if len(values_M) < 2:
        raise LedgerError(f"{what} has {len(values_M)} member(s); an interval needs two or more")


def _estimate(value: float, error: float, freedom: float, n: int, null: float, alpha: float) -> Estimate:
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha: {alpha}; it must be above 0 and below 1")
    if not error:
        return Estimate(value, value, value, 0.0, float(value == null), n)
    half = float(stdtrit(freedom, 1 - alpha / 2)) * error
    return Estimate(value, value - half, value + half, error, 2 * float(stdtr(freedom, -abs(value - null) / error)), n)
