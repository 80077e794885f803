"""Fits what makes heads' probabilities hold, and judges it on members that it was not fitted to.

Each form is fitted five times, each time without a fifth of the members, and judged on that fifth: the form with the
lowest log-loss is taken, nothing at all among them, and fitted to everybody. N answers, C words of a softmax, the last
of them `none` or no.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression, minimize

from foundation.engine.base import Engine
from foundation.heads import choice
from prompts.errors import LedgerError
from surfaces.calibrated import KNOTS, CalibratedSurface, HeadFigures, Line, Map, Shares, Steps, log_odds
from surfaces.evaluation.answered import Answered, ask, retrieved, shown, unsettled
from surfaces.evaluation.calibration import ece
from surfaces.evaluation.foundation import FoundationMethod
from surfaces.evaluation.run import Progress
from surfaces.heads.base import EDGE, HeadKind
from surfaces.ledger.store import Ledger
from surfaces.registry import Declared
from surfaces.spec import SurfaceSpec

FOLDS = 5
FEWEST = 10
"""A head whose answer came true less often is left as it is."""
FEWEST_STEPS = 200
"""Steps need so many answers that came true, and so many that did not."""
TOWARDS = 0.01
"""Weight of the squared distance from what changes nothing, beside the summed log-loss: a fit is always finite."""
SLOPES, BIASES = (0.01, 10.0), (-50.0, 50.0)
PRIOR = 5.0
"""A step is drawn towards the mean rate as by so many answers: no probability becomes 0 or 1."""
TILT = 1e-3
"""Before the first step and after the last one the map still rises, by this share of what is left of it."""

Floats: TypeAlias = npt.NDArray[np.float64]
Where: TypeAlias = npt.NDArray[np.bool_]
Apply: TypeAlias = Callable[[Floats], Floats]


class Chosen(NamedTuple):
    """A form's name, and [N, C] of what it says of members that it was not fitted to."""

    form: str
    crossed_NC: Floats


def calibrate(
    declared: Declared,
    ledger: Ledger,
    engine: Engine,
    *,
    members: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> CalibratedSurface:
    """What makes a surface's heads hold, fitted on the validation alone; with `members`, on so many of them, drawn.

    Raises LedgerError where the surface has no such head, or the ledger too little that they could be fitted on.
    """
    spec = declared.spec
    heads = unsettled(spec)
    if not heads:
        raise LedgerError(f"surface '{spec.surface}' has no head with a probability that its file does not calibrate")
    slates = shown(ledger, spec, members=members, seed=seed)
    split = slates or retrieved(ledger, spec, engine, members=members, seed=seed)
    method = FoundationMethod(spec, declared.form, ledger, engine, split.train)
    choices, figures = fitted(spec, heads, ask(method, split, heads, ledger, progress))
    return CalibratedSurface(
        version=declared.version,
        fitted_on="impressions" if slates else "rankings",
        members=len({case.member_id for case in split.cases}),
        rankings=len(split.cases),
        answers=sum(len(split.items(number)) for number in range(len(split.cases))),
        choices=choices,
        heads=figures,
    )


def fitted(
    spec: SurfaceSpec, heads: Sequence[HeadKind], answered: Answered
) -> tuple[Shares | None, dict[str, HeadFigures]]:
    """The choice heads' common map and every head's own, with figures of members that they were not fitted to.

    Raises LedgerError for answers of one member alone, and where hardly anything came of them.
    """
    folds_N = folds(answered.members_N)
    often = {head.name: answered.came[head.name].sum() for head in heads}
    if max(often.values()) < FEWEST or len(np.unique(folds_N)) < 2:
        raise LedgerError(
            f"surface '{spec.surface}' cannot be calibrated: of {len(folds_N):,} answers, said of "
            f"{len(np.unique(answered.members_N)):,} members, {int(max(often.values())):,} came true; "
            f"{FEWEST} must, of several members"
        )
    names = [head.name for head in heads if head.type == "choice"]
    shares, figures = None, dict[str, HeadFigures]()
    if sum(often[name] for name in names) >= FEWEST:
        shares, figures = of_choices(answered, names, folds_N)
    others = [name for name in often if name not in figures]
    figures |= {name: of_head(answered, name, folds_N, alone=name not in names) for name in others}
    return shares, {name: figures[name] for name in often}


def folds(members_N: npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    """[N]: a fold for each answer, by the member: all answers of one are in the same."""
    names, place_N = np.unique(members_N, return_inverse=True)
    found: npt.NDArray[np.int64] = np.array([zlib.crc32(name.encode()) % FOLDS for name in names], dtype=np.int64)
    return found[place_N]


def of_head(answered: Answered, name: str, folds_N: npt.NDArray[np.int64], *, alone: bool) -> HeadFigures:
    """A head by itself: a line, or steps where there is enough for them. One that is not `alone` stays as it is."""
    p_N, y_N = answered.said[name], answered.came[name]
    fits: dict[str, Callable[[Where], Map]] = {}
    if alone and y_N.sum() >= FEWEST:
        fits["line"] = lambda inside_N: line(p_N[inside_N], y_N[inside_N])
    if alone and min(y_N.sum(), len(y_N) - y_N.sum()) >= FEWEST_STEPS:
        fits["steps"] = lambda inside_N: steps(p_N[inside_N], y_N[inside_N])
    chosen = best({form: crossed(p_N, fit, folds_N) for form, fit in fits.items()}, p_N, y_N)
    found = fits[chosen.form](np.full(len(p_N), True)) if chosen.form in fits else None
    return _figures(p_N, y_N, chosen.crossed_NC, found)


def of_choices(
    answered: Answered, names: Sequence[str], folds_N: npt.NDArray[np.int64]
) -> tuple[Shares | None, dict[str, HeadFigures]]:
    """The heads that share a softmax, all at once. An act that several of them name is shared among them."""
    said_NC = np.stack([answered.said[name] for name in names], axis=1)
    came_NC = np.stack([answered.came[name] for name in names], axis=1)
    p_NC = np.column_stack([said_NC, 1 - said_NC.sum(axis=1)])
    y_NC = came_NC / np.maximum(came_NC.sum(axis=1, keepdims=True), 1)
    y_NC = np.column_stack([y_NC, 1 - y_NC.sum(axis=1)])
    logp_NC = np.log(np.clip(p_NC, EDGE, 1))

    def fit(inside_N: Where) -> Apply:
        slope, bias_C = softmax(logp_NC[inside_N], y_NC[inside_N])
        return lambda told_NC: choice(slope * told_NC + bias_C)

    chosen = best({"shares": crossed(logp_NC, fit, folds_N)}, choice(logp_NC), y_NC)
    found = None
    if chosen.form == "shares":
        slope, bias_C = softmax(logp_NC, y_NC)
        found = Shares(slope=slope, bias=dict(zip(names, bias_C.tolist(), strict=False)))
    columns = zip(said_NC.T, came_NC.T, chosen.crossed_NC.T, strict=False)
    return found, {name: _figures(*column) for name, column in zip(names, columns, strict=True)}


def _figures(p_N: Floats, y_N: Floats, crossed_N: Floats, found: Map | None = None) -> HeadFigures:
    inside_N = np.clip(crossed_N, 0, 1)
    return HeadFigures(map=found, rate=float(y_N.mean()), ece_before=ece(p_N, y_N), ece_after=ece(inside_N, y_N))


def crossed(told: Floats, fit: Callable[[Where], Apply], folds_N: npt.NDArray[np.int64]) -> Floats:
    """What is said of each fold by what was fitted to the others; `told` is [N] or [N, C]."""
    found = np.empty_like(told)
    for fold in np.unique(folds_N):
        outside_N = folds_N == fold
        found[outside_N] = fit(~outside_N)(told[outside_N])
    return found


def best(by_form: Mapping[str, Floats], as_is: Floats, came: Floats) -> Chosen:
    """The form with the lowest log-loss; what is said `as_is`, where no form is below that."""
    return min(
        (Chosen(form, said) for form, said in {"": as_is, **by_form}.items()),
        key=lambda chosen: log_loss(chosen.crossed_NC, came),
    )


def log_loss(said: Floats, came: Floats) -> float:
    """Mean cross-entropy in nats, of [N] probabilities or of [N, C] shares."""
    inside = np.clip(said, EDGE, 1 - EDGE)
    if said.ndim == 2:
        return float(-(came * np.log(inside)).sum(axis=1).mean())
    return float(-(came * np.log(inside) + (1 - came) * np.log1p(-inside)).mean())


def line(p_N: Floats, y_N: Floats) -> Line:
    """Platt scaling: the softmax of yes and no."""
    odds_N = log_odds(p_N)
    slope, bias_C = softmax(np.column_stack([odds_N, np.zeros_like(odds_N)]), np.column_stack([y_N, 1 - y_N]))
    return Line(slope=slope, intercept=float(bias_C[0]))


def softmax(logp_NC: Floats, y_NC: Floats) -> tuple[float, Floats]:
    """The slope, and the biases [C] (0 for the last word), with the lowest log-loss: a convex problem."""
    first = np.concatenate([[1.0], np.zeros(logp_NC.shape[1] - 1)])

    def loss(at: Floats) -> tuple[float, Floats]:
        logits_NC = at[0] * logp_NC + np.append(at[1:], 0.0)
        p_NC, away = choice(logits_NC), at - first
        gap_NC = p_NC - y_NC
        value = -(y_NC * np.log(np.clip(p_NC, 1e-300, 1))).sum() + TOWARDS * away @ away
        slopes = np.concatenate([[(gap_NC * logp_NC).sum()], gap_NC.sum(axis=0)[:-1]])
        return value / len(y_NC), (slopes + 2 * TOWARDS * away) / len(y_NC)

    bounds = [SLOPES, *[BIASES] * (len(first) - 1)]
    found = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-12, "gtol": 1e-9})
    return float(found.x[0]), np.append(found.x[1:], 0.0)


def steps(p_N: Floats, y_N: Floats) -> Steps:
    """Isotonic regression by pooling adjacent violators, its blocks joined from centre to centre: it always rises.

    A. Oron and N. Flournoy, "Centered isotonic regression", Statistics in Biopharmaceutical Research 9 (2017).
    """
    odds_U, place_N, count_U = np.unique(log_odds(p_N), return_inverse=True, return_counts=True)
    pooled = isotonic_regression(np.bincount(place_N, y_N) / count_U, weights=count_U)
    starts_B = pooled.blocks[:-1]
    mass_B = np.add.reduceat(count_U, starts_B).astype(np.float64)
    centre_B = np.add.reduceat(odds_U * count_U, starts_B) / mass_B
    rate = (y_N.sum() + 1) / (len(y_N) + 2)
    drawn_B = (pooled.x[starts_B] * mass_B + PRIOR * rate) / (mass_B + PRIOR)
    again = isotonic_regression(drawn_B, weights=mass_B + PRIOR)
    starts_K = again.blocks[:-1]
    knots_K = np.add.reduceat(centre_B * mass_B, starts_K) / np.add.reduceat(mass_B, starts_K)
    return _tilted(knots_K, again.x[starts_K])


def _tilted(odds_K: Floats, p_K: Floats) -> Steps:
    """Steps through these knots, thinned where there are many, and rising to beyond both ends of the log-odds."""
    thin = slice(None, None, 1 + (len(odds_K) - 1) // (KNOTS - 2))
    odds_K, p_K, end = odds_K[thin], p_K[thin], float(log_odds(np.ones(1))[0]) + 1
    return Steps(
        log_odds=(-end, *odds_K.tolist(), end),
        probabilities=(p_K[0] * (1 - TILT), *p_K.tolist(), p_K[-1] + (1 - p_K[-1]) * TILT),
    )
