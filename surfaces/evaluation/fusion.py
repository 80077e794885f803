"""The model and the sources together: one weighted sum, fitted on validation, that a surface file can hold.

Each score becomes a standard score within its list. Weights are at least 0, so that a candidate that all parts prefer
is never behind; they are drawn to 0, and the part that adds nothing gets none. Fitted by the conditional logit of the
wanted items among their candidates: D. McFadden, "Conditional logit analysis of qualitative choice behavior", 1974.
Legend of array names: L candidates, P parts, C cases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from prompts.errors import ConfigError
from surfaces.evaluation.method import FromSource, Judged, Method, Visits
from surfaces.evaluation.protocols import Split
from surfaces.ledger.store import Ledger
from surfaces.routing import settled, standard
from surfaces.sources.base import Interactions, Scores
from surfaces.sources.merge import Naming, Retrieval
from surfaces.visit import Visit

FITTED_ON, AMONG = 200, 500
"""So many members of the validation, and so many candidates of each, are what the weights are fitted on."""
L2 = 0.01
"""Half of this times the squared weights is added to the mean loss of a case."""

Floats = npt.NDArray[np.float64]


class Fusion(NamedTuple):
    """What was fitted: weights by part, and the mean loss of a case with them and with none."""

    weights: Mapping[str, float]
    loss: float
    chance: float


class Fused:
    """Methods as one. A part without a weight is not asked, and costs nothing."""

    def __init__(self, name: str, parts: Sequence[Method], weights: Mapping[str, float]) -> None:
        self.name, self.weights = name, weights
        self.parts = [part for part in parts if weights.get(part.name)]

    @property
    def learned(self) -> Sequence[Interactions]:
        """What its parts were fitted to."""
        return [data for part in self.parts for data in part.learned]

    def judge(self, visit: Visit, items: Sequence[str]) -> Judged:
        """The weighted sum of the parts' standard scores; its cost is all of theirs."""
        if not self.parts:
            return Judged(np.zeros(len(items)))
        judged = [part.judge(visit, items) for part in self.parts]
        weights_P = np.array([self.weights[part.name] for part in self.parts])
        scores = features([each.scores for each in judged]) @ weights_P
        return Judged(scores, tokens=sum(each.tokens for each in judged), seconds=sum(each.seconds for each in judged))


def scoring_sources(retrieval: Retrieval, data: Interactions) -> list[Method]:
    """The surface's own sources, as it sets them, so far as they score items (a query in SQL, say, names them)."""
    return [
        FromSource(fitted.name, fitted.source, data, fitted=True)
        for fitted in retrieval.sources
        if not isinstance(fitted.source, Naming)
    ]


def features(scores: Sequence[Scores]) -> Floats:
    """[candidates, parts] of standard scores; where a part has nothing to say, an item has the lowest that it gave."""
    return np.stack([standard(settled(scores_L)) for scores_L in scores], axis=1)


def fit(
    parts: Sequence[Method], split: Split, ledger: Ledger, progress: Callable[[int, int], None] | None = None
) -> Fusion:
    """The weights that foretell the split's cases best. Raises ConfigError without parts or cases."""
    if not parts or not split.cases:
        raise ConfigError("fused: it needs a model or a source, and members to be fitted on")
    visits = Visits(ledger)
    lists: list[tuple[Floats, Floats]] = []
    for number, case in enumerate(split.cases):
        visit, items = visits.of(case), split.items(number)
        gains_L = np.array([case.labels.get(item_id, 0.0) for item_id in items])
        lists.append((features([part.judge(visit, items).scores for part in parts]), gains_L / gains_L.sum()))
        if progress:
            progress(number + 1, len(split.cases))
    start_P = np.full(len(parts), 0.1)
    found = minimize(_loss, start_P, args=(lists,), jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(parts))
    chance = float(np.mean([np.log(len(gains_L)) for _, gains_L in lists]))
    weights = {part.name: round(float(weight), 4) for part, weight in zip(parts, found.x, strict=True)}
    return Fusion(weights, float(found.fun), chance)


def _loss(weights_P: Floats, lists: Sequence[tuple[Floats, Floats]]) -> tuple[float, Floats]:
    """The mean negative log-likelihood of the wanted items with the penalty, and its gradient."""
    total, slope_P = 0.0, np.zeros_like(weights_P)
    for features_LP, share_L in lists:
        logits_L = features_LP @ weights_P
        logits_L -= logits_L.max()
        logp_L = logits_L - np.log(np.exp(logits_L).sum())
        total -= float(share_L @ logp_L)
        slope_P -= (share_L - np.exp(logp_L)) @ features_LP
    penalty = L2 / 2 * float(weights_P @ weights_P)
    return total / len(lists) + penalty, slope_P / len(lists) + L2 * weights_P
