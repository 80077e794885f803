"""What the sources of a surface's evidence say together: their opinions, weighed by how often each was right here.

A source that tells much on one surface tells little on another, and the words of its own evidence can't say so. This
opinion can: its weights are learned from the surface's own ledger, in seconds, while the model stays as it is.
Each source gives three features of an item: its standard score, the logarithm of its place, and whether it speaks of
the item at all. Weights are at least 0, so that an item that all sources prefer is never behind; they are fitted by the
conditional logit of members' last choices (D. McFadden, "Conditional logit analysis of qualitative choice behavior",
1974), and stay near equal ones where there is little to learn from.
Legend of array names: A advisers, C candidates of a case, F features, I items.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from surfaces.sources.base import NOTHING, Indices, Scores

OVERALL = "overall"
"""What a surface's `evidence` calls this opinion, and what a leaf calls it."""
CASES, AMONG = 400, 1_000
"""From so many members' last choices weights are learned, each among so many items that were not chosen."""
FIRST = 1_000
"""Places are told up to this one; all that come behind share the next."""
EQUAL = (0.3, 0.3, 0.0)
"""The weights of a source's features where nothing was learned."""
STRENGTH = 3.0
"""So many cases pull as strongly as the equal weights do."""

Floats = npt.NDArray[np.float64]

logger = logging.getLogger(__name__)


class Case(NamedTuple):
    """What each adviser says of every item before a choice, what had been chosen by then, and what was chosen."""

    found_AI: Scores
    seen_H: Indices
    target: int


@dataclass(frozen=True, slots=True)
class Overall:
    """Weights of each adviser's features, by the advisers' names."""

    weights: Mapping[str, Sequence[float]]

    def part(self, name: str, scores_I: Scores, seen_H: Indices) -> Scores:
        """[items]: what one adviser adds."""
        total_I = np.zeros(len(scores_I))
        for weight, feature_I in zip(self.weights.get(name, EQUAL), _features(scores_I, seen_H), strict=True):
            if weight:
                total_I += weight * feature_I
        return total_I

    def scores(self, names: Sequence[str], found_AI: Scores, seen_H: Indices) -> Scores:
        """[items]: the weighted sum of what the advisers of those names say; `NOTHING` where all of them are silent."""
        parts = (self.part(name, scores_I, seen_H) for name, scores_I in zip(names, found_AI, strict=True))
        return together(found_AI, parts)

    def read(self, names: Sequence[str], found_AI: Scores, seen_H: Indices) -> Scores:
        """[advisers + 1, items]: what the advisers say, and at last what they say together."""
        total_I: Scores = self.scores(names, found_AI, seen_H)
        return np.concatenate([found_AI, total_I[None]])


def together(found_AI: Scores, parts: Iterable[Scores]) -> Scores:
    """[items]: the sum of the advisers' parts; `NOTHING` where all of them are silent."""
    total_I: Scores = np.sum([np.zeros(found_AI.shape[1]), *parts], axis=0)
    total_I[np.isneginf(found_AI).all(axis=0)] = NOTHING
    return total_I


def learned(names: Sequence[str], cases: Iterable[Case], seed: int = 0) -> Overall:
    """The weights that foretell the cases best; `cases` come from advisers that did not know what was chosen."""
    rng = np.random.default_rng(seed)
    lists = [_drawn(case, rng) for case in cases]
    start_F = np.tile(EQUAL, len(names))
    if lists:
        bounds = [(0.0, None)] * len(start_F)
        start_F = minimize(_loss, start_F, (lists, start_F), jac=True, method="L-BFGS-B", bounds=bounds).x
    rows = start_F.reshape(len(names), len(EQUAL)).tolist()
    return Overall({name: tuple(round(weight, 4) for weight in row) for name, row in zip(names, rows, strict=True)})


def _drawn(case: Case, rng: np.random.Generator) -> Floats:
    """[candidates, features]: of the chosen item, which comes first, and of others that the member had not chosen."""
    open_I = np.ones(case.found_AI.shape[1], dtype=bool)
    open_I[case.seen_H] = False
    open_I[case.target] = False
    others = np.flatnonzero(open_I)
    if len(others) > AMONG:
        others = rng.choice(others, AMONG, replace=False)
    asked = np.concatenate([[case.target], others])
    features = [feature_I[asked] for scores_I in case.found_AI for feature_I in _features(scores_I, case.seen_H)]
    return np.stack(features, axis=1)


def _features(scores_I: Scores, seen_H: Indices) -> tuple[Scores, Scores, Scores]:
    """What one source says as numbers: a standard score, minus the logarithm of the place, and 1 where it speaks.

    Mean, spread and places are those of items that the member has not chosen. A silent source says the least that it
    says of any item.
    """
    heard_I = ~np.isneginf(scores_I)
    open_I = scores_I.copy()
    open_I[seen_H] = NOTHING
    told = open_I[~np.isneginf(open_I)]
    if not len(told):
        return np.zeros(len(scores_I)), np.full(len(scores_I), -np.log(FIRST + 1.0)), heard_I.astype(np.float64)
    settled_I = np.where(heard_I, scores_I, told.min())
    unseen = np.ones(len(scores_I), dtype=bool)
    unseen[seen_H] = False
    spread = float(settled_I[unseen].std())
    standard_I = (settled_I - settled_I[unseen].mean()) / spread if spread > 0 else np.zeros(len(scores_I))
    first = np.sort(told if len(told) <= FIRST else np.partition(told, len(told) - FIRST)[len(told) - FIRST :])
    near = np.flatnonzero(scores_I >= first[0])
    place_I = np.full(len(scores_I), FIRST + 1.0)
    place_I[near] = 1.0 + len(first) - np.searchsorted(first, scores_I[near], side="right")
    return standard_I, -np.log(place_I), heard_I.astype(np.float64)


def _loss(weights_F: Floats, lists: Sequence[Floats], equal_F: Floats) -> tuple[float, Floats]:
    """The mean negative log-likelihood of the chosen items with the pull to equal weights, and its gradient."""
    total, slope_F = 0.0, np.zeros_like(weights_F)
    for features_CF in lists:
        logits_C = features_CF @ weights_F
        logits_C -= logits_C.max()
        odds_C = np.exp(logits_C)
        total += float(np.log(odds_C.sum()) - logits_C[0])
        slope_F += (odds_C / odds_C.sum()) @ features_CF - features_CF[0]
    apart_F = weights_F - equal_F
    total += STRENGTH / 2 * float(apart_F @ apart_F)
    return total / len(lists), (slope_F + STRENGTH * apart_F) / len(lists)


def kept(path: Path) -> Overall | None:
    """What `keep` wrote; None where there is nothing, or nothing of that kind."""
    try:
        told = json.loads(path.read_text("utf-8"))
        weights = {str(name): tuple(float(weight) for weight in row) for name, row in told.items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        logger.warning("%s: not readable, learned again: %s", path, error)
        return None
    sound = all(len(row) == len(EQUAL) and all(0 <= weight < np.inf for weight in row) for row in weights.values())
    return Overall(weights) if sound else None


def keep(path: Path, overall: Overall) -> None:
    """Writes weights at once or not at all. Where that fails, nothing is kept."""
    part = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(dict(overall.weights)), "utf-8")
        part.replace(path)
    except OSError as error:
        logger.warning("%s: not kept: %s", path, error)
