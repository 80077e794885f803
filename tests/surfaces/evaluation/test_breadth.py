"""How much of a catalogue slates show, and how popular that is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from surfaces.evaluation.breadth import catalogue_coverage, gini, head_items, popularity_bias, popularity_of

Ints = npt.NDArray[np.int64]

COUNTS = np.array([50, 3, 0, 20, 3, 0])


@st.composite
def slates(draw: st.DrawFn) -> tuple[Ints, int]:
    """Slates of different length from a small catalogue, one item or more among them."""
    items, places = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    row = st.lists(st.integers(-1, items - 1), min_size=places, max_size=places)
    tops = draw(st.lists(row, min_size=1, max_size=6).map(np.array).filter(lambda found: (found >= 0).any()))
    return tops, items


# Coverage and concentration


def test_coverage_by_hand() -> None:
    tops = np.array([[0, 1, 2], [1, 2, -1], [2, -1, -1]])
    assert catalogue_coverage(tops, 3) == 1.0
    assert catalogue_coverage(tops, 12) == 0.25
    assert catalogue_coverage(tops[2:], 12) == pytest.approx(1 / 12)


def test_gini_by_hand() -> None:
    assert gini(np.arange(10).reshape(5, 2), 10) == 0.0
    assert gini(np.full((4, 2), 3), 10) == pytest.approx(0.9)
    assert gini(np.array([[0, 1], [0, 2], [0, -1]]), 3) == pytest.approx(4 / 15)


@given(drawn=slates())
def test_gini_is_the_mean_difference_over_twice_the_mean(drawn: tuple[Ints, int]) -> None:
    tops, items = drawn
    times = np.array([(tops == item).sum() for item in range(items)])
    expected = np.abs(times[:, None] - times).mean() / (2 * times.mean())
    assert gini(tops, items) == pytest.approx(expected, abs=1e-12)
    assert 0.0 <= gini(tops, items) <= 1 - 1 / items


@given(drawn=slates(), seed=st.integers(0, 99))
def test_neither_order_nor_names_count(drawn: tuple[Ints, int], seed: int) -> None:
    tops, items = drawn
    rng = np.random.default_rng(seed)
    counts, names = rng.integers(0, 5, size=items), np.append(rng.permutation(items), -1)
    renamed = rng.permuted(names[tops], axis=1)
    assert catalogue_coverage(renamed, items) == catalogue_coverage(tops, items)
    assert gini(renamed, items) == pytest.approx(gini(tops, items))
    moved = np.empty_like(counts)
    moved[names[:-1]] = counts
    assert popularity_bias(renamed, moved) == pytest.approx(popularity_bias(tops, counts))


def test_more_slates_never_cover_less() -> None:
    tops = np.random.default_rng(0).integers(0, 200, size=(60, 5))
    covered = [catalogue_coverage(tops[:members], 200) for members in range(1, 61)]
    assert covered == sorted(covered)
    assert covered[-1] == pytest.approx(len(set(tops.ravel().tolist())) / 200)


# Popularity


def test_popularity_by_hand() -> None:
    """Percentiles of the counts 50, 3, 0, 20, 3, 0: the cold two share 1/6, those of 3 events 3/6."""
    found = [popularity_of(np.array([item]), COUNTS) for item in range(6)]
    assert found == pytest.approx([11 / 12, 1 / 2, 1 / 6, 3 / 4, 1 / 2, 1 / 6])
    assert popularity_bias(np.array([[0, 3], [0, -1]]), COUNTS) == pytest.approx((2 * 11 / 12 + 3 / 4) / 3)


@given(counts=st.lists(st.integers(0, 6), min_size=1, max_size=30).map(np.array))
def test_the_catalogue_is_half_popular(counts: Ints) -> None:
    everything = np.arange(len(counts))
    assert popularity_of(everything, counts) == pytest.approx(0.5, abs=1e-12)
    found = [popularity_of(everything[item : item + 1], counts) for item in everything]
    assert found == pytest.approx((rankdata(counts) - 0.5) / len(counts))


def test_a_popular_list_is_more_popular_than_chance() -> None:
    rng = np.random.default_rng(1)
    counts = rng.zipf(1.5, size=500)
    best = np.tile(np.argsort(-counts)[:10], (40, 1))
    assert popularity_bias(best, counts) > 0.98
    assert popularity_bias(rng.integers(0, 500, size=(400, 10)), counts) == pytest.approx(0.5, abs=0.02)


# Head, tail, cold


def test_parts_by_hand() -> None:
    head, tail, cold = head_items(COUNTS)
    assert np.flatnonzero(head).tolist() == [0]
    assert np.flatnonzero(tail).tolist() == [1, 3, 4]
    assert np.flatnonzero(cold).tolist() == [2, 5]


@pytest.mark.parametrize(
    ("counts", "head"),
    [
        ([1, 1, 1, 1], [0, 1]),
        ([1, 1, 1], [0, 1]),
        ([2, 5, 2, 5], [1, 3]),
        ([2, 9, 2, 9, 9], [1, 3]),
        ([0, 7], [1]),
        ([4, 3, 1], [0]),
        ([3, 4, 2], [0, 1]),
        ([0, 0], []),
        ([], []),
    ],
)
def test_the_head_is_the_smallest_set_with_half_of_the_events(counts: list[int], head: list[int]) -> None:
    found = head_items(np.array(counts, dtype=np.int64))
    assert np.flatnonzero(found.head).tolist() == head


def test_of_equal_items_the_first_are_the_head() -> None:
    counts = np.random.default_rng(3).integers(0, 3, size=999)
    head, twice = head_items(counts).head, np.flatnonzero(counts == 2)
    assert head[twice].tolist() == [True] * int(head.sum()) + [False] * (len(twice) - int(head.sum()))


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64, np.uint64])
@given(counts=st.lists(st.integers(0, 200), min_size=1, max_size=40))
def test_parts_of_every_catalogue(kind: type[np.integer], counts: list[int]) -> None:
    counts_I = np.array(counts, dtype=kind)
    head, tail, cold = head_items(counts_I)
    assert np.array_equal(head.astype(int) + tail + cold, np.ones(len(counts)))
    assert np.array_equal(cold, counts_I == 0)
    total, inside = sum(counts), [count for count, first in zip(counts, head, strict=True) if first]
    if total:
        assert 2 * sum(inside) >= total > 2 * (sum(inside) - min(inside))
        assert min(inside) >= max([count for count, rest in zip(counts, tail, strict=True) if rest], default=0)


# What cannot be measured


@pytest.mark.parametrize(
    ("tops", "told"),
    [
        (np.full((2, 3), -1), "slates .* show nothing of 6 items"),
        (np.zeros((1, 0), dtype=np.int64), "slates .* show nothing of 6 items"),
        (np.array([[0, 6]]), "slates: item numbers are -1 .no item. or 0 to 5"),
        (np.array([[0, -2]]), "slates: item numbers are -1 .no item. or 0 to 5"),
    ],
)
@pytest.mark.parametrize(
    "figure",
    [
        lambda tops: catalogue_coverage(tops, 6),
        lambda tops: gini(tops, 6),
        lambda tops: popularity_bias(tops, COUNTS),
        lambda tops: popularity_of(tops[0], COUNTS),
    ],
)
def test_what_is_no_slate(figure: Callable[[Ints], float], tops: Ints, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        figure(tops)


def test_what_is_no_catalogue() -> None:
    with pytest.raises(ValueError, match="of 0 items"):
        gini(np.array([[0]]), 0)
    with pytest.raises(ValueError, match="counts: some are negative"):
        head_items(np.array([3, -1]))
