"""Not the same thing over and over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from surfaces.policies.base import Entry, PolicyKind, Share, Vector, in_this_order
from surfaces.visit import Visit


class DiversityPolicy(PolicyKind):
    """Each place goes to the entry that is relevant and unlike those above it: maximal marginal relevance.

    The best of `(1 - strength) * relevance - strength * likeness`, where the likeness is the greatest cosine with an
    entry above, at least 0. An entry without a vector is like nothing. Below the first k places nothing changes.

    J. Carbonell, J. Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing
    summaries", SIGIR 1998.
    """

    reads_vectors: ClassVar[bool] = True
    single: ClassVar[bool] = True
    type: Literal["diversity"]
    strength: Share = Field(description="0 changes nothing; 1 looks at nothing but how unlike the entries are.")

    def apply(self, slate: Sequence[Entry], visit: Visit, k: int) -> list[Entry]:  # noqa: ARG002 - whoever visits
        """The chosen ones in the order in which they were chosen, then the rest in its order."""
        if self.strength == 0 or not slate:
            return list(slate)
        chosen = self._choose(slate, min(k, len(slate)))
        taken = frozenset(chosen)
        rest = [entry for place, entry in enumerate(slate) if place not in taken]
        return in_this_order([*(slate[place] for place in chosen), *rest])

    def _choose(self, slate: Sequence[Entry], count: int) -> list[int]:
        """Where the entries stand that get the first `count` places."""
        relevance_N = np.array([entry.relevance for entry in slate])
        rows_ND, likeness_N, chosen = _rows(slate), np.zeros(len(slate)), list[int]()
        free_N = np.ones(len(slate), dtype=bool)
        for _ in range(count):
            worth_N = (1 - self.strength) * relevance_N - self.strength * likeness_N
            place = int(np.argmax(np.where(free_N, worth_N, -np.inf)))
            chosen.append(place)
            free_N[place] = False
            likeness_N = np.maximum(likeness_N, rows_ND @ rows_ND[place])
        return chosen


def _rows(slate: Sequence[Entry]) -> Vector:
    """[entries, d]: the vectors; zeros in the place of one that is missing."""
    size = next((len(entry.vector) for entry in slate if entry.vector is not None), 0)
    nothing = np.zeros(size, dtype=np.float32)
    return np.stack([nothing if entry.vector is None else entry.vector for entry in slate])
