"""Scores of a source that names its candidates itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from surfaces.sources.base import NOTHING, Scores


def by_rank(item_ids: Sequence[str], index: Mapping[str, int]) -> Scores:
    """[items]: minus the rank that an item has in the list; `NOTHING` for one that is not in it."""
    scores_I = np.full(len(index), NOTHING)
    for rank, item_id in enumerate(item_ids, 1):
        if item_id in index:
            scores_I[index[item_id]] = -rank
    return scores_I
