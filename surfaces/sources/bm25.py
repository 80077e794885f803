"""Items whose text shares words with a query, or with what the member chose lately: BM25.

S. Robertson and H. Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), in the form of Lucene,
with bm25s's defaults (k1 1.5, b 0.75).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import ClassVar, Literal, TypeAlias

import bm25s
import numpy as np
from pydantic import ConfigDict, Field
from scipy import sparse

from prompts.errors import ConfigError
from surfaces.sources.base import NOTHING, Indices, Interactions, Materials, Scores, SourceKind
from surfaces.visit import NOBODY, Visit

Asks: TypeAlias = Literal["query", "timeline", "both"]
"""What the words to look for are taken from."""

QUERY_CAP = 2_000
"""Characters of a query that are read."""
RECENT = 10
HALF_LIFE = 5.0
"""In events: the words of the item chosen that many events earlier count half as much."""

# Scripts that put no spaces between words are read letter by letter.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def words(text: str) -> list[str]:
    """The words of a text in small letters, in order; no language's own rules, and no stop words."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class Bm25:
    """Scores an item by the words that its text shares with the query, rare words counting for more."""

    def __init__(self, texts: Sequence[str], asks: Asks = "both") -> None:
        self._asks = asks
        self._places: dict[str, int] = {}
        self._words = [self._numbers(words(text)) for text in texts]
        self._weights_WI = _index(self._words, self._places)

    def _numbers(self, found: Sequence[str]) -> Indices:
        return np.array([self._places.setdefault(word, len(self._places)) for word in found], dtype=np.int64)

    def fit(self, data: Interactions) -> None:
        """There is nothing to learn. Raises ConfigError when texts and items do not match."""
        if len(self._words) != len(data.item_ids):
            raise ConfigError(f"bm25: {len(self._words)} texts for {len(data.item_ids)} items")

    def scores(self, history_H: Indices, visit: Visit = NOBODY) -> Scores:
        """[items]: sums of BM25 weights; `NOTHING` for an item that shares no word with what is asked."""
        asked_W = self._asked(history_H, visit)
        found = np.flatnonzero(asked_W)
        total_I: Scores = np.asarray(asked_W[found] @ self._weights_WI[found], dtype=np.float64)
        total_I[total_I <= 0] = NOTHING
        return total_I

    def _asked(self, history_H: Indices, visit: Visit) -> Scores:
        """[words]: how much each word is asked for."""
        if self._asks != "timeline" and visit.query.strip():
            known = (self._places.get(word) for word in words(visit.query[:QUERY_CAP]))
            return self._count([place for place in known if place is not None], 1.0)
        recent = () if self._asks == "query" else history_H[-RECENT:]
        asked_W = np.zeros(len(self._places))
        for age, item in enumerate(reversed(recent)):
            asked_W += self._count(self._words[item], 0.5 ** (age / HALF_LIFE))
        return asked_W

    def _count(self, places: Sequence[int] | Indices, weight: float) -> Scores:
        counts = np.bincount(np.asarray(places, dtype=np.int64), minlength=len(self._places))
        return counts.astype(np.float64) * weight


def _index(texts: Sequence[Indices], vocabulary: dict[str, int]) -> sparse.csr_array:
    """[words, items]: the weight of each word in each text. Without any word there is no index to make."""
    shape = (len(vocabulary), len(texts))
    if not vocabulary:
        return sparse.csr_array(shape, dtype=np.float64)
    index = bm25s.BM25(method="lucene", backend="numpy")
    index.index(([text.tolist() for text in texts], vocabulary), create_empty_token=False, show_progress=False)
    found = index.scores
    # bm25s keeps the columns of [items, words], which are the rows of [words, items].
    parts = (np.asarray(found["data"], dtype=np.float64), found["indices"], found["indptr"])
    return sparse.csr_array(parts, shape=shape)


class Bm25Source(SourceKind):
    """Items whose text shares words with the request's query or with what the member chose lately."""

    model_config = ConfigDict(serialize_by_alias=True)
    label: ClassVar[str] = "text match"
    type: Literal["bm25"]
    asks: Asks = Field(
        "both",
        alias="from",
        description="Where the words come from: the request's query, the timeline, or both: the query if there is one.",
    )

    def build(self, materials: Materials) -> Bm25:
        """A source over what a leaf says of each item."""
        return Bm25(materials.texts, self.asks)
