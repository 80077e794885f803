"""Items that the same members chose as those in the timeline: item-based nearest neighbours.

Deshpande and Karypis, "Item-based top-N recommendation algorithms", ACM TOIS 22 (2004): the cosine similarity of two
items' columns in the matrix of members and items; of each item the nearest neighbours are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
from scipy import sparse

from surfaces.sources.base import NOTHING, Indices, Interactions, Materials, Scores, SourceKind, best
from surfaces.visit import NOBODY, Visit

# Chosen on MovieLens-100K with the event before the last as target (NDCG@10 .112). Without decay it is .089, and
# with the whole history in place of the recent part .073.
NEIGHBOURS = 200
RECENT = 20
DECAY = 0.8

LONGEST = 1_000
"""A longer timeline teaches with this many last events only: its pairs grow with the square."""

PAIRS_AT_ONCE = 10_000_000
"""About how many pairs of choices are counted together: this bounds memory."""


class CoVisitation:
    """Scores an item by its similarity to the member's recent items; each older one weighs `decay` times the next."""

    def __init__(self, *, neighbours: int = NEIGHBOURS, recent: int = RECENT, decay: float = DECAY) -> None:
        self.neighbours = neighbours
        self.recent = recent
        self.decay = decay
        self._near_IN = np.zeros((0, 0), dtype=np.int32)
        self._cosine_IN = np.zeros((0, 0), dtype=np.float32)

    def fit(self, data: Interactions) -> None:
        """Computes every item's nearest neighbours [items, neighbours]; where there are fewer, the cosine is 0."""
        size = len(data.item_ids)
        near_IN = np.zeros((size, min(self.neighbours, size)), dtype=np.int32)
        cosine_IN = np.zeros(near_IN.shape, dtype=np.float32)
        choices_I = np.bincount(np.concatenate([_none(), *_chosen(data)]), minlength=size)
        for item, others, counts in _co_counts(data):
            cosine = np.where(others == item, NOTHING, counts / np.sqrt(choices_I[item] * choices_I[others]))
            kept = best(cosine, self.neighbours)
            near_IN[item, : len(kept)] = others[kept]
            cosine_IN[item, : len(kept)] = cosine[kept]
        self._near_IN, self._cosine_IN = near_IN, cosine_IN

    def scores(self, history_H: Indices, visit: Visit = NOBODY) -> Scores:  # noqa: ARG002 - the history says it all
        """[items]: the decayed sum of cosines with recent items; `NOTHING` where there is none."""
        recent = history_H[-self.recent :]
        weights_H = self.decay ** np.arange(len(recent) - 1, -1, -1.0)
        cosine_HN = weights_H[:, None] * self._cosine_IN[recent]
        near = self._near_IN[recent].ravel()
        total_I = np.bincount(near, weights=cosine_HN.ravel(), minlength=len(self._near_IN))
        return np.where(total_I > 0, total_I, NOTHING)


class CoVisitationSource(SourceKind):
    """Items that members with a similar timeline chose."""

    label: ClassVar[str] = "chosen together"
    of_history: ClassVar[bool] = True
    of_new: ClassVar[float | None] = NOTHING
    type: Literal["co_visitation"]

    def build(self, materials: Materials) -> CoVisitation:  # noqa: ARG002 - it learns from the events alone
        """A source with the settings that MovieLens taught us."""
        return CoVisitation()


def _chosen(data: Interactions) -> list[Indices]:
    """By member, the items that they chose, each once."""
    return [np.unique(sequence[-LONGEST:]) for sequence in data.sequences]


def _co_counts(data: Interactions) -> Iterator[tuple[int, Indices, Scores]]:
    """Of every chosen item: the items that its members chose, itself included, and how many of them did."""
    chosen = _chosen(data)
    lengths = np.array([len(items) for items in chosen], dtype=np.int64)
    members, items = np.repeat(np.arange(len(chosen)), lengths), np.concatenate([_none(), *chosen])
    shape = (len(chosen), len(data.item_ids))
    chosen_MI = sparse.csr_array((np.ones(len(items)), (members, items)), shape=shape)
    by_item_IM = sparse.csr_array(chosen_MI.T)
    pairs_I = np.bincount(items, weights=lengths[members], minlength=shape[1]).astype(np.float64)
    for start, stop in _blocks(pairs_I):
        counts_BI = sparse.csr_array(by_item_IM[start:stop] @ chosen_MI)
        counts_BI.sort_indices()  # so that ties between neighbours fall the same way whatever the blocks
        for row, (first, last) in enumerate(zip(counts_BI.indptr, counts_BI.indptr[1:], strict=False)):
            others: Indices = counts_BI.indices[first:last].astype(np.int64)
            yield start + row, others, counts_BI.data[first:last]


def _blocks(pairs_I: Scores) -> Iterator[tuple[int, int]]:
    """Runs of items that have about `PAIRS_AT_ONCE` pairs together, as (start, stop)."""
    number_I = np.cumsum(pairs_I) // PAIRS_AT_ONCE
    starts = [int(start) for start in np.flatnonzero(np.diff(number_I, prepend=-1))]
    return pairwise([*starts, len(pairs_I)])


def _none() -> Indices:
    return np.zeros(0, dtype=np.int64)
