"""Items whose text is near in meaning to what the member chose lately."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prompts.errors import ConfigError
from surfaces.sources.base import NOTHING, Indices, Interactions, Scores
from surfaces.sources.vectors import HALF_LIFE, RECENT, Vectors
from surfaces.visit import NOBODY, Visit


class TextEmbedding:
    """Scores an item by the inner product of its text's vector with the mean of the member's items' vectors.

    The last `recent` items count, one that was chosen `half_life` items earlier half as much.
    """

    def __init__(self, vectors: Vectors, *, recent: int = RECENT, half_life: float = HALF_LIFE) -> None:
        if recent < 1 or half_life <= 0:
            raise ConfigError(f"text_embedding: recent {recent} must be 1 or more, half_life {half_life} above 0")
        self._vectors = vectors
        self.recent, self.half_life = recent, half_life

    def fit(self, data: Interactions) -> None:
        """There is nothing to learn. Raises ConfigError when vectors and items do not match."""
        if len(self._vectors.rows_ID) != len(data.item_ids):
            raise ConfigError(f"text_embedding: {len(self._vectors.rows_ID)} vectors for {len(data.item_ids)} items")

    def scores(self, history_H: Indices, visit: Visit = NOBODY) -> Scores:  # noqa: ARG002 - the history says it all
        """[items]: inner products; `NOTHING` everywhere for an empty history."""
        vector_D = self._vectors.of_member(history_H, recent=self.recent, half_life=self.half_life)
        if vector_D is None:
            return np.full(len(self._vectors.rows_ID), NOTHING)
        return (self._vectors.rows_ID @ vector_D).astype(np.float64)


def text_vectors(texts: Sequence[str], cache: Path | None = None) -> Vectors:
    """MiniLM's vectors of texts; the cache folder keeps them. Raises DownloadError where the model is not to be had."""
    from foundation.minilm import embedded

    row_of = dict(zip(texts, embedded(texts, cache), strict=True))
    return Vectors.of(texts, lambda some: np.stack([row_of[text] for text in some]))
