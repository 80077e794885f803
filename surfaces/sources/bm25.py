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
from prompts.values import as_text, clean
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


class TextIndex:
    """The words of texts, and what each of them weighs in each text: made once, read by any number of sources."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._places: dict[str, int] = {}
        self.texts = [self._numbers(words(text)) for text in texts]
        self.weights_WI = _index(self.texts, self._places)

    def _numbers(self, found: Sequence[str]) -> Indices:
        return np.array([self._places.setdefault(word, len(self._places)) for word in found], dtype=np.int64)

    def asked(self, text: str) -> Scores:
        """[words]: how often each known word stands in a text."""
        known = (self._places.get(word) for word in words(text[:QUERY_CAP]))
        return self.count([place for place in known if place is not None])

    def count(self, places: Sequence[int] | Indices) -> Scores:
        """[words]: how often each of them is among the places."""
        return np.bincount(np.asarray(places, dtype=np.int64), minlength=len(self._places)).astype(np.float64)


class Bm25:
    """Scores an item by the words that its text shares with what is asked for, rare words counting for more."""

    def __init__(self, index: TextIndex, asks: Asks = "both") -> None:
        self._index, self._asks = index, asks

    def fit(self, data: Interactions) -> None:
        """There is nothing to learn. Raises ConfigError when texts and items do not match."""
        if len(self._index.texts) != len(data.item_ids):
            raise ConfigError(f"bm25: {len(self._index.texts)} texts for {len(data.item_ids)} items")

    def scores(self, history_H: Indices, visit: Visit = NOBODY) -> Scores:
        """[items]: sums of BM25 weights; `NOTHING` for an item that shares no word with what is asked."""
        asked_W = self._asked(history_H, visit)
        found = np.flatnonzero(asked_W)
        total_I: Scores = np.asarray(asked_W[found] @ self._index.weights_WI[found], dtype=np.float64)
        total_I[total_I <= 0] = NOTHING
        return total_I

    def basis(self, history_H: Indices, visit: Visit) -> str:
        """What the scores depend on beside the history."""
        if self._queried(visit):
            return f"query {visit.query[:QUERY_CAP]}"
        return "" if len(history_H) else f"profile {_told(visit)}"

    def _queried(self, visit: Visit) -> bool:
        return self._asks != "timeline" and (self._asks == "query" or bool(visit.query.strip()))

    def _asked(self, history_H: Indices, visit: Visit) -> Scores:
        """[words]: how much each word is asked for: the query, else the timeline, else the profile."""
        if self._queried(visit):
            return self._index.asked(visit.query)
        if not len(history_H):
            return self._index.asked(_told(visit))
        asked_W = self._index.count(())
        for age, item in enumerate(reversed(history_H[-RECENT:])):
            asked_W += self._index.count(self._index.texts[item]) * 0.5 ** (age / HALF_LIFE)
        return asked_W


def _told(visit: Visit) -> str:
    """The profile's values as one text."""
    return as_text(clean(list(visit.profile.values())))


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
    """Items whose text shares words with the request's query, or with what the member chose lately, or is."""

    model_config = ConfigDict(serialize_by_alias=True)
    label: ClassVar[str] = "text match"
    type: Literal["bm25"]
    asks: Asks = Field(
        "both",
        alias="from",
        description="Whose words: the query's, the timeline's (the profile's while it is empty), or both.",
    )

    def build(self, materials: Materials) -> Bm25:
        """A source over what a leaf says of each item."""
        return Bm25(materials.words, self.asks)
