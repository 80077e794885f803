"""Item-based nearest neighbours over the whole history.

Sarwar et al., "Item-based collaborative filtering recommendation algorithms", WWW (2001); with the shrinkage and
weighting that Ferrari Dacrema et al., "A troubling analysis of reproducibility and progress in recommender systems
research", ACM TOIS 39 (2021), tune it by. Cosine alone: Jaccard's measure and the conditional probability were within
noise of it, or below, on the validation of films and products.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from pydantic import Field
from scipy import sparse

from prompts.errors import ConfigError
from surfaces.sources.base import NOTHING, Indices, Interactions, Materials, Scores, SourceKind, best
from surfaces.sources.matrix import DECAY, Decay, choices, weighed
from surfaces.visit import NOBODY, Visit

Weighting: TypeAlias = Literal["none", "tf-idf"]
"""tf-idf: a choice weighs log(items / choices of its member), so that members who choose everything say less."""

NEIGHBOURS = 1_000
SHRINK = 10.0

ITEMS_AT_ONCE = 256


class ItemKnn:
    """Scores an item by the sum of its similarities to the items of the history that have it among their nearest.

    The similarity is the cosine of two items' columns; of each item the `neighbours` nearest are kept. `shrink`, in
    counts, is added to the product of the columns' lengths, so that a similarity from few members is small. With a
    `decay` below 1, which the paper does not have, the newest item of a history counts 1 and each older one `decay`
    times the next.
    """

    def __init__(
        self,
        *,
        neighbours: int = NEIGHBOURS,
        shrink: float = SHRINK,
        weighting: Weighting = "none",
        decay: float = DECAY,
    ) -> None:
        if neighbours < 1 or shrink < 0 or not 0 < decay <= 1:
            raise ConfigError(
                f"itemknn: neighbours {neighbours} must be 1 or more, shrink {shrink} 0 or more, and decay {decay} "
                "above 0 and at most 1"
            )
        self.neighbours, self.shrink = neighbours, shrink
        self.weighting, self.decay = weighting, decay
        self._near_II = _nothing_near()

    def fit(self, data: Interactions) -> None:
        """Finds every item's nearest neighbours, some hundred items at once, so that memory is bounded."""
        chosen_MI = self._weighted(choices(data))
        by_item_IM = sparse.csr_array(chosen_MI.T)
        sizes_I = np.asarray((chosen_MI * chosen_MI).sum(axis=0), dtype=np.float64)
        starts = range(0, len(sizes_I), ITEMS_AT_ONCE)
        products = ((start, by_item_IM[start : start + ITEMS_AT_ONCE] @ chosen_MI) for start in starts)
        blocks = [self._nearest(sparse.csr_array(counts_BI), start, sizes_I) for start, counts_BI in products]
        self._near_II = sparse.csr_array(sparse.vstack(blocks)) if blocks else _nothing_near()

    def scores(self, history_H: Indices, visit: Visit = NOBODY) -> Scores:  # noqa: ARG002 - the history says it all
        """[items]: sums of similarities; `NOTHING` for an item that is near to none of the history."""
        items, weights = weighed(history_H, self.decay)
        near_HI = self._near_II[items]
        said = near_HI.data * np.repeat(weights, np.diff(near_HI.indptr))
        total_I = np.bincount(near_HI.indices, weights=said, minlength=len(self._near_II.indptr) - 1)
        return np.where(total_I > 0, total_I, NOTHING)

    def _weighted(self, chosen_MI: sparse.csr_array) -> sparse.csr_array:
        if self.weighting == "none":
            return chosen_MI
        lengths_M = np.diff(chosen_MI.indptr)
        _, items = chosen_MI.shape
        weights_M = np.log((1 + items) / np.maximum(lengths_M, 1))
        weighted_MI = chosen_MI.copy()
        weighted_MI.data = np.repeat(weights_M, lengths_M).astype(np.float32)
        return weighted_MI

    def _nearest(self, counts_BI: sparse.csr_array, start: int, sizes_I: Scores) -> sparse.csr_array:
        """The similarities of the items from `start` on to their nearest neighbours; never to themselves."""
        counts_BI.sort_indices()  # so that ties between neighbours fall by item
        items, others = start + np.repeat(np.arange(counts_BI.shape[0]), np.diff(counts_BI.indptr)), counts_BI.indices
        similar = counts_BI.data / (np.sqrt(sizes_I[items] * sizes_I[others]) + self.shrink)
        similar[items == others] = 0.0
        for first, last in pairwise(counts_BI.indptr):
            if last - first > self.neighbours:
                row = similar[first:last].copy()
                kept = best(row, self.neighbours)
                similar[first:last] = 0.0
                similar[first:last][kept] = row[kept]
        counts_BI.data = similar.astype(np.float32)
        counts_BI.eliminate_zeros()
        return counts_BI


class ItemKnnSource(SourceKind):
    """Items that the same members chose as the items of the whole timeline: the classical nearest neighbours."""

    label: ClassVar[str] = "similar to chosen"
    of_history: ClassVar[bool] = True
    of_new: ClassVar[float | None] = NOTHING
    type: Literal["itemknn"]
    neighbours: int = Field(
        NEIGHBOURS,
        ge=1,
        le=10_000,
        description="For how many items, those nearest to it, an item of a timeline speaks.",
    )
    shrink: float = Field(
        SHRINK, ge=0, le=10_000, description="In members: the more, the less a similarity counts that rests on few."
    )
    weighting: Weighting = Field(
        "none", description="With tf-idf, what a member chose counts for less when they chose much."
    )
    decay: Decay = DECAY

    def build(self, materials: Materials) -> ItemKnn:  # noqa: ARG002 - it learns from the events alone
        """A source with these settings, to be fitted."""
        return ItemKnn(neighbours=self.neighbours, shrink=self.shrink, weighting=self.weighting, decay=self.decay)


def _nothing_near() -> sparse.csr_array:
    none = np.zeros((0, 0), dtype=np.float32)
    return sparse.csr_array(none)
