"""Which way to rank is worth its cost, segment by segment, and how a surface file says so.

The cheapest way wins unless a dearer one is better beyond chance: the paired 95% interval of the difference in NDCG@10
is above 0. Among the classical methods the one with the best validation stands for all of them, so that nothing is
chosen on the test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from surfaces.evaluation.bootstrap import Interval, interval
from surfaces.traffic import Route

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


def advise(values: Mapping[str, Floats], seconds: Mapping[str, float], classical: str | None) -> Advice:
    """For one segment: `values` [members] of NDCG@10 by method, the mean `seconds` of a ranking by method.

    `classical` is the method that stands for the cheap way.
    """
    ways = [name for name in MODEL_ROUTES if name in values]
    members = len(next(iter(values.values())))
    if members < FEWEST:
        return Advice(None, "", f"too few members to tell ({members}; {FEWEST} are needed)")
    if classical is None or not ways:
        only = classical or (ways[0] if ways else next(iter(values)))
        return Advice(MODEL_ROUTES.get(only, "classical"), only, "there was nothing to compare it with")
    gains = {name: interval(values[name] - values[classical]) for name in ways}
    better = [name for name in ways if gains[name].low > 0]
    if not better:
        said = ", ".join(f"{name} {_signed(gains[name])}" for name in ways)
        return Advice(
            "classical", classical, f"nothing dearer is above it beyond chance ({said})", None, seconds[classical]
        )
    chosen = min(better, key=lambda name: seconds[name])
    for name in better:
        if name != chosen and interval(values[name] - values[chosen]).low > 0:
            chosen = name
    said = f"above {classical} by {_signed(gains[chosen])}"
    return Advice(MODEL_ROUTES[chosen], chosen, said, gains[chosen], seconds[chosen])


def routing(
    advice: Sequence[tuple[Mapping[str, Mapping[str, object]], Advice]], whole: Advice, weights: Mapping[str, float]
) -> dict[str, object] | None:
    """A surface's `routing` that follows the advice: the first rule that holds decides. None where nothing is known."""
    if whole.route is None:
        return None
    rules = [{"when": dict(when), "to": found.route} for when, found in advice if found.route is not None]
    while rules and rules[-1]["to"] == whole.route:
        rules.pop()
    told: dict[str, object] = {"rules": rules, "default": whole.route}
    if any(rule["to"] == "fused" for rule in rules) or whole.route == "fused":
        told["fused"] = {name: weight for name, weight in weights.items() if weight > 0}
    return told


def _signed(found: Interval) -> str:
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
