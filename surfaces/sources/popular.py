"""The items with most events."""

from __future__ import annotations

import numpy as np

from prompts.errors import ConfigError
from surfaces.sources.base import Indices, Interactions, Scores


class Popular:
    """Counts each item's events; with a half-life (seconds), an event that much older counts half as much."""

    name = "popular"

    def __init__(self, half_life: float | None = None) -> None:
        self.half_life = half_life
        self._scores_I: Scores = np.zeros(0)

    def fit(self, data: Interactions) -> None:
        """Counts. Raises ConfigError for a half-life where timestamps are no times."""
        if self.half_life is not None and data.clock == "order":
            raise ConfigError("popular: half_life needs times, but this ledger's clock is 'order'; leave half_life out")
        items = np.concatenate([np.zeros(0, dtype=np.int64), *data.sequences])
        times = np.concatenate([np.zeros(0), *data.times])
        if self.half_life is None or not len(times):
            weights = np.ones(len(items))
        else:
            weights = 0.5 ** ((times.max() - times) / self.half_life)
        counts_I = np.bincount(items, weights=weights, minlength=len(data.item_ids))
        self._scores_I = counts_I.astype(np.float64)

    def scores(self, history_H: Indices) -> Scores:  # noqa: ARG002 - the same for every member
        """[items]: the (decayed) count of events."""
        return self._scores_I
