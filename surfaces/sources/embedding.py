"""Items whose text is near to that of the items in the timeline, by vectors made when the source was fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import faiss
import numpy as np
import numpy.typing as npt

from prompts.errors import ConfigError
from surfaces.sources.base import NOTHING, Indices, Interactions, Scores

RECENT = 50
HALF_LIFE = 5.0
"""In events: the item chosen that many events earlier weighs half as much in the member's vector."""
TEXTS_AT_ONCE = 256

Vectors = npt.NDArray[np.float32]


class Embedding:
    """Scores an item by the inner product of its vector with the recency-weighted mean of the member's items' vectors.

    The model is called in `fit` alone. `embed` gives unit vectors [texts, d]; `texts[i]` is the text of item `i`.
    """

    name = "embedding"

    def __init__(self, embed: Callable[[Sequence[str]], Vectors], texts: Sequence[str]) -> None:
        self._embed = embed
        self._texts = texts
        self._index: faiss.IndexFlatIP | None = None
        self._vectors_ID: Vectors = np.zeros((0, 1), dtype=np.float32)

    def fit(self, data: Interactions) -> None:
        """Embeds every text and builds the index. Raises ConfigError when texts and items do not match."""
        if len(self._texts) != len(data.item_ids):
            raise ConfigError(f"embedding: {len(self._texts)} texts for {len(data.item_ids)} items")
        starts = range(0, len(self._texts), TEXTS_AT_ONCE)
        parts = [self._embed(self._texts[start : start + TEXTS_AT_ONCE]) for start in starts]
        vectors_ID = np.ascontiguousarray(np.concatenate(parts), dtype=np.float32) if parts else self._vectors_ID
        index = faiss.IndexFlatIP(vectors_ID.shape[1])
        index.add(vectors_ID)
        self._vectors_ID, self._index = vectors_ID, index

    def member_vector(self, history_H: Indices) -> Vectors | None:
        """[d]: the mean of the recent items' vectors; None without any."""
        recent = history_H[-RECENT:]
        if not len(recent):
            return None
        weights = 0.5 ** (np.arange(len(recent) - 1, -1, -1.0) / HALF_LIFE)
        mean_D: Vectors = (weights / weights.sum()) @ self._vectors_ID[recent]
        return mean_D.astype(np.float32)

    def scores(self, history_H: Indices) -> Scores:
        """[items]: inner products; `NOTHING` for a member without history."""
        vector_D = self.member_vector(history_H)
        if vector_D is None:
            return np.full(len(self._vectors_ID), NOTHING)
        return (self._vectors_ID @ vector_D).astype(np.float64)

    def search(self, history_H: Indices, count: int) -> list[tuple[int, float]]:
        """The `count` best items with their inner products, best first."""
        vector_D = self.member_vector(history_H)
        if vector_D is None or self._index is None:
            return []
        scores, places = self._index.search(vector_D[None], min(count, self._index.ntotal))
        return [(int(place), float(score)) for place, score in zip(places[0], scores[0], strict=True) if place >= 0]
