"""Which way to rank is worth its cost, segment by segment, and how a surface file says so.

The cheapest way wins unless a dearer one is better beyond chance: the paired 95% interval of the difference in NDCG@10
is above 0. Two classical methods stand for all of them: the one with the best validation, so that nothing is chosen on
the test, and the surface's sources in one weighted sum, for what they bring together is no merit of the model. A way
that asks the model must be above both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from surfaces.evaluation.bootstrap import Interval, interval
from surfaces.traffic import MODEL, Route

FEWEST = 30
"""Fewer members tell nothing."""
MODEL_ROUTES: Mapping[str, Route] = {"foundation": "foundation", "fused": "fused"}

Floats = npt.NDArray[np.float64]


class Advice(NamedTuple):
    """The way that is worth its cost: `route` as a surface file names it, None where there are too few members.

    `gain` is how much it is above the classical method, and `seconds` what a ranking takes by it.
    """

    route: Route | None
    method: str
    reason: str
    gain: Interval | None = None
    seconds: float = 0.0


def advise(values: Mapping[str, Floats], seconds: Mapping[str, float], classical: Sequence[str]) -> Advice:
    """For one segment: `values` [members] of NDCG@10 by method, the mean `seconds` of a ranking by method.

    `classical` are the methods that stand for the cheap way.
    """
    ways = [name for name in MODEL_ROUTES if name in values]
    members = len(next(iter(values.values())))
    if members < FEWEST:
        return Advice(None, "", f"too few members to tell ({members}; {FEWEST} are needed)")
    if not classical or not ways:
        only = classical[0] if classical else ways[0] if ways else next(iter(values))
        return Advice(MODEL_ROUTES.get(only, "classical"), only, "there was nothing to compare it with")
    cheap = classical[0]
    for other in classical[1:]:
        cheap = other if interval(values[other] - values[cheap]).low > 0 else cheap
    gains = {name: interval(values[name] - values[cheap]) for name in ways}
    better = [name for name in ways if all(interval(values[name] - values[other]).low > 0 for other in classical)]
    if not better:
        said = ", ".join(f"{name} {_signed(gains[name])}" for name in ways)
        return Advice("classical", cheap, f"nothing dearer is above it beyond chance ({said})", None, seconds[cheap])
    chosen = min(better, key=lambda name: seconds[name])
    for name in better:
        if name != chosen and interval(values[name] - values[chosen]).low > 0:
            chosen = name
    said = f"above {cheap} by {_signed(gains[chosen])}"
    return Advice(MODEL_ROUTES[chosen], chosen, said, gains[chosen], seconds[chosen])


def routing(
    advice: Sequence[tuple[Mapping[str, Mapping[str, object]], Advice]], whole: Advice, weights: Mapping[str, float]
) -> dict[str, object] | None:
    """A surface's `routing` that follows the advice: the first rule that holds decides. None where nothing is known.

    A fusion in which the model has no weight is no way that asks the model.
    """
    if whole.route is None:
        return None

    def to(route: Route) -> Route:
        return "classical" if route == "fused" and not weights.get(MODEL) else route

    default = to(whole.route)
    rules = [{"when": dict(when), "to": to(found.route)} for when, found in advice if found.route is not None]
    while rules and rules[-1]["to"] == default:
        rules.pop()
    told: dict[str, object] = {"rules": rules, "default": default}
    if any(rule["to"] == "fused" for rule in rules) or default == "fused":
        told["fused"] = {name: weight for name, weight in weights.items() if weight > 0}
    return told


def _signed(found: Interval) -> str:
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
