"""EASE: each item's row of weights in closed form.

H. Steck, "Embarrassingly shallow autoencoders for sparse data", WWW (2019), equation 8: with G the co-counts of items
and P = inverse(G + l2 I), the weight from item i to item j is B_ij = -P_ij / P_jj, and B_jj = 0.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy import sparse
from scipy.linalg import lapack

from prompts.errors import ConfigError
from surfaces.sources.base import NOTHING, Indices, Interactions, Materials, Scores, SourceKind
from surfaces.sources.matrix import (
    DECAY,
    Decay,
    Square,
    add_product,
    blocks,
    choices,
    levelled,
    places_of,
    weighed,
    with_events,
)
from surfaces.visit import NOBODY, Visit

L2 = 200.0

LARGEST = 20_000
"""Items with events: the matrix has 1.6 GB then, and grows with the square, its inverse's time with the cube."""


class Ease:
    """Scores an item by the learned weights from the items of the whole history to it.

    Of n items with events, fitting takes one float32 matrix of n x n (4 n^2 bytes), inverted in its place by about n^3
    multiplications: 0.9 GB and 35 s for 15,000 items on one core of 2 (AVX2).

    `l2` is the ridge of the paper, in counts. With a `decay` below 1, which the paper does not have, the newest item of
    a history counts 1 and each older one `decay` times the next, when it is scored; training is the same.
    """

    def __init__(self, *, l2: float = L2, decay: float = DECAY) -> None:
        if l2 <= 0 or not 0 < decay <= 1:
            raise ConfigError(f"ease: l2 {l2} must be above 0, and decay {decay} above 0 and at most 1")
        self.l2, self.decay = l2, decay
        self._known_J: Indices = np.zeros(0, dtype=np.int64)
        self._place_I: Indices = np.zeros(0, dtype=np.int64)
        self._weights_JJ: Square = np.zeros((0, 0), dtype=np.float32)

    def fit(self, data: Interactions) -> None:
        """Inverts the co-counts of the items that have events. Raises ConfigError for more than 20,000 of them."""
        chosen_MI = choices(data)
        known_J = np.flatnonzero(with_events(chosen_MI))
        if len(known_J) > LARGEST:
            raise ConfigError(
                f"ease: {len(known_J):,} items with events need a matrix of {4 * len(known_J) ** 2 / 1e9:.1f} GB; "
                f"it takes up to {LARGEST:,} items: use itemknn here"
            )
        self._place_I = places_of(known_J, len(data.item_ids))
        self._known_J, self._weights_JJ = known_J, np.zeros((0, 0), dtype=np.float32)  # the old one goes first
        self._weights_JJ = item_weights(chosen_MI[:, known_J], self.l2)

    def scores(self, history_H: Indices, visit: Visit = NOBODY) -> Scores:  # noqa: ARG002 - the history says it all
        """[items]: sums of weights; `NOTHING` for items without events, and for all where the history has only such."""
        scores_I = np.full(len(self._place_I), NOTHING)
        items, weights = weighed(history_H, self.decay)
        places = self._place_I[items]
        known = places >= 0
        if known.any():
            row = (weights[known].astype(np.float32), (np.zeros(known.sum(), dtype=np.int64), places[known]))
            history_1J = sparse.csr_array(row, shape=(1, len(self._known_J)))
            scores_I[self._known_J] = levelled((history_1J @ self._weights_JJ)[0])
        return scores_I


class EaseSource(SourceKind):
    """Items that fit the whole timeline, by weights from item to item that explain every member's choices together.

    For up to 20,000 items with events: it keeps 4 bytes for each pair of them, and learns that many in a minute and a
    half of one core.
    """

    label: ClassVar[str] = "fits chosen"
    of_history: ClassVar[bool] = True
    of_new: ClassVar[float | None] = NOTHING
    type: Literal["ease"]
    l2: float = Field(
        L2, gt=0, le=1_000_000, description="In members: the more, the less a weight counts that rests on few."
    )
    decay: Decay = DECAY

    def build(self, materials: Materials) -> Ease:  # noqa: ARG002 - it learns from the events alone
        """A source with these settings, to be fitted."""
        return Ease(l2=self.l2, decay=self.decay)


def item_weights(chosen_MJ: sparse.csr_array, l2: float) -> Square:
    """[items, items]: B of the paper, from a binary matrix of members and items."""
    inverse_JJ = _inverse(_co_counts(chosen_MJ, l2))
    diagonal_J = inverse_JJ.diagonal().copy()
    for start, stop in blocks(len(inverse_JJ)):
        inverse_JJ[start:stop] /= -diagonal_J
    np.fill_diagonal(inverse_JJ, 0.0)
    return inverse_JJ


def _co_counts(chosen_MJ: sparse.csr_array, l2: float) -> Square:
    """How many members chose both items, with `l2` added to the diagonal."""
    counts_JJ = np.zeros((chosen_MJ.shape[1],) * 2, dtype=np.float32)
    add_product(counts_JJ, chosen_MJ, chosen_MJ)
    counts_JJ[np.diag_indices_from(counts_JJ)] += np.float32(l2)
    return counts_JJ


def _inverse(symmetric_JJ: Square) -> Square:
    """The inverse of a positive definite matrix, in the place of it."""
    if not len(symmetric_JJ):
        return symmetric_JJ
    # LAPACK counts columns first: the transposed view of a row-major matrix is what it can work on without a copy.
    factor, failed = lapack.spotrf(symmetric_JJ.T, lower=True, overwrite_a=True, clean=False)
    if not failed:
        factor, failed = lapack.spotri(factor, lower=True, overwrite_c=True)
    if failed:
        raise ConfigError("ease: the co-counts cannot be inverted in float32; raise l2")
    inverse_JJ: Square = factor.T  # its upper triangle is the result
    for start, stop in blocks(len(inverse_JJ)):
        inverse_JJ[stop:, start:stop] = inverse_JJ[start:stop, stop:].T
        corner = inverse_JJ[start:stop, start:stop]
        corner[:] = np.triu(corner) + np.triu(corner, 1).T
    return inverse_JJ
