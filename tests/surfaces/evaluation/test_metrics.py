"""Figures of one ranking: against scikit-learn, ranx, and every order of the tied items."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import permutations, product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from surfaces.evaluation import metrics
from surfaces.evaluation.metrics import METRICS, SHOWN, auc, figures, hit_rate, ndcg, recall, reciprocal_rank

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Ranking = tuple[Floats, Ints]

DEPTHS = (1, 2, 3, 5, 10, 20, 60)


def drawn(rng: np.random.Generator, items: int, levels: int) -> Ranking:
    """Scores of few levels, one of them -inf; labels 0 to 3, at least one of them above 0."""
    scores = rng.integers(0, levels, size=items).astype(np.float64)
    scores[scores == 0] = -np.inf
    labels = rng.integers(1, 4, size=items) * (rng.random(items) < rng.choice([0.03, 0.2, 0.7]))
    labels[rng.integers(items)] = rng.integers(1, 4)
    return scores, labels


def many(count: int, most: int, seed: int = 0) -> list[Ranking]:
    rng = np.random.default_rng(seed)
    return [drawn(rng, int(rng.integers(2, most)), int(rng.choice([2, 4, 15, 1_000]))) for _ in range(count)]


def orders(scores: Floats) -> Iterator[tuple[int, ...]]:
    """Every order of the items that the scores allow."""
    levels = sorted(set(scores.tolist()), reverse=True)
    for parts in product(*(permutations(np.flatnonzero(scores == level).tolist()) for level in levels)):
        yield tuple(place for part in parts for place in part)


@st.composite
def rankings(draw: st.DrawFn, most: int = 6) -> Ranking:
    """A short list with many ties and at least one relevant item."""
    items = draw(st.integers(1, most))
    scores = draw(st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 2.0]), min_size=items, max_size=items))
    labels = draw(st.lists(st.integers(0, 3), min_size=items, max_size=items).filter(any))
    return np.array(scores), np.array(labels)


# Against other implementations


def test_ndcg_is_scikit_learns() -> None:
    for scores, labels in many(300, 40):
        finite = np.where(np.isinf(scores), -1e9, scores)
        for k in DEPTHS:
            assert ndcg(scores, labels, k) == pytest.approx(ndcg_score([labels], [finite], k=k), abs=1e-9)


def test_auc_is_scikit_learns() -> None:
    compared = 0
    for scores, labels in many(300, 40):
        if (labels == 0).any():
            compared += 1
            finite = np.where(np.isinf(scores), -1e9, scores)
            assert auc(scores, labels) == pytest.approx(roc_auc_score(labels > 0, finite), abs=1e-9)
    assert compared > 250


RANX: dict[str, Callable[[Floats, Ints], float]] = {
    **{f"ndcg@{k}": partial(ndcg, k=k) for k in (3, 10)},
    **{f"hit_rate@{k}": partial(hit_rate, k=k) for k in (1, 3, 10)},
    **{f"recall@{k}": partial(recall, k=k) for k in (1, 3, 10)},
    "mrr": reciprocal_rank,
}


class Orders:
    """Rankings without and with ties, and what ranx finds for every order that each allows."""

    def __init__(self) -> None:
        from ranx import Qrels, Run, evaluate

        rng = np.random.default_rng(5)
        self.distinct = [(rng.permutation(len(labels)).astype(np.float64), labels) for _, labels in many(150, 60)]
        self.tied = many(80, 7, seed=6)
        self.rows: list[list[str]] = []
        qrels: dict[str, dict[str, int]] = {}
        run: dict[str, dict[str, float]] = {}
        for scores, labels in self.distinct + self.tied:
            self.rows.append([])
            for order in orders(scores):
                name = f"q{len(qrels)}"
                self.rows[-1].append(name)
                qrels[name] = {f"d{place}": int(labels[place]) for place in order if labels[place]}
                run[name] = {f"d{place}": -float(rank) for rank, place in enumerate(order)}
        ranked = Run(run)
        evaluate(Qrels(qrels), ranked, list(RANX), make_comparable=True)
        self.found = ranked.scores

    def mean(self, name: str, number: int) -> float:
        return float(np.mean([self.found[name][row] for row in self.rows[number]]))


@pytest.fixture(scope="module")
def by_ranx() -> Orders:
    """Once for all: ranx compiles when it is first called."""
    return Orders()


@pytest.mark.slow  # ranx compiles for a minute
@pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaTypeSafetyWarning")
@pytest.mark.parametrize("name", RANX)
def test_without_ties_the_figures_are_those_of_ranx(by_ranx: Orders, name: str) -> None:
    for number, (scores, labels) in enumerate(by_ranx.distinct):
        assert len(by_ranx.rows[number]) == 1
        assert RANX[name](scores, labels) == pytest.approx(by_ranx.mean(name, number), abs=1e-9)


@pytest.mark.slow  # ranx compiles for a minute
@pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaTypeSafetyWarning")
@pytest.mark.parametrize("name", RANX)
def test_with_ties_they_are_the_mean_of_ranx_over_all_orders(by_ranx: Orders, name: str) -> None:
    assert sum(map(len, by_ranx.rows)) > 600
    for number, (scores, labels) in enumerate(by_ranx.tied, start=len(by_ranx.distinct)):
        assert RANX[name](scores, labels) == pytest.approx(by_ranx.mean(name, number), abs=1e-9)


# By definition


def by_definition(gains: Ints, k: int) -> dict[str, float]:
    """Figures of one order, best first."""
    discounts = 1 / np.log2(np.arange(2, len(gains) + 2))
    relevant, before = gains > 0, np.flatnonzero(gains > 0)
    pairs = [(one, other) for one in before for other in np.flatnonzero(~relevant)]
    return {
        "ndcg": float((gains * discounts)[:k].sum() / (np.sort(gains)[::-1] * discounts)[:k].sum()),
        "hr": float(relevant[:k].any()),
        "recall": float(relevant[:k].sum() / relevant.sum()),
        "mrr": 1.0 / (before[0] + 1.0),
        "auc": float(np.mean([one < other for one, other in pairs])) if pairs else 0.5,
    }


@given(ranking=rankings(), k=st.integers(1, 8))
def test_every_figure_is_the_mean_over_all_orders_of_the_tied_items(ranking: Ranking, k: int) -> None:
    scores, labels = ranking
    each = [by_definition(labels[list(order)], k) for order in orders(scores)]
    found = {
        "ndcg": ndcg(scores, labels, k),
        "hr": hit_rate(scores, labels, k),
        "recall": recall(scores, labels, k),
        "mrr": reciprocal_rank(scores, labels),
        "auc": auc(scores, labels),
    }
    for name, value in found.items():
        assert value == pytest.approx(np.mean([row[name] for row in each]), abs=1e-12), name


def test_one_relevant_item_by_hand() -> None:
    scores, labels = np.array([9.0, 5.0, 5.0, 5.0, 1.0]), np.array([0, 0, 1, 0, 0])
    assert hit_rate(scores, labels, 1) == 0.0
    assert hit_rate(scores, labels, 2) == pytest.approx(1 / 3)
    assert hit_rate(scores, labels, 4) == 1.0
    assert reciprocal_rank(scores, labels) == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)
    assert ndcg(scores, labels, 3) == pytest.approx((1 / math.log2(3) + 1 / 2) / 3)
    assert auc(scores, labels) == 0.5


def test_two_of_a_tied_group_within_reach() -> None:
    scores, labels = np.array([2.0, 1.0, 1.0, 1.0, 1.0]), np.array([0, 1, 1, 0, 0])
    assert hit_rate(scores, labels, 3) == pytest.approx(1 - 1 / math.comb(4, 2))
    assert recall(scores, labels, 3) == pytest.approx(0.5)
    assert reciprocal_rank(scores, labels) == pytest.approx((3 / 2 + 2 / 3 + 1 / 4) / 6)


# What every figure is


def test_what_is_reported() -> None:
    assert METRICS == ("ndcg@5", "ndcg@10", "ndcg@20", "hr@1", "hr@5", "hr@10", "hr@20", "mrr", "auc")
    assert SHOWN == ("ndcg@10", "hr@10", "mrr", "auc")
    for scores, labels in many(50, 60, seed=3):
        found = figures(scores, labels)
        assert tuple(found) == METRICS
        assert all(type(value) is float for value in found.values())
        for k in (5, 10, 20):
            assert found[f"ndcg@{k}"] == ndcg(scores, labels, k)
        for k in (1, 5, 10, 20):
            assert found[f"hr@{k}"] == hit_rate(scores, labels, k)
        assert (found["mrr"], found["auc"]) == (reciprocal_rank(scores, labels), auc(scores, labels))


@given(ranking=rankings(most=40))
def test_figures_are_shares(ranking: Ranking) -> None:
    scores, labels = ranking
    for found in (figures(scores, labels), {"recall": recall(scores, labels, 3)}):
        assert all(0.0 <= value <= 1.0 for value in found.values())


@given(ranking=rankings(most=30), seed=st.integers(0, 99))
def test_neither_scale_nor_order_of_the_items_counts(ranking: Ranking, seed: int) -> None:
    scores, labels = ranking
    order = np.random.default_rng(seed).permutation(len(scores))
    expected = pytest.approx(figures(scores, labels), abs=1e-12)
    assert figures(scores + 3.25, labels) == expected
    assert figures(np.exp(scores), labels) == expected
    assert figures(scores[order], labels[order]) == expected
    assert figures(scores.astype(np.float32), labels.astype(np.float32)) == expected


@given(ranking=rankings(most=25), data=st.data())
def test_a_better_place_is_never_worse(ranking: Ranking, data: st.DataObject) -> None:
    """A relevant item is raised past items that are worth no more than it."""
    scores, labels = ranking
    item = data.draw(st.sampled_from(np.flatnonzero(labels == labels.max()).tolist()))
    raised = scores.copy()
    raised[item] = data.draw(st.sampled_from([score for score in (-1.0, 0.0, 1.0, 2.0, 3.0) if score >= scores[item]]))
    before, after = figures(scores, labels), figures(raised, labels)
    assert all(after[name] >= before[name] - 1e-12 for name in METRICS)


@pytest.mark.parametrize("relevant", [1, 2, 8, 9, 30, 299, 300])
@pytest.mark.parametrize("levels", [1, 3, 40, 10**9])
def test_counting_and_sorting_find_the_same(relevant: int, levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(relevant)
    scores, labels = -rng.integers(0, levels, size=300).astype(np.float64), np.zeros(300)
    scores[rng.random(300) < 0.1] = -np.inf
    labels[rng.choice(300, relevant, replace=False)] = rng.random(relevant) + 0.1
    found = []
    for few in (0, 300):
        monkeypatch.setattr(metrics, "FEW", few)
        found.append({**figures(scores, labels), "recall": recall(scores, labels, 10)})
    assert found[0] == pytest.approx(found[1], abs=1e-12)


@pytest.mark.parametrize("items", [2_000, 17_000])
def test_a_large_tied_group_stays_exact(items: int) -> None:
    """With two relevant items of n in one group, P(the first at place j) is (n - j) / C(n, 2)."""
    labels = np.zeros(items)
    labels[:2] = 1.0
    places = np.arange(1, items)
    expected = float(((items - places) / math.comb(items, 2)) @ (1 / places))
    assert reciprocal_rank(np.zeros(items), labels) == pytest.approx(expected, abs=1e-12)
    assert hit_rate(np.zeros(items), labels, 10) == pytest.approx(
        1 - math.comb(items - 2, 10) / math.comb(items, 10), abs=1e-12
    )
    labels[1] = 0.0
    assert reciprocal_rank(np.zeros(items), labels) == pytest.approx(math.fsum(1 / np.arange(1, items + 1)) / items)


# What cannot be measured


@pytest.mark.parametrize("labels", [np.zeros(3), np.zeros(3, dtype=np.bool_)])
def test_without_a_relevant_item_there_is_no_figure(labels: npt.NDArray[np.float64]) -> None:
    scores = np.array([1.0, 2.0, 3.0])
    calls: list[Callable[[], object]] = [
        lambda: ndcg(scores, labels, 3),
        lambda: hit_rate(scores, labels, 3),
        lambda: recall(scores, labels, 3),
        lambda: reciprocal_rank(scores, labels),
        lambda: figures(scores, labels),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="none of 3 items is relevant; one label or more must be above 0"):
            call()


def test_auc_is_a_half_without_pairs() -> None:
    for labels in (np.zeros(3), np.ones(3)):
        assert auc(np.array([1.0, 2.0, 3.0]), labels) == 0.5
    assert auc(np.zeros(0), np.zeros(0)) == 0.5
    assert figures(np.array([7.0]), np.array([2])) == dict.fromkeys(METRICS, 1.0) | {"auc": 0.5}


@pytest.mark.parametrize(
    ("scores", "labels", "told"),
    [
        ([1.0, np.nan], [1.0, 0.0], "scores: some are NaN; give -inf"),
        ([1.0, 2.0], [1.0, -1.0], "labels: some are negative or not finite"),
        ([1.0, 2.0], [1.0, np.nan], "labels: some are negative or not finite"),
        ([1.0, 2.0], [1.0, np.inf], "labels: some are negative or not finite"),
        ([1.0, 2.0], [1.0], r"scores \(2,\) and labels \(1,\); give one of each an item"),
        ([[1.0, 2.0]], [[1.0, 0.0]], r"scores \(1, 2\)"),
    ],
)
def test_what_is_no_ranking(scores: list[float], labels: list[float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        figures(np.array(scores), np.array(labels))


@pytest.mark.parametrize("figure", [ndcg, hit_rate, recall])
@pytest.mark.parametrize("k", [0, -1])
def test_a_depth_of_nothing(figure: Callable[[Floats, Floats, int], float], k: int) -> None:
    with pytest.raises(ValueError, match=f"k: {k}; a ranking is looked at to a depth of 1 or more"):
        figure(np.array([1.0, 2.0]), np.array([1.0, 0.0]), k)
