"""What the sources say of a candidate, in words that mean the same on every surface.

A source's opinion is the candidate's place among all items that the member has not acted on, told finely at the top and
coarsely below. The text comes right behind the candidate's own in its leaf.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt

from prompts.tree import Piece
from surfaces.kinds import kinds
from surfaces.sources.base import NOTHING, Indices, Scores, SourceKind
from surfaces.sources.overall import OVERALL

TOPS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000)
FEW = 16
"""Of so many items the place is counted one by one; for more, all are sorted."""
LOW, NONE = len(TOPS), len(TOPS) + 1
_LEVELS = np.searchsorted(TOPS, np.arange(1, TOPS[-1] + 2))
"""The words for so many items above, up to those that are told apart."""
_WORDS = (*(f"top {top}" for top in TOPS), "low", "none")


def levels(scores_I: Scores, seen: Indices, asked: Indices | None = None) -> npt.NDArray[np.int64]:
    """[items]: how high each item stands among the unseen, as an index of words; `NONE` where the source is silent.

    Items that score the same stand equally high; one that was seen is placed by the score that it has. With `asked`,
    only those items are told, in that order.
    """
    asked_I = scores_I if asked is None else scores_I[asked]
    if len(asked_I) > FEW:
        return _levels(_above(top(scores_I, seen), asked_I), asked_I)
    open_I = _unseen(scores_I, seen)
    return _levels(np.array([np.count_nonzero(open_I > score) for score in asked_I], dtype=np.int64), asked_I)


def top(scores_I: Scores, seen: Indices) -> Scores:
    """The highest scores of the unseen items, rising: as many as are told apart."""
    open_I = _unseen(scores_I, seen)
    first: Scores = open_I if len(open_I) <= TOPS[-1] else np.partition(open_I, -TOPS[-1])[-TOPS[-1] :]
    return np.sort(first)


def stand(tops: Sequence[Scores], asked_AI: Scores) -> npt.NDArray[np.int64]:
    """[sources, items]: as `levels`, of the scores that each source gives, where the `top` of each is known."""
    above_AI = [_above(top_T, asked_I) for top_T, asked_I in zip(tops, asked_AI, strict=True)]
    return _levels(np.array(above_AI), asked_AI)


def _above(top_T: Scores, asked_I: Scores) -> npt.NDArray[np.int64]:
    """[items]: how many of the highest scores are above each; lower places are told alike."""
    return len(top_T) - top_T.searchsorted(asked_I, side="right")


def _unseen(scores_I: Scores, seen: Indices) -> Scores:
    open_I = scores_I.copy()
    open_I[seen] = NOTHING
    return open_I


def _levels(above: npt.NDArray[np.int64], asked: Scores) -> npt.NDArray[np.int64]:
    """[...]: the words for so many items above, and for such scores."""
    found = _LEVELS[np.minimum(above, TOPS[-1])]
    found[asked == NOTHING] = NONE
    return found


def labels() -> Mapping[str, str]:
    """What each source that can give evidence is called in a leaf, by its type."""
    return {name: kind.label for name, kind in kinds("sources").items() if issubclass(kind, SourceKind) and kind.label}


def evidence_pieces(labels: Sequence[str], found: Iterable[Sequence[int]], *, compress: bool) -> list[Piece]:
    """The words for each candidate: `found` has, for each, the level that the source of each label gives it."""
    phrases = [_phrases(label) for label in labels]
    return [_said([phrase[level] for phrase, level in zip(phrases, row, strict=True)], compress) for row in found]


def _said(parts: Sequence[str], compress: bool) -> Piece:
    return Piece(f" ({','.join(parts)[1:]})", compress, tuple(parts))


@lru_cache(maxsize=256)
def _phrases(label: str) -> Sequence[str]:
    """What a source may say, by level: each phrase one object, so that its tokens are found quickly."""
    return tuple([f" {label} {word}" for word in _WORDS])


def vocabulary() -> list[str]:
    """Every phrase there is, for a tokenizer to learn."""
    return [f" ({label} {word}, {label} {word})" for label in (*labels().values(), OVERALL) for word in _WORDS]


def unforged(text: str) -> str:
    """An item's text without places that it claims in a source's words, such as "(popularity top 1)"."""
    if "top " not in text.lower():
        return text
    return _opinions(tuple(labels().values())).sub(" ", text)


@cache
def _opinions(names: tuple[str, ...]) -> re.Pattern[str]:
    said = "|".join(map(re.escape, (*names, OVERALL)))
    return re.compile(rf"[ (\[]*(?:\b(?:{said})\W{{1,3}}top \d+\b[ ,;|()\[\].]*)+", re.IGNORECASE)
