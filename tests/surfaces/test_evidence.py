"""What sources say in words: places among the unseen, fine at the top."""

from __future__ import annotations

import numpy as np
import pytest

from surfaces.evidence import LOW, NONE, TOPS, evidence_piece, labels, levels, vocabulary
from surfaces.sources.base import NOTHING

NOBODY = np.zeros(0, dtype=np.int64)


def test_the_first_places_are_told_apart() -> None:
    found = levels(np.arange(2000, 0, -1, dtype=np.float64), NOBODY)
    assert found[:5].tolist() == [0, 1, 2, 3, 4]
    assert found[5:7].tolist() == [5, 5]
    assert found[999] == len(TOPS) - 1
    assert found[1000] == LOW


def test_seen_items_take_no_places() -> None:
    scores = np.array([9.0, 8.0, 7.0, 6.0])
    assert levels(scores, np.array([0, 1])).tolist()[2:] == [0, 1]


def test_a_seen_item_is_placed_by_its_own_score() -> None:
    assert levels(np.array([9.0, 8.0, 7.0]), np.array([1])).tolist() == [0, 1, 1]


def test_silence_is_no_low_place() -> None:
    assert levels(np.array([1.0, NOTHING, NOTHING]), NOBODY).tolist() == [0, NONE, NONE]
    assert levels(np.full(3, NOTHING), np.array([1])).tolist() == [NONE] * 3


def test_equal_scores_are_equal_places() -> None:
    assert levels(np.array([1.0, 2.0, 1.0, 1.0]), NOBODY).tolist() == [1, 0, 1, 1]


def test_scores_are_left_as_they_were() -> None:
    scores = np.array([3.0, 2.0])
    levels(scores, np.array([0]))
    assert scores.tolist() == [3.0, 2.0]


@pytest.mark.parametrize("compress", [False, True])
def test_words_are_the_same_whatever_the_surface(compress: bool) -> None:
    piece = evidence_piece(("popularity", "chosen together"), (3, NONE), compress=compress)
    assert piece.text == " (popularity top 4, chosen together none)"
    assert piece.compress is compress


def test_the_vocabulary_has_every_phrase() -> None:
    phrases = " ".join(vocabulary())
    assert all(f"{label} top {top}" in phrases for label in labels().values() for top in TOPS)
    assert all(f"{label} {word}" in phrases for label in labels().values() for word in ("low", "none"))


def test_every_source_with_a_label_can_speak() -> None:
    assert labels() == {
        "popular": "popularity",
        "co_visitation": "chosen together",
        "embedding": "alike",
        "bm25": "text match",
        "recent": "newness",
    }
