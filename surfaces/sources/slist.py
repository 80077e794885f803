"""SLIST's transitions: what comes next after the decayed sum of what came before, in closed form.

M. Choi, J. Kim, J. Lee, H. Shim and J. Lee, "Session-aware linear item-item models for session-based recommendation",
WWW (2021), section 3.3 (SLIT). Each place of each timeline is a row: X holds what came before it, the newest item as 1
and each older one as `decay` times the next, and Y holds the item that came. B = inverse(X'X + l2 I) X'Y. The paper
takes all that follows as Y, decayed as well; here it is the next item alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy import linalg, sparse

from prompts.errors import ConfigError
from surfaces.sources.base import NOTHING, Indices, Interactions, Materials, Scores, SourceKind
from surfaces.sources.matrix import DECAY, Decay, Square, add_product, check, levelled, places_of
from surfaces.visit import NOBODY, Visit

logger = logging.getLogger(__name__)

L2 = 500.0

LAST = 50
"""Items of a history that are read: at a decay of .9 the ones before weigh half a percent together."""

LARGEST = 10_000
"""Items with events: two matrices of 0.4 GB then, and a minute or two of one core."""

ROWS_AT_ONCE = 65_536


class Slist:
    """Scores an item by the learned weights of a member's last items, the newest first, to the item that comes next.

    Of n items with events, fitting takes two float32 matrices of n x n (8 n^2 bytes) and about 7/3 n^3
    multiplications. Of more than 10,000 such items it learns nothing, and says nothing: to rank some of them alone
    would read as if the others were never chosen.
    """

    def __init__(self, *, l2: float = L2, decay: float = DECAY) -> None:
        check("slist", l2=l2, decay=decay)
        self.l2, self.decay = l2, decay
        self._known_J: Indices = np.zeros(0, dtype=np.int64)
        self._place_I: Indices = np.zeros(0, dtype=np.int64)
        self._weights_JJ: Square = np.zeros((0, 0), dtype=np.float32)

    def fit(self, data: Interactions) -> None:
        """Solves for the weights. Raises ConfigError where rounding spoils them."""
        known_J = data.chosen
        if len(known_J) > LARGEST:
            logger.warning("slist says nothing of %d items: it takes up to %d", len(known_J), LARGEST)
            known_J = known_J[:0]
        self._known_J, self._place_I = known_J, places_of(known_J, len(data.item_ids))
        self._weights_JJ = np.zeros((0, 0), dtype=np.float32)  # the old one goes first
        if len(known_J):
            self._weights_JJ = self._solved([self._place_I[items] for items in data.sequences if len(items) > 1])

    @property
    def learned(self) -> bool:
        """Whether there were choices to learn from, and not too many items."""
        return bool(len(self._known_J))

    def scores(self, history_H: Indices, visit: Visit = NOBODY) -> Scores:  # noqa: ARG002 - the history says it all
        """[items]: sums of weights; `NOTHING` for items without events, and for all where the history has none."""
        scores_I = np.full(len(self._place_I), NOTHING)
        places = self._place_I[history_H]
        last = places[places >= 0][-LAST:]
        if len(last):
            weights = self.decay ** np.arange(len(last) - 1, -1, -1.0)
            scores_I[self._known_J] = levelled(weights.astype(np.float32) @ self._weights_JJ[last])
        return scores_I

    def _solved(self, sequences: Sequence[Indices]) -> Square:
        """[items, items]: B, a row for each item that was chosen, a column for each item that comes."""
        size = len(self._known_J)
        gram_JJ, next_JJ = np.zeros((size, size), dtype=np.float32), np.zeros((size, size), dtype=np.float32)
        for before_RJ, came_RJ in _transitions(sequences, size, self.decay):
            add_product(gram_JJ, before_RJ, before_RJ)
            add_product(next_JJ, before_RJ, came_RJ)
        gram_JJ[np.diag_indices(size)] += np.float32(self.l2)
        try:
            factor = linalg.cho_factor(gram_JJ.T, lower=True, overwrite_a=True, check_finite=False)
            weights_JJ: Square = linalg.cho_solve(factor, next_JJ, overwrite_b=True, check_finite=False)
        except linalg.LinAlgError:
            raise ConfigError("slist: the transitions cannot be solved for in float32; raise l2") from None
        return np.ascontiguousarray(weights_JJ)


def _transitions(
    sequences: Sequence[Indices], items: int, decay: float
) -> Iterator[tuple[sparse.csr_array, sparse.csr_array]]:
    """[rows, items] what came before, and [rows, items] what came, of some thousands of places at a time."""
    ends = np.cumsum([len(places) for places in sequences]) // ROWS_AT_ONCE
    for _, numbers in groupby(range(len(sequences)), key=lambda number: int(ends[number])):
        yield _rows([sequences[number] for number in numbers], items, decay)


def _rows(members: Sequence[Indices], items: int, decay: float) -> tuple[sparse.csr_array, sparse.csr_array]:
    item_R = np.concatenate(members)
    since_R = np.concatenate([np.arange(len(places)) for places in members])  # how many of the member's come before
    rows, columns, weights = [], [], []
    for age in range(min(LAST, int(since_R.max()))):
        row = np.flatnonzero(since_R > age)
        rows.append(row)
        columns.append(item_R[row - 1 - age])
        weights.append(np.full(len(row), decay**age, dtype=np.float32))
    shape = (len(item_R), items)
    before = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
    came = np.flatnonzero(since_R > 0)
    ones = np.ones(len(came), dtype=np.float32)
    return sparse.csr_array(before, shape=shape), sparse.csr_array((ones, (came, item_R[came])), shape=shape)


class SlistSource(SourceKind):
    """Items that come next after the last ones, by weights from item to item that explain all members' next choices."""

    label: ClassVar[str] = "comes next"
    of_history: ClassVar[bool] = True
    of_new: ClassVar[float | None] = NOTHING
    type: Literal["slist"]
    l2: float = Field(L2, gt=0, le=1_000_000, description="The more, the less a weight counts that rests on few.")
    decay: Decay = DECAY

    def build(self, materials: Materials) -> Slist:  # noqa: ARG002 - it learns from the events alone
        """A source with these settings, to be fitted."""
        return Slist(l2=self.l2, decay=self.decay)
