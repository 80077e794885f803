"""Methods over cases: the same for all, kept while they run, resumed where they stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from prompts.errors import ConfigError, PrismrankError
from surfaces.evaluation.lists import Listed, from_lists
from surfaces.evaluation.method import FromFile, FromRetrieval, FromSource, Judged, Random, Remembered, Visits
from surfaces.evaluation.metrics import METRICS, ndcg
from surfaces.evaluation.protocols import Case, leave_one_out
from surfaces.evaluation.results import Notebook, Results, outcomes
from surfaces.evaluation.run import Keeping, rank
from surfaces.ledger.store import Ledger
from surfaces.sources.base import Interactions, Materials
from surfaces.sources.fit import fit_sources
from surfaces.sources.popular import Popular
from surfaces.visit import Visit
from tests.surfaces.evaluation.shelf import fill, movies, surface


class Fixed:
    """Scores by a table; it notes what it was given."""

    learned: Sequence[Interactions] = ()

    def __init__(self, name: str, table: dict[str, float] | float, *, fails_after: int = 1000) -> None:
        self.name, self._table, self._left = name, table, fails_after
        self.given: list[tuple[Visit, Sequence[str]]] = []

    def judge(self, visit: Visit, items: Sequence[str]) -> Judged:
        if len(self.given) >= self._left:
            raise KeyboardInterrupt
        self.given.append((visit, items))
        table = self._table if isinstance(self._table, dict) else dict.fromkeys(items, self._table)
        scores = np.array([table.get(item, 0.0) for item in items])
        return Judged(scores, {"watch": scores / 10, "like": scores / 20}, tokens=7)


ACTIONS = {"watch": frozenset({"watch"}), "like": frozenset({"like"})}


def test_methods_are_compared_on_the_same_cases(shelf: Ledger) -> None:
    split = leave_one_out(shelf, movies())
    right, flat = Fixed("right", {"c": 2.0, "a": 1.0}), Fixed("flat", 0.5)
    done: list[tuple[int, int]] = []
    found = rank(split, [right, flat], shelf, actions=ACTIONS, progress=lambda *counts: done.append(counts))
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert [id(items) for _, items in right.given] == [id(items) for _, items in flat.given]
    assert [tuple(visit.timeline) for visit, _ in right.given] == [case.history for case in split.cases]
    assert list(found["right"].values("mrr")) == [1.0, 0.5, 1.0]
    assert list(found["flat"].values("auc")) == [0.5] * 3
    assert found["flat"].values("hr@1") == pytest.approx([1 / len(items) for _, items in flat.given])
    assert found["right"].tokens_M.tolist() == [7, 7, 7]
    assert (found["right"].seconds_M > 0).all()
    index = split.train.index
    assert found["right"].tops_MK[0, 0] == index["c"]
    assert set(found["flat"].tops_MK[0].tolist()) == {-1, *(index[name] for name in right.given[0][1])}


def test_what_heads_say_is_kept_with_what_came_of_it(shelf: Ledger) -> None:
    split = leave_one_out(shelf, movies())
    found = rank(split, [Fixed("right", {"c": 2.0})], shelf, actions=ACTIONS)["right"]
    said, came = found.answered("watch")
    assert len(said) == len(came) == sum(len(split.items(number)) for number in range(3))
    assert came.sum() == 3
    assert said[came].tolist() == pytest.approx([0.2, 0.0, 0.2])
    assert not found.answered("like")[1].any(), "all of them were watched, none was liked"


def test_of_a_list_an_untold_action_counts_for_every_head() -> None:
    case = Case("ann", (), {"a": 1.0, "b": 1.0, "c": 0.0}, 1.0, {"a": "like", "c": "watch"}, ("a", "b", "c"))
    found = outcomes(case, ["a", "b", "c"], ACTIONS)
    assert found["watch"].tolist() == [False, True, True]
    assert found["like"].tolist() == [True, True, False]


@pytest.mark.parametrize("scores", [np.array([np.nan] * 8), np.zeros(3)])
def test_what_a_method_may_not_give(shelf: Ledger, scores: np.ndarray) -> None:
    class Broken(Fixed):
        def judge(self, visit: Visit, items: Sequence[str]) -> Judged:
            return Judged(scores)

    with pytest.raises(PrismrankError, match="method 'broken', member 'ann': it must give one number for each of 8"):
        rank(leave_one_out(shelf, movies()), [Broken("broken", 0.0)], shelf)


def test_methods_must_differ(shelf: Ledger) -> None:
    split = leave_one_out(shelf, movies())
    for methods in ([], [Random(), Random()]):
        with pytest.raises(ConfigError, match="give one or more, each once"):
            rank(split, methods, shelf)


def same(one: Results, other: Results) -> bool:
    return np.array_equal(one.values_MF, other.values_MF) and np.array_equal(one.tops_MK, other.tops_MK)


def test_a_run_that_was_stopped_goes_on(shelf: Ledger, tmp_path: Path) -> None:
    split, table = leave_one_out(shelf, movies()), {"c": 2.0, "a": 1.0}
    whole = rank(split, [Fixed("right", table), Random()], shelf, actions=ACTIONS)
    where = Keeping(tmp_path / "out", {"right": "settings"})
    with pytest.raises(KeyboardInterrupt):
        rank(split, [Fixed("right", table, fails_after=2), Random()], shelf, actions=ACTIONS, keeping=where)
    again = Fixed("right", table)
    resumed = rank(split, [again, Random()], shelf, actions=ACTIONS, keeping=where)
    assert [visit.member_id for visit, _ in again.given] == ["dan"]
    assert all(same(whole[name], resumed[name]) for name in whole)
    assert whole["right"].answered("watch")[0].tolist() == resumed["right"].answered("watch")[0].tolist()
    third = Fixed("right", table)
    rank(split, [third], shelf, keeping=where)
    assert not third.given, "what is done is not done again"


@pytest.mark.parametrize("change", ["key", "split", "rubbish", "empty"])
def test_results_of_something_else_are_not_taken_up(shelf: Ledger, tmp_path: Path, change: str) -> None:
    split = leave_one_out(shelf, movies())
    rank(split, [Fixed("right", 1.0)], shelf, keeping=Keeping(tmp_path, {"right": "one"}))
    (path,) = tmp_path.glob("right-*.npz")
    if change in ("rubbish", "empty"):
        path.write_bytes(b"PK\x03\x04 and then nothing" if change == "rubbish" else b"")
    other = leave_one_out(shelf, movies(), candidates=4) if change == "split" else split
    again = Fixed("right", 1.0)
    rank(other, [again], shelf, keeping=Keeping(tmp_path, {"right": "two" if change == "key" else "one"}))
    assert len(again.given) == 3
    first = Fixed("right", 1.0)
    rank(split, [first], shelf, keeping=Keeping(tmp_path, {"right": "one"}))
    assert not first.given, "the first ones are still there"


def test_names_of_other_systems_are_no_paths(tmp_path: Path) -> None:
    book = Notebook(tmp_path / "out", "../../outside", "key", 2)
    book.save()
    assert [path.parent for path in tmp_path.rglob("*.npz")] == [tmp_path / "out"]


# The methods that need no fitting


def test_a_visit_knows_nothing_later_than_its_case(shelf: Ledger) -> None:
    case = leave_one_out(shelf, movies()).cases[0]
    visit = Visits(shelf).of(case)
    assert (visit.member_id, visit.now, tuple(visit.timeline)) == ("ann", 4.0, case.history)
    assert set(visit.lookup(["a", "zebra"])) == {"a"}


def test_a_source_as_a_method(shelf: Ledger) -> None:
    split = leave_one_out(shelf, movies())
    method, visit = FromSource("popular", Popular(), split.train), Visits(shelf).of(split.cases[0])
    assert list(method.judge(visit, ["b", "a", "zebra", "j"]).scores) == [3.0, 1.0, -np.inf, 0.0]


def test_random_repeats_for_the_same_member(shelf: Ledger) -> None:
    visits = [Visits(shelf).of(case) for case in leave_one_out(shelf, movies()).cases]
    first, again, other = (Random(1).judge(visit, list("abc")).scores for visit in (visits[0], visits[0], visits[1]))
    assert list(first) == list(again) != list(other)
    assert list(first) != list(Random(2).judge(visits[0], list("abc")).scores)


def test_retrieval_is_the_order_that_would_be_served(shelf: Ledger) -> None:
    spec = surface("heads: [{name: watch, type: pointwise, weight: 1}]")
    split = leave_one_out(shelf, spec)
    retrieval = fit_sources(Materials(spec, split.train, shelf))
    method = FromRetrieval(retrieval, spec.fallback.order, split.train)
    visit = Visits(shelf).of(split.cases[0])
    scores = method.judge(visit, ["j", "a", "b"]).scores
    assert list(np.argsort(-scores)) == [2, 1, 0], "b was chosen most, then a; j by nobody"


def rankings(folder: Path, **columns: list[object]) -> Path:
    path = folder / "other.parquet"
    pl.DataFrame(
        {"member_id": ["ann", "ann", "dan"], "item_id": ["c", "d", "c"], "score": [2, 1, -5], **columns}
    ).write_parquet(path)
    return path


def test_rankings_of_another_system(shelf: Ledger, tmp_path: Path) -> None:
    split, method = leave_one_out(shelf, movies()), FromFile(rankings(tmp_path))
    found = rank(split, [method], shelf)["other"]
    assert list(found.values("mrr"))[::2] == [1.0, 1.0], "what is not in the file stands last"
    assert found.values("auc")[1] == 0.5, "of bob it says nothing at all"
    assert method.absent(split.cases) == 1


def test_rankings_of_lists_are_told_apart_by_time(shelf: Ledger, tmp_path: Path) -> None:
    lists = [Listed("ann", 3.5, {"c": 1.0, "d": 0.0}), Listed("ann", 2.5, {"b": 1.0, "c": 0.0})]
    split = from_lists(shelf, movies(), lists)
    method = FromFile(rankings(tmp_path, timestamp=[3.5, 3.5, 2.5]))
    assert list(rank(split, [method], shelf)["other"].values("auc")) == [1.0, 0.5]
    assert method.absent(split.cases) == 1


def test_times_are_positions_where_the_ledger_says_so(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/order.sqlite") as ledger:
        ledger.set_clock("order")
        fill(ledger)
        split = leave_one_out(ledger, movies())
        times = [split.cases[0].time, split.cases[0].time, split.cases[2].time]
        method = FromFile(rankings(tmp_path, timestamp=times))
        assert list(rank(split, [method], ledger)["other"].values("mrr"))[::2] == [1.0, 1.0]
        assert method.absent(split.cases) == 1


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"item_id": ["c", "c", "c"]}, "row 1: item 'c' of member 'ann' is scored twice"),
        ({"score": [1.0, float("inf"), 0.0]}, "row 2: 'score' is empty or no finite number"),
    ],
)
def test_ranking_files_that_are_none(tmp_path: Path, columns: dict[str, list[object]], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        FromFile(rankings(tmp_path, **columns))


def test_a_method_that_remembers_is_asked_once(shelf: Ledger) -> None:
    inner = Fixed("right", 1.0)
    method, items = Remembered(inner), ["a", "b"]
    visit, other = (Visits(shelf).of(case) for case in leave_one_out(shelf, movies()).cases[:2])
    first, second = method.judge(visit, items), method.judge(visit, items)
    assert (len(inner.given), first.scores.tolist()) == (1, second.scores.tolist())
    assert second.seconds > 0, "what it cost the first time is what it costs"
    method.judge(other, items)
    method.judge(visit, ["a", "b"])
    assert len(inner.given) == 3


def test_figures_are_those_of_the_metrics(shelf: Ledger) -> None:
    split = leave_one_out(shelf, movies())
    found = rank(split, [Random(3)], shelf)["random"]
    for number, case in enumerate(split.cases):
        items = split.items(number)
        scores = Random(3).judge(Visits(shelf).of(case), items).scores
        labels = np.array([case.labels.get(item, 0.0) for item in items])
        assert found.values_MF[number, METRICS.index("ndcg@10")] == ndcg(scores, labels, 10)
