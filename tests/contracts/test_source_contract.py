"""What every source does, whatever it knows."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surfaces.sources.base import NOTHING, Indices, Interactions, Source, retrieve
from surfaces.sources.co_visitation import CoVisitation
from surfaces.sources.embedding import Embedding
from surfaces.sources.popular import Popular

ITEMS, MEMBERS = 40, 25


def interactions(sequences: Sequence[Sequence[int]], items: int = ITEMS) -> Interactions:
    item_ids = tuple(f"item {place:03}" for place in range(items))
    return Interactions(
        item_ids=item_ids,
        index={item_id: place for place, item_id in enumerate(item_ids)},
        member_ids=tuple(f"member {place}" for place in range(len(sequences))),
        sequences=tuple(np.array(sequence, dtype=np.int64) for sequence in sequences),
        times=tuple(np.arange(len(sequence), dtype=np.float64) * 3_600 for sequence in sequences),
    )


def drawn(seed: int, items: int = ITEMS) -> Interactions:
    """Members who choose from the first three quarters of the items, the early ones more often."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, 3 * items // 4 + 1)
    return interactions(
        [list(rng.choice(len(weights), size=rng.integers(0, 30), p=weights / weights.sum())) for _ in range(MEMBERS)],
        items,
    )


def hashed_words(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """[texts, 16]: unit vectors of hashed words."""
    rows = np.zeros((len(texts), 16), dtype=np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.split():
            row[zlib.crc32(word.encode()) % 16] += 1
    lengths: npt.NDArray[np.float32] = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths)


def make_source(kind: str, items: int) -> Source:
    if kind == "embedding":
        return Embedding(hashed_words, [f"film {place % 7} of {place % 5} and {place}" for place in range(items)])
    sources: dict[str, Source] = {
        "popular": Popular(),
        "popular_decayed": Popular(half_life=7_200.0),
        "co_visitation": CoVisitation(),
        "co_visitation_narrow": CoVisitation(neighbours=3, recent=2, decay=0.5),
    }
    return sources[kind]


Make = Callable[[int], Source]


@pytest.fixture(params=["popular", "popular_decayed", "co_visitation", "co_visitation_narrow", "embedding"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes a source, not yet fitted, for that many items."""
    return partial(make_source, request.param)


@pytest.fixture
def fitted(make: Make) -> Source:
    source = make(ITEMS)
    source.fit(drawn(0))
    return source


HISTORIES = [[], [0], [3, 1, 4, 1, 5], [39], list(range(40)), [2] * 500, list(range(40)) * 50]


def history(items: Sequence[int]) -> Indices:
    return np.array(items, dtype=np.int64)


@pytest.mark.parametrize("items", HISTORIES, ids=len)
def test_scores(fitted: Source, items: list[int]) -> None:
    history_H = history(items)
    scores_I = fitted.scores(history_H)
    assert scores_I.shape == (ITEMS,)
    assert scores_I.dtype == np.float64
    assert not np.isnan(scores_I).any()
    assert not np.isposinf(scores_I).any()
    assert np.array_equal(history_H, history(items)), "the history is only read"
    assert np.array_equal(fitted.scores(history_H), scores_I)


def test_the_name_is_a_word(fitted: Source) -> None:
    assert fitted.name in {"popular", "co_visitation", "embedding"}


@pytest.mark.parametrize("k", [1, 3, 10, ITEMS, 1_000])
@pytest.mark.parametrize("items", HISTORIES, ids=len)
def test_what_is_retrieved_is_the_best_of_the_scores(fitted: Source, items: list[int], k: int) -> None:
    history_H, exclude = history(items), set(items[:5]) | {0, 7}
    found = retrieve(fitted, history_H, k, exclude)
    scores_I = fitted.scores(history_H)
    open_items = [item for item in range(ITEMS) if item not in exclude and scores_I[item] > NOTHING]
    right = sorted(open_items, key=lambda item: (-scores_I[item], item))[:k]
    assert len(found) == len(right)
    assert len({item for item, _ in found}) == len(found)
    assert not exclude & {item for item, _ in found}
    assert [score for _, score in found] == pytest.approx([scores_I[item] for item in right], abs=1e-6)
    assert [score for _, score in found] == pytest.approx([scores_I[item] for item, _ in found], abs=1e-6)


def test_retrieving_changes_nothing(fitted: Source) -> None:
    before = fitted.scores(history([1, 2])).copy()
    retrieve(fitted, history([1, 2]), 5, {3, 4, 5})
    assert np.array_equal(fitted.scores(history([1, 2])), before)
    assert retrieve(fitted, history([1, 2]), 5, range(ITEMS)) == []


def test_the_same_data_gives_the_same_source(make: Make) -> None:
    one, other = make(ITEMS), make(ITEMS)
    one.fit(drawn(1))
    other.fit(drawn(1))
    assert np.array_equal(one.scores(history([5, 6])), other.scores(history([5, 6])))


def test_fitting_again_forgets(make: Make) -> None:
    source, fresh = make(ITEMS), make(ITEMS)
    source.fit(drawn(1))
    source.fit(drawn(2))
    fresh.fit(drawn(2))
    assert np.array_equal(source.scores(history([5, 6])), fresh.scores(history([5, 6])))


def test_fitting_only_reads_the_data(make: Make) -> None:
    data = drawn(3)
    make(ITEMS).fit(data)
    same = drawn(3)
    assert all(np.array_equal(one, other) for one, other in zip(data.sequences, same.sequences, strict=True))
    assert all(np.array_equal(one, other) for one, other in zip(data.times, same.times, strict=True))


@pytest.mark.parametrize("sequences", [[], [[]], [[], [], []]], ids=["nobody", "one", "three"])
def test_no_events_at_all(make: Make, sequences: list[list[int]]) -> None:
    source = make(ITEMS)
    source.fit(interactions(sequences))
    scores_I = source.scores(history([]))
    assert scores_I.shape == (ITEMS,)
    assert not np.isnan(scores_I).any()
    assert len(retrieve(source, history([1]), 5)) <= 5


def test_no_items_at_all(make: Make) -> None:
    source = make(0)
    source.fit(interactions([[], []], items=0))
    assert source.scores(history([])).shape == (0,)
    assert retrieve(source, history([]), 5) == []


def test_a_single_item(make: Make) -> None:
    source = make(1)
    source.fit(interactions([[0, 0], [0]], items=1))
    assert source.scores(history([0])).shape == (1,)
    assert retrieve(source, history([0]), 3, {0}) == []


def test_many_threads_at_once(fitted: Source) -> None:
    histories = [history([place % ITEMS, (place * 7) % ITEMS]) for place in range(60)]
    alone = [fitted.scores(history_H).copy() for history_H in histories]
    with ThreadPoolExecutor(6) as threads:
        together = list(threads.map(fitted.scores, histories))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sequences=st.lists(st.lists(st.integers(0, 11), max_size=8), max_size=6),
    items=st.lists(st.integers(0, 11), max_size=6),
    k=st.integers(1, 15),
)
def test_any_data(make: Make, sequences: list[list[int]], items: list[int], k: int) -> None:
    source = make(12)
    source.fit(interactions(sequences, items=12))
    found = retrieve(source, history(items), k, set(items))
    assert len(found) <= min(k, 12 - len(set(items)))
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert np.isfinite(scores).all()
