"""What is held out, how a ranking is measured, and how sure the figures are."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from prompts.errors import ConfigError, LedgerError, PrismrankError
from surfaces.evaluation.bootstrap import Interval, interval
from surfaces.evaluation.methods import BASELINES, FromSource, Random, baseline
from surfaces.evaluation.metrics import METRICS, auc, figures, hit_rate, ndcg, rank_of, reciprocal_rank
from surfaces.evaluation.report import Report
from surfaces.evaluation.run import candidate_items, evaluate
from surfaces.evaluation.splits import Case, Held, Split, leave_one_out
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger
from surfaces.sources.base import Scores
from surfaces.sources.popular import Popular

MOVIES = "abcdefghij"


def event(member_id: str, item_id: str, timestamp: float, action: str = "watch") -> Event:
    return Event(member_id, item_id, "movies", action, timestamp, event_id=f"{member_id}{item_id}{timestamp}{action}")


ANN = [event("ann", "a", 1.0), event("ann", "song", 2.0), event("ann", "b", 3.0), event("ann", "c", 4.0)]
BOB = [event("bob", "b", 1.0), event("bob", "a", 2.0), event("bob", "d", 3.0, "show"), event("bob", "song", 4.0)]
CY = [event("cy", "a", 1.0), event("cy", "e", 2.0, "show")]
DAN = [event("dan", "c", 1.0), event("dan", "b", 2.0), event("dan", "c", 3.0)]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite") as opened:
        fill(opened, [*ANN, *BOB, *CY, *DAN])
        yield opened


def fill(ledger: Ledger, events: Sequence[Event]) -> None:
    ledger.write(
        items=[*(Item(name, "movie", {}) for name in MOVIES), Item("song", "song", {})],
        members=[Member(name, {}) for name in ("ann", "bob", "cy", "dan", "new")],
        events=events,
    )


# Splits


def test_the_last_event_is_the_target(ledger: Ledger) -> None:
    split = leave_one_out(ledger, "movie")
    assert split.held == "test"
    assert split.cases == (
        Case("ann", tuple(ANN[:3]), ANN[3]),
        Case("bob", tuple(BOB[:1]), BOB[1]),
        Case("dan", tuple(DAN[:2]), DAN[2]),
    )
    learned = dict(zip(split.train.member_ids, split.train.sequences, strict=True))
    assert {name: list(sequence) for name, sequence in learned.items()} == {
        "ann": [0, 1], "bob": [1], "cy": [], "dan": [2, 1],
    }  # fmt: skip


def test_for_validation_the_one_before_is(ledger: Ledger) -> None:
    split = leave_one_out(ledger, "movie", held="validation")
    assert split.cases == (Case("ann", tuple(ANN[:2]), ANN[2]), Case("dan", tuple(DAN[:1]), DAN[1]))
    assert [list(sequence) for sequence in split.train.sequences] == [[0], [], [], [2]]


def test_another_kind_has_other_cases(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="no member has 2 events with items of kind 'song'; there is nothing to hold"):
        leave_one_out(ledger, "song")
    with pytest.raises(LedgerError, match="kind 'book'"):
        leave_one_out(ledger, "book")


@pytest.mark.parametrize("held", ["test", "validation"])
def test_nobody_learns_from_what_is_held_out(tmp_path: Path, held: Held) -> None:
    """Other targets, for all members: train and histories are the same to the bit."""
    splits = []
    for number, (target, before) in enumerate([("c", "d"), ("j", "i")]):
        held_out = [event(name, target, 90.0) for name in ("ann", "bob", "dan")]
        if held == "validation":
            held_out += [event(name, before, 80.0) for name in ("ann", "bob", "dan")]
        ledger = Ledger.open(f"sqlite:///{tmp_path}/{number}.sqlite")
        with ledger:
            fill(ledger, [*ANN, *BOB, *DAN, *held_out])
            splits.append(leave_one_out(ledger, "movie", held=held))
    one, other = splits
    assert [case.target.item_id for case in one.cases] != [case.target.item_id for case in other.cases]
    assert [case.history for case in one.cases] == [case.history for case in other.cases]
    for name in BASELINES:
        for case in one.cases:
            scores = [baseline(name, split.train).scores(case.history, MOVIES) for split in splits]
            assert np.array_equal(scores[0], scores[1])


def test_members_are_drawn_by_seed(movielens: Ledger) -> None:
    whole = leave_one_out(movielens, "movie")
    assert len(whole.cases) == 943
    drawn = leave_one_out(movielens, "movie", members=50, seed=1)
    again = leave_one_out(movielens, "movie", members=50, seed=1)
    other = leave_one_out(movielens, "movie", members=50, seed=2)
    assert drawn.cases == again.cases != other.cases
    assert len({case.member_id for case in drawn.cases}) == 50
    assert set(drawn.cases) <= set(whole.cases)
    assert sum(map(len, drawn.train.sequences)) == 100_000 - 943, "everyone teaches, whoever is drawn"
    assert leave_one_out(movielens, "movie", members=5_000).cases == whole.cases


@pytest.mark.parametrize("members", [0, -3])
def test_nobody_cannot_be_drawn(ledger: Ledger, members: int) -> None:
    with pytest.raises(ConfigError, match=f"members: {members}; draw 1 or more"):
        leave_one_out(ledger, "movie", members=members)


# Metrics


@pytest.mark.parametrize(
    ("scores", "target", "rank"),
    [
        ([3.0, 2.0, 1.0], 0, 1.0),
        ([3.0, 2.0, 1.0], 2, 3.0),
        ([1.0, 1.0, 1.0], 1, 2.0),
        ([2.0, 1.0, 1.0], 2, 2.5),
        ([-np.inf, -np.inf, 0.0], 0, 2.5),
        ([7.0], 0, 1.0),
    ],
)
def test_rank(scores: list[float], target: int, rank: float) -> None:
    assert rank_of(np.array(scores), target) == rank


@given(scores=st.lists(st.integers(0, 4).map(float), min_size=1, max_size=12), data=st.data())
def test_rank_is_the_mean_over_all_orders_of_ties(scores: list[float], data: st.DataObject) -> None:
    target = data.draw(st.integers(0, len(scores) - 1))
    above = sum(score > scores[target] for score in scores)
    level = sum(score == scores[target] for score in scores)
    assert rank_of(np.array(scores), target) == above + np.mean(range(1, level + 1))


def test_figures_by_hand() -> None:
    assert (ndcg(1, 10), ndcg(10, 10), ndcg(10.5, 10)) == (1.0, 1 / math.log2(11), 0.0)
    assert ndcg(3, 10) == 0.5
    assert (hit_rate(10, 10), hit_rate(11, 10), hit_rate(2, 1)) == (1.0, 0.0, 0.0)
    assert reciprocal_rank(4) == 0.25
    assert (auc(1, 5), auc(5, 5), auc(3, 5), auc(1, 1)) == (1.0, 0.0, 0.5, 0.5)
    assert figures(3, 5) == {"ndcg@10": 0.5, "hr@10": 1.0, "mrr": pytest.approx(1 / 3), "auc": 0.5}
    assert tuple(figures(1, 1)) == METRICS


@given(items=st.integers(1, 200), data=st.data())
def test_a_better_rank_is_never_worse(items: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, items))
    better, worse = figures(rank, items + 1), figures(rank + 1, items + 1)
    for name in METRICS:
        assert 0 <= worse[name] <= better[name] <= 1


# Intervals


def test_the_interval_holds_the_mean_most_of_the_time() -> None:
    rng, inside = np.random.default_rng(0), 0
    for trial in range(200):
        found = interval(rng.exponential(size=60), seed=trial, resamples=400)
        assert found.low <= found.value <= found.high
        inside += found.low <= 1.0 <= found.high
    assert 180 <= inside <= 198


def test_the_interval_is_that_of_the_normal_law_for_many() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=4_000)
    found = interval(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_intervals_repeat_and_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).random(50)
    assert interval(values) == interval(values) != interval(values, seed=1)
    whole = interval(values)
    monkeypatch.setattr("surfaces.evaluation.bootstrap.DRAWS_AT_ONCE", 120)
    assert interval(values) == pytest.approx(whole)


def test_paired_differences_are_surer_than_their_parts() -> None:
    rng = np.random.default_rng(3)
    hard = rng.random(300)
    one, other = hard + 0.05 + 0.01 * rng.random(300), hard
    difference = interval(one - other)
    assert difference.low > 0
    assert difference.high - difference.low < 0.1 * (interval(one).high - interval(one).low)


def test_one_value_and_none() -> None:
    assert interval(np.array([0.5])) == Interval(0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="no values"):
        interval(np.zeros(0))


# Candidates


CASE = Case(
    "ann", (event("ann", "a", 1.0), event("ann", "b", 2.0, "show"), event("ann", "c", 2.5)), event("ann", "d", 3.0)
)


def test_seen_items_are_left_out() -> None:
    assert candidate_items(CASE, MOVIES, None, 0) == list("bdefghij")


def test_the_target_stays_even_if_it_was_seen() -> None:
    again = CASE._replace(target=event("ann", "c", 3.0))
    assert candidate_items(again, MOVIES, None, 0) == list("bcdefghij")


@pytest.mark.parametrize("count", [2, 5, 8, 9, 1_000])
def test_drawn_candidates(count: int) -> None:
    found = candidate_items(CASE, MOVIES, count, 7)
    assert len(found) == len(set(found)) == min(count, 8)
    assert "d" in found
    assert not {"a", "c"} & set(found)
    assert found == sorted(found) == candidate_items(CASE, MOVIES, count, 7)


def test_draws_are_uniform() -> None:
    draws = [item for seed in range(700) for item in candidate_items(CASE, MOVIES, 2, seed) if item != "d"]
    assert all(70 <= draws.count(item) <= 130 for item in "befghij")


# Methods and the whole


class Fixed:
    """Scores by a table; `shift` shows what the method was given."""

    def __init__(self, name: str, scores: dict[str, float] | float) -> None:
        self.name = name
        self._scores = scores
        self.given: list[tuple[Sequence[Event], Sequence[str]]] = []

    def scores(self, history: Sequence[Event], items: Sequence[str]) -> Scores:
        self.given.append((history, items))
        table = self._scores if isinstance(self._scores, dict) else dict.fromkeys(items, self._scores)
        return np.array([table.get(item, 0.0) for item in items])


def test_methods_are_compared_on_the_same_cases(ledger: Ledger) -> None:
    split = leave_one_out(ledger, "movie")
    right = Fixed("right", {"c": 2.0, "a": 1.0})
    flat = Fixed("flat", 0.5)
    done: list[tuple[int, int]] = []
    report = evaluate("films", split, [right, flat], progress=lambda *counts: done.append(counts))
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert right.given == flat.given
    assert [tuple(history) for history, _ in right.given] == [case.history for case in split.cases]
    ranks = (1, 2, 1)
    assert report.figure("right", "ndcg@10").value == pytest.approx(np.mean([ndcg(rank, 10) for rank in ranks]))
    assert list(report.values["right"]["mrr"]) == [1 / rank for rank in ranks]
    assert report.figure("flat", "auc").value == 0.5
    assert report.difference("flat", "auc").value == pytest.approx(report.figure("right", "auc").value - 0.5)
    assert report.subject == "right"


def test_what_a_method_may_not_give(ledger: Ledger) -> None:
    split = leave_one_out(ledger, "movie")

    class Short(Fixed):
        def scores(self, history: Sequence[Event], items: Sequence[str]) -> Scores:
            return np.zeros(len(items) - 1)

    for method in (Fixed("broken", float("nan")), Short("broken", 0.0)):
        with pytest.raises(
            PrismrankError, match="method 'broken', member 'ann': it must give one number for each of 8"
        ):
            evaluate("films", split, [method])
    silent = evaluate("films", split, [Fixed("silent", -np.inf)])
    assert silent.figure("silent", "auc").value == 0.5


def test_what_cannot_be_compared(ledger: Ledger) -> None:
    split = leave_one_out(ledger, "movie")
    with pytest.raises(ConfigError, match="methods: none; give one or more, each once"):
        evaluate("films", split, [])
    with pytest.raises(ConfigError, match="methods: random, random; give one or more, each once"):
        evaluate("films", split, [Random(), Random()])
    with pytest.raises(ConfigError, match="candidates: 1; a ranking needs 2 or more"):
        evaluate("films", split, [Random()], candidates=1)


def test_baselines_by_name(ledger: Ledger) -> None:
    split = leave_one_out(ledger, "movie")
    assert [baseline(name, split.train).name for name in BASELINES] == list(BASELINES)
    with pytest.raises(ConfigError, match="no method is called 'populer'; did you mean 'popular'"):
        baseline("populer", split.train)
    with pytest.raises(ConfigError, match="no method is called 'x'; known: co_visitation, popular, random"):
        baseline("x", split.train)


def test_an_item_that_a_source_does_not_know(ledger: Ledger) -> None:
    train = leave_one_out(ledger, "movie").train
    assert list(FromSource("popular", Popular(), train).scores(ANN, ["song", "b", "a"])) == [-np.inf, 3.0, 1.0]


def test_random_is_the_same_for_the_same_member() -> None:
    one, other = Random(0), Random(1)
    assert np.array_equal(one.scores(ANN, MOVIES), one.scores(ANN[:1], MOVIES))
    assert not np.array_equal(one.scores(ANN, MOVIES), one.scores(BOB, MOVIES))
    assert not np.array_equal(one.scores(ANN, MOVIES), other.scores(ANN, MOVIES))


# Reports


def report_of(lengths: Sequence[int]) -> Report:
    rng = np.random.default_rng(0)
    values = {name: {key: rng.random(len(lengths)) for key in METRICS} for name in ("foundation", "popular", "random")}
    return Report("films", "leave-one-out", "test", None, np.array(lengths), values)


def test_a_report_as_json() -> None:
    report = report_of([5, 20, 21, 100, 400])
    told = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert set(told) == {
        "surface", "protocol", "held", "candidates", "members", "methods", "subject", "differences", "segments",
    }  # fmt: skip
    assert (told["surface"], told["protocol"], told["members"]) == ("films", "leave-one-out", 5)
    assert set(told["methods"]) == {"foundation", "popular", "random"}
    for figures_of in told["methods"].values():
        assert tuple(figures_of) == METRICS
        assert all(set(figure) == {"value", "low", "high"} for figure in figures_of.values())
    mean = float(report.values["popular"]["mrr"].mean())
    assert told["methods"]["popular"]["mrr"]["value"] == pytest.approx(mean)
    assert set(told["differences"]) == {"popular", "random"}
    above = float((report.values["foundation"]["auc"] - report.values["random"]["auc"]).mean())
    assert told["differences"]["random"]["auc"]["value"] == pytest.approx(above)


def test_segments_part_the_members() -> None:
    segments = report_of([5, 20, 21, 100, 400]).to_json()["segments"]
    assert isinstance(segments, dict)
    assert {name: told["members"] for name, told in segments.items()} == {
        "history: up to 20 events": 2, "history: 21 to 100": 2, "history: over 100": 1,
    }  # fmt: skip
    only = report_of([3, 4]).to_json()["segments"]
    assert isinstance(only, dict)
    assert list(only) == ["history: up to 20 events"]
    report = report_of([3, 4])
    assert only["history: up to 20 events"]["methods"]["popular"]["auc"] == report.figure("popular", "auc")._asdict()


def test_a_report_as_a_table() -> None:
    report = report_of([5, 20, 21])
    out = io.StringIO()
    Console(file=out, width=160, color_system=None).print(report.to_table())
    shown = out.getvalue()
    assert "films: leave-one-out, 3 members, the full catalogue" in shown
    for name in (*METRICS, "foundation", "popular", "random"):
        assert name in shown
    figure = report.figure("popular", "mrr")
    assert f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]" in shown
    above = report.difference("random", "ndcg@10")
    assert f"{above.value:+.3f} [{above.low:+.3f}, {above.high:+.3f}]" in shown


# MovieLens


@pytest.fixture(scope="module")
def baselines(movielens: Ledger) -> Report:
    split: Split = leave_one_out(movielens, "movie")
    return evaluate("movies", split, [baseline(name, split.train) for name in ("co_visitation", "popular", "random")])


def test_known_figures(baselines: Report) -> None:
    """Popular is known to be near .042, item-based neighbours between .05 and .10, chance at 10 in about 1,600."""
    assert 0.030 <= baselines.figure("popular", "ndcg@10").value <= 0.052
    assert 0.055 <= baselines.figure("co_visitation", "ndcg@10").value <= 0.11
    assert baselines.figure("random", "hr@10").value < 0.02
    assert 0.47 <= baselines.figure("random", "auc").value <= 0.53
    assert baselines.figure("popular", "auc").value > 0.75


def test_co_visitation_is_surely_above_popular(baselines: Report) -> None:
    assert baselines.difference("popular", "ndcg@10").low > 0.02
    assert baselines.difference("random", "ndcg@10").low > 0.05


def test_among_a_hundred(movielens: Ledger) -> None:
    split = leave_one_out(movielens, "movie", members=150, seed=4)
    report = evaluate("movies", split, [baseline("popular", split.train), Random()], candidates=100, seed=4)
    assert report.candidates == 100
    assert 0.15 <= report.figure("popular", "ndcg@10").value <= 0.32
    assert 0.01 <= report.figure("random", "ndcg@10").value <= 0.09
