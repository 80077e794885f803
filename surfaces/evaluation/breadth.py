"""What a set of slates is like beyond accuracy: how much of the catalogue it shows, and how popular that is.

Everywhere, `tops_MK` holds the item numbers of M slates of K places, -1 where a slate is shorter; `counts_I` how many
training events each item of the catalogue has; `items` how many items the catalogue has. Every function raises
ValueError for numbers outside the catalogue, and where there is nothing to take a mean of.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.integer]
Flags = npt.NDArray[np.bool_]


class Popularity(NamedTuple):
    """The catalogue in three parts; each item is in exactly one."""

    head: Flags
    tail: Flags
    cold: Flags


def catalogue_coverage(tops_MK: Numbers, items: int) -> float:
    """The share of the catalogue that stands in at least one slate, in [0, 1].

    Ge, Delgado-Battenfeld and Jannach, "Beyond accuracy: evaluating recommender systems by coverage and serendipity",
    RecSys (2010).
    """
    return float(np.count_nonzero(_times(tops_MK, items)) / items)


def popularity_bias(tops_MK: Numbers, counts_I: Numbers) -> float:
    """The mean popularity percentile of what the slates show, in [0, 1]; every place counts alike.

    The average recommendation popularity of Abdollahpouri, Burke and Mobasher, "Managing popularity bias in recommender
    systems with personalized re-ranking", FLAIRS (2019), with percentiles for counts, so that catalogues compare. It is
    a bias against `popularity_of` the items that members chose, as in Abdollahpouri et al., "The unfairness of
    popularity bias in recommendation", RMSE (2019).
    """
    times_I = _times(tops_MK, len(counts_I))
    return float(times_I @ _percentiles(counts_I) / times_I.sum())


def popularity_of(items: Numbers, counts_I: Numbers) -> float:
    """The mean popularity percentile of these item numbers; .5 over the whole catalogue."""
    return popularity_bias(items[None], counts_I)


def gini(tops_MK: Numbers, items: int) -> float:
    """The Gini index of how often each item of the catalogue is shown: 0 where all alike, 1 - 1 / items where one only.

    As Fleder and Hosanagar, "Blockbuster culture's next rise or fall: the impact of recommender systems on sales
    diversity", Management Science 55 (2009); in closed form over the sorted counts.
    """
    times_I = np.sort(_times(tops_MK, items))
    weights_I = 2 * np.arange(1, items + 1) - items - 1
    return float(weights_I @ times_I / (items * times_I.sum()))


def head_items(counts_I: Numbers) -> Popularity:
    """Parts the catalogue by popularity.

    The head is the smallest set of most popular items that holds half of all training events or more; items of equal
    count go in by number, the lowest first. The tail is the rest that has events; cold items have none.
    """
    if (counts_I < 0).any():
        raise ValueError("counts: some are negative")
    order_I = np.argsort(-counts_I.astype(np.int64), kind="stable")
    held_I = np.cumsum(counts_I[order_I], dtype=np.int64)
    cold = counts_I == 0
    head = np.zeros(len(counts_I), dtype=np.bool_)
    if not cold.all():
        head[order_I[: np.argmax(2 * held_I >= held_I[-1]) + 1]] = True
    return Popularity(head, ~head & ~cold, cold)


def _times(tops_MK: Numbers, items: int) -> npt.NDArray[np.int64]:
    """How often each item is shown."""
    if items < 1 or not (tops_MK >= 0).any():
        raise ValueError(f"slates {tops_MK.shape} show nothing of {items} items")
    if tops_MK.min() < -1 or tops_MK.max() >= items:
        raise ValueError(f"slates: item numbers are -1 (no item) or 0 to {items - 1}")
    return np.bincount(tops_MK[tops_MK >= 0].ravel(), minlength=items)


def _percentiles(counts_I: Numbers) -> npt.NDArray[np.float64]:
    """Mid-rank percentiles: items of equal count share the mean of theirs."""
    _, level_I, sizes_D = np.unique(counts_I, return_inverse=True, return_counts=True)
    middles_D = np.cumsum(sizes_D) - sizes_D / 2
    return middles_D[level_I] / len(counts_I)
