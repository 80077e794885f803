"""Vectors of a surface's items, made by the model once, and the index that finds the nearest of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

TEXTS_AT_ONCE = 32
"""The engine scores nothing while it embeds: a few texts at a time, then requests have their turn."""
RECENT = 50
HALF_LIFE = 5.0
"""In events: the item chosen that many events earlier weighs half as much in the member's vector."""

Rows = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Rows]
"""Unit vectors [texts, d] of texts."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """`rows_ID[i]` is the unit vector of item `i`; `nearest` searches them by inner product."""

    rows_ID: Rows
    nearest: faiss.IndexFlatIP

    @classmethod
    def of(cls, texts: Sequence[str], embed: Embed) -> Vectors:
        """The vectors of texts, a few hundred at once; without any text there are no vectors, of one dimension."""
        starts = range(0, len(texts), TEXTS_AT_ONCE)
        parts = [_in_turn(embed, texts[start : start + TEXTS_AT_ONCE]) for start in starts] or [
            np.zeros((0, 1), dtype=np.float32)
        ]
        rows_ID = np.ascontiguousarray(np.concatenate(parts), dtype=np.float32)
        nearest = faiss.IndexFlatIP(rows_ID.shape[1])
        nearest.add(rows_ID)
        return cls(rows_ID, nearest)

    def of_member(
        self, history_H: npt.NDArray[np.int64], *, recent: int = RECENT, half_life: float = HALF_LIFE
    ) -> Rows | None:
        """[d]: the mean of the `recent` last items' vectors, the later ones weighing more; None without any.

        An item chosen `half_life` items earlier than another weighs half as much.
        """
        last = history_H[-recent:]
        if not len(last):
            return None
        weights = 0.5 ** (np.arange(len(last) - 1, -1, -1.0) / half_life)
        mean_D: Rows = ((weights / weights.sum()) @ self.rows_ID[last]).astype(np.float32)
        return mean_D


def _in_turn(embed: Embed, texts: Sequence[str]) -> Rows:
    made = embed(texts)
    time.sleep(0)  # lets a thread go on that waits for the engine
    return made
