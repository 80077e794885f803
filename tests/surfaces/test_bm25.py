"""What a text match finds, against the formula, and on texts that nobody would write."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.errors import ConfigError
from surfaces.ledger.records import Event
from surfaces.ledger.store import Ledger
from surfaces.sources.base import NOTHING, Interactions, Materials, best
from surfaces.sources.bm25 import HALF_LIFE, QUERY_CAP, RECENT, Asks, Bm25, TextIndex, words
from surfaces.sources.fit import fit_sources
from surfaces.visit import NOBODY, Visit
from tests.contracts.test_source_contract import history, interactions
from tests.surfaces.test_sources import surface

TEXTS = ["the red house", "a blue house by the sea", "red red wine", "", "the sea the sea the sea"]


def asked(query: str) -> Visit:
    return Visit(context={"query": query})


def plain(texts: Sequence[str], weights: dict[str, float]) -> list[float]:
    """BM25 in the form of Lucene, the plain way: k1 1.5, b 0.75."""
    counts = [Counter(words(text)) for text in texts]
    lengths = [sum(count.values()) for count in counts]
    mean = sum(lengths) / len(lengths)

    def weight(word: str, place: int) -> float:
        holding = sum(word in count for count in counts)
        rarity = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        often = counts[place][word]
        return rarity * often / (often + 1.5 * (0.25 + 0.75 * lengths[place] / mean))

    found = [sum(times * weight(word, place) for word, times in weights.items()) for place in range(len(texts))]
    return [value if value > 0 else NOTHING for value in found]


@pytest.mark.parametrize("query", ["red", "the sea", "Red, RED house!", "blue unknown", "sea sea"])
def test_scores_are_bm25(query: str) -> None:
    right = plain(TEXTS, dict(Counter(words(query))))
    assert list(Bm25(TextIndex(TEXTS)).scores(history([]), asked(query))) == pytest.approx(right, rel=1e-5)


def test_the_timeline_asks_with_recent_items_first() -> None:
    older = 0.5 ** (1 / HALF_LIFE)
    right = plain(TEXTS, {"the": older, "red": older + 2, "house": older, "wine": 1.0})
    assert list(Bm25(TextIndex(TEXTS)).scores(history([0, 2]))) == pytest.approx(right, rel=1e-5)


def test_only_so_many_items_ask() -> None:
    source = Bm25(TextIndex(TEXTS))
    assert np.array_equal(
        source.scores(history([2] * 5 + [4] * RECENT)), source.scores(history([0] * 50 + [4] * RECENT))
    )


@pytest.mark.parametrize(
    ("asks", "with_query", "without"),
    [("both", [0, 2], [1, 4, 0]), ("query", [0, 2], []), ("timeline", [1, 4, 0], [1, 4, 0])],
)
def test_what_asks(asks: Asks, with_query: list[int], without: list[int]) -> None:
    source, seen = Bm25(TextIndex(TEXTS), asks), history([1])
    assert set(best(source.scores(seen, asked("red")), 9)) == set(with_query)
    assert set(best(source.scores(seen, NOBODY), 9)) == set(without)
    assert set(best(source.scores(seen, asked("  ")), 9)) == set(without)


def test_a_query_that_nobody_answers_brings_nothing() -> None:
    for query in ("unknown", "?!", "\0", "\ud800", "the" * 9):
        assert (Bm25(TextIndex(TEXTS)).scores(history([0]), asked(query)) == NOTHING).all()


def test_of_a_long_query_the_beginning_is_read() -> None:
    source = Bm25(TextIndex(TEXTS))
    long = "wine " + "x " * QUERY_CAP + "blue"
    assert np.array_equal(source.scores(history([]), asked(long)), source.scores(history([]), asked("wine")))


@pytest.mark.parametrize("texts", [[], [""], ["", "", ""], ["!", "?"]], ids=repr)
def test_texts_without_words(texts: list[str]) -> None:
    source = Bm25(TextIndex(texts))
    source.fit(interactions([], items=len(texts)))
    scores_I = source.scores(history(range(len(texts))), asked("red"))
    assert list(scores_I) == [NOTHING] * len(texts)
    assert list(source.scores(history(range(len(texts))))) == [NOTHING] * len(texts)


def test_texts_and_items_must_match() -> None:
    with pytest.raises(ConfigError, match="bm25: 1 texts for 2 items"):
        Bm25(TextIndex(["red"])).fit(interactions([], items=2))


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("The Sea, the SEA", ["the", "sea", "the", "sea"]),
        ("C3PO's 2nd naïve Café_bar", ["c3po", "s", "2nd", "naïve", "café", "bar"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("cafe\u0301 ﬁlm", ["café", "film"]),
        ("Война и мир", ["война", "и", "мир"]),
        ("東京 tower", ["東", "京", "tower"]),
        ("…—!", []),
    ],
)
def test_words(text: str, right: list[str]) -> None:
    assert words(text) == right


@given(texts=st.lists(st.text(max_size=20), max_size=6), query=st.text(max_size=30), seen=st.booleans())
def test_any_text(texts: list[str], query: str, seen: bool) -> None:
    source = Bm25(TextIndex(texts))
    scores_I = source.scores(history(range(len(texts)) if seen else []), asked(query))
    assert scores_I.shape == (len(texts),)
    assert ((scores_I > 0) | (scores_I == NOTHING)).all()
    shared = [bool(set(words(text)) & set(words(query))) for text in texts]
    assert not query.strip() or [score > 0 for score in scores_I] == shared


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    Bm25(TextIndex(TEXTS * 200)).scores(history([0]), asked("red"))
    assert capfd.readouterr() == ("", "")


def test_search_on_movielens(movielens: Ledger) -> None:
    spec = surface("type: bm25, k: 5, from: query", "type: bm25, name: lately, k: 5, from: timeline")
    spec = spec.model_copy(update={"evidence": ("bm25",)})
    found = fit_sources(Materials(spec, Interactions.of(movielens, "movie"), movielens, None))
    star_wars = next(item for item in movielens.all_items("movie") if item.attributes["title"] == "Star Wars")
    seen = [Event("x", star_wars.item_id, "movies", "watch", 1.0)]
    brought = found.gather(Visit(seen, context={"query": "the godfather"}, lookup=movielens.items))
    titles = [movielens.item(one.item_id).attributes["title"] for one in brought if "bm25" in one.sources]
    assert any("Godfather" in str(title) for title in titles[:2])
    assert brought[0].sources.keys() & {"bm25", "lately"}
    (piece,) = found.evidence(Visit(seen), [star_wars.item_id], compress=False)
    assert piece.text == " (text match top 1)"
