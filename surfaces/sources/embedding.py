"""Items whose text is near to that of the items in the timeline, by vectors made when the source was built."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from prompts.errors import ConfigError
from surfaces.sources.base import NOTHING, Indices, Interactions, Materials, Scores, SourceKind
from surfaces.sources.vectors import Vectors
from surfaces.visit import NOBODY, Visit


class Embedding:
    """Scores an item by the inner product of its vector with the recency-weighted mean of the member's items' vectors.

    The model is never called: every vector is there before the first request.
    """

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def fit(self, data: Interactions) -> None:
        """There is nothing to learn. Raises ConfigError when vectors and items do not match."""
        if len(self._vectors.rows_ID) != len(data.item_ids):
            raise ConfigError(f"embedding: {len(self._vectors.rows_ID)} vectors for {len(data.item_ids)} items")

    def scores(self, history_H: Indices, visit: Visit = NOBODY) -> Scores:  # noqa: ARG002 - the history says it all
        """[items]: inner products; `NOTHING` for a member without history."""
        vector_D = self._vectors.of_member(history_H)
        if vector_D is None:
            return np.full(len(self._vectors.rows_ID), NOTHING)
        return (self._vectors.rows_ID @ vector_D).astype(np.float64)

    def search(self, history_H: Indices, count: int, visit: Visit = NOBODY) -> list[tuple[int, float]]:  # noqa: ARG002
        """The `count` best items with their inner products, best first."""
        vector_D, index = self._vectors.of_member(history_H), self._vectors.nearest
        if vector_D is None or not index.ntotal:
            return []
        scores, places = index.search(vector_D[None], min(count, index.ntotal))
        return [(int(place), float(score)) for place, score in zip(places[0], scores[0], strict=True) if place >= 0]


class EmbeddingSource(SourceKind):
    """Items whose text is near to what the member chose."""

    label: ClassVar[str] = "alike"
    of_history: ClassVar[bool] = True
    of_model: ClassVar[bool] = True
    type: Literal["embedding"]

    def build(self, materials: Materials) -> Embedding:
        """A source over the items' vectors. Raises ConfigError without a model."""
        return Embedding(materials.vectors)
