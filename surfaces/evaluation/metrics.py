"""Figures of one ranking from scores and labels. With ties each is its mean over all orders of the tied items.

A tied group of n items behind `above` others takes the places above + 1 .. above + n, each item each place equally
often: McSherry and Najork, "Computing information retrieval performance measures efficiently in the presence of tied
scores", ECIR (2008). So every figure follows from the counts of the groups that hold a relevant item; from the mean
place of an item it would not.

Everywhere, `scores_L` are floats (infinite allowed, never NaN), `labels_L` graded relevance of the same L items, 0 or
more; an item is relevant where its label is above 0. Every function raises ValueError for other input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating]
Labels = npt.NDArray[np.floating | np.integer | np.bool_]

FEW = 8
"""Up to so many relevant items it is faster to count above and level for each than to sort all scores."""


class _Group(NamedTuple):
    """Items of one score, at least one of them relevant."""

    above: int
    size: int
    relevant: int
    gain: float


class _Ranking(NamedTuple):
    """What every figure follows from: the groups with relevant items, best score first; the ideal order's gains."""

    items: int
    relevant: int
    groups: list[_Group]
    ideal: list[float]


def ndcg(scores_L: Scores, labels_L: Labels, k: int) -> float:
    """Normalised discounted cumulative gain within the first k: linear gains, discounts 1 / log2(1 + place).

    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20 (2002). Raises ValueError
    where no item is relevant.
    """
    return _ndcg(_ranked(scores_L, labels_L), _depth(k))


def hit_rate(scores_L: Scores, labels_L: Labels, k: int) -> float:
    """The probability that at least one relevant item is within the first k. Raises ValueError where none is."""
    return _hit_rate(_ranked(scores_L, labels_L), _depth(k))


def recall(scores_L: Scores, labels_L: Labels, k: int) -> float:
    """The expected share of the relevant items within the first k. Raises ValueError where no item is relevant."""
    return _recall(_ranked(scores_L, labels_L), _depth(k))


def reciprocal_rank(scores_L: Scores, labels_L: Labels) -> float:
    """The expected 1 / place of the first relevant item. Raises ValueError where no item is relevant."""
    return _reciprocal_rank(_ranked(scores_L, labels_L))


def auc(scores_L: Scores, labels_L: Labels) -> float:
    """How often a relevant item stands before one that is not, a tie counted half: the area under the ROC curve.

    0.5 where there is no such pair: all items or none are relevant.
    """
    return _auc(_ranking(scores_L, labels_L))


def figures(scores_L: Scores, labels_L: Labels) -> dict[str, float]:
    """Every figure in `METRICS`, in that order. Raises ValueError where no item is relevant."""
    ranking = _ranked(scores_L, labels_L)
    return {name: figure(ranking) for name, figure in _FIGURES.items()}


def _ranked(scores_L: Scores, labels_L: Labels) -> _Ranking:
    ranking = _ranking(scores_L, labels_L)
    if not ranking.relevant:
        raise ValueError(f"none of {ranking.items} items is relevant; one label or more must be above 0")
    return ranking


def _ranking(scores_L: Scores, labels_L: Labels) -> _Ranking:
    if scores_L.ndim != 1 or scores_L.shape != labels_L.shape:
        raise ValueError(f"scores {scores_L.shape} and labels {labels_L.shape}; give one of each an item")
    if np.isnan(scores_L).any():
        raise ValueError("scores: some are NaN; give -inf to an item that has none")
    places_R = np.flatnonzero(labels_L != 0)  # eight times as fast as without the comparison
    gains_R, scores_R = labels_L[places_R].astype(np.float64), scores_L[places_R]
    if not ((gains_R >= 0) & np.isfinite(gains_R)).all():
        raise ValueError("labels: some are negative or not finite; relevance is 0 or more")
    grouped = _by_counting if len(places_R) <= FEW else _by_sorting
    ideal = sorted(gains_R.tolist(), reverse=True)
    return _Ranking(len(scores_L), len(places_R), grouped(scores_L, scores_R, gains_R), ideal)


def _by_counting(scores_L: Scores, scores_R: Scores, gains_R: npt.NDArray[np.float64]) -> list[_Group]:
    """The groups from two passes over all scores for each score that a relevant item has."""
    groups = []
    for score in sorted(set(scores_R.tolist()), reverse=True):
        above, size = int(np.count_nonzero(scores_L > score)), int(np.count_nonzero(scores_L == score))
        inside_R = scores_R == score
        groups.append(_Group(above, size, int(inside_R.sum()), float(gains_R[inside_R].sum())))
    return groups


def _by_sorting(scores_L: Scores, scores_R: Scores, gains_R: npt.NDArray[np.float64]) -> list[_Group]:
    """The same groups from one sort, for many relevant items."""
    ordered_L = np.sort(scores_L)
    levels_G, group_R = np.unique(scores_R, return_inverse=True)
    ends_G = np.searchsorted(ordered_L, levels_G, side="right")
    sizes_G = ends_G - np.searchsorted(ordered_L, levels_G, side="left")
    columns = (len(scores_L) - ends_G, sizes_G, np.bincount(group_R), np.bincount(group_R, weights=gains_R))
    return [_Group(*row) for row in zip(*(column[::-1].tolist() for column in columns), strict=True)]


def _depth(k: int) -> int:
    if k < 1:
        raise ValueError(f"k: {k}; a ranking is looked at to a depth of 1 or more")
    return k


@lru_cache(maxsize=64)
def _discounts(k: int) -> tuple[float, ...]:
    """Sums of the first 0 .. k discounts."""
    return tuple(accumulate((1.0 / math.log2(1.0 + place) for place in range(1, k + 1)), initial=0.0))


def _ndcg(ranking: _Ranking, k: int) -> float:
    depth = min(k, ranking.items)
    sums = _discounts(depth)
    gained = 0.0
    for above, size, _, gain in ranking.groups:
        if above >= depth:
            break
        gained += gain / size * (sums[min(above + size, depth)] - sums[above])
    best = sum(gain * (after - before) for gain, before, after in zip(ranking.ideal, sums, sums[1:], strict=False))
    return min(1.0, gained / best)


def _hit_rate(ranking: _Ranking, k: int) -> float:
    """1 - C(size - relevant, room) / C(size, room) for the first group, which has `room` places within the k."""
    above, size, relevant, _ = ranking.groups[0]
    room = min(max(k - above, 0), size)
    fewer, more = sorted((room, relevant))
    return 1.0 - math.prod(max(0, size - more - drawn) / (size - drawn) for drawn in range(fewer))


def _recall(ranking: _Ranking, k: int) -> float:
    found = (relevant * min(max(k - above, 0), size) / size for above, size, relevant, _ in ranking.groups)
    return min(1.0, math.fsum(found) / ranking.relevant)


def _reciprocal_rank(ranking: _Ranking) -> float:
    """The sum over places of P(the first relevant item of the first group is there) / place."""
    above, size, relevant, _ = ranking.groups[0]
    last = size - relevant + 1
    shares_P = 1.0 / np.arange(above + 1.0, above + last + 1.0)
    if relevant == 1:
        return float(shares_P.mean())
    left_P = np.arange(size, size - last, -1.0)
    none_before_P = np.cumprod(np.concatenate([[1.0], (left_P[:-1] - relevant) / left_P[:-1]]))
    return float((none_before_P * relevant / left_P) @ shares_P)


def _auc(ranking: _Ranking) -> float:
    others = ranking.items - ranking.relevant
    if not others or not ranking.relevant:
        return 0.5
    halves, before = 0, 0
    for above, size, relevant, _ in ranking.groups:
        level = size - relevant
        behind = others - (above - before) - level
        halves += relevant * (2 * behind + level)
        before += relevant
    return halves / (2 * others * ranking.relevant)


_FIGURES: dict[str, Callable[[_Ranking], float]] = {
    **{f"ndcg@{k}": partial(_ndcg, k=k) for k in (5, 10, 20)},
    **{f"hr@{k}": partial(_hit_rate, k=k) for k in (1, 5, 10, 20)},
    "mrr": _reciprocal_rank,
    "auc": _auc,
}

METRICS = tuple(_FIGURES)
"""Names of the figures, in the order in which they are reported."""

SHOWN = ("ndcg@10", "hr@10", "mrr", "auc")
"""Those that fit on a terminal."""
