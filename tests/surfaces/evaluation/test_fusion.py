"""The weighted sum: monotone, fitted on validation, and the one that is served."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from prompts.errors import ConfigError
from surfaces.evaluation.fusion import Fused, Fusion, features, fit, scoring_sources
from surfaces.evaluation.method import Judged, Visits
from surfaces.evaluation.protocols import Split, leave_one_out
from surfaces.ledger.store import Ledger
from surfaces.sources.base import NOTHING, Interactions, Materials
from surfaces.sources.fit import fit_sources
from surfaces.visit import Visit
from tests.surfaces.evaluation.shelf import movies, surface


class Made:
    """Scores that know the answer so far as `signal` lets them."""

    learned: Sequence[Interactions] = ()

    def __init__(self, name: str, split: Split, signal: float, *, seed: int) -> None:
        self.name, self._signal, self._rng = name, signal, np.random.default_rng(seed)
        self._wanted = {case.member_id: set(case.wanted) for case in split.cases}

    def judge(self, visit: Visit, items: Sequence[str]) -> Judged:
        right = np.array([item in self._wanted[visit.member_id] for item in items])
        return Judged(self._signal * right + self._rng.normal(size=len(items)), tokens=3, seconds=0.5)


@pytest.fixture(scope="module")
def split(movielens: Ledger) -> Split:
    return leave_one_out(movielens, movies(), members=150, candidates=60)


def fitted(movielens: Ledger, split: Split, *signals: float) -> Fusion:
    return fit([Made(f"part{n}", split, signal, seed=n) for n, signal in enumerate(signals)], split, movielens)


def test_what_tells_more_weighs_more(movielens: Ledger, split: Split) -> None:
    found = fitted(movielens, split, 2.0, 1.0, 0.0)
    first, second, third = found.weights.values()
    assert first > second > 0.3
    assert third < 0.2
    assert found.loss < found.chance == pytest.approx(np.log(60), abs=0.01)


def test_no_weight_is_below_zero(movielens: Ledger, split: Split) -> None:
    found = fitted(movielens, split, 2.0, -2.0)
    assert found.weights["part1"] == 0.0


def test_the_weights_are_the_best_there_are(movielens: Ledger, split: Split) -> None:
    """No other weights nearby have a lower loss: the gradient is right."""
    from surfaces.evaluation.fusion import _loss

    parts = [Made(f"part{n}", split, signal, seed=n) for n, signal in enumerate((2.0, 1.0))]
    visits, lists = Visits(movielens), []
    for number, case in enumerate(split.cases):
        items = split.items(number)
        gains = np.array([case.labels.get(item, 0.0) for item in items])
        lists.append((features([part.judge(visits.of(case), items).scores for part in parts]), gains))
    at = np.array([0.7, 0.2])
    loss, slope = _loss(at, lists)
    for place in range(2):
        step = np.eye(2)[place] * 1e-6
        assert (_loss(at + step, lists)[0] - loss) / 1e-6 == pytest.approx(slope[place], abs=1e-4)


def test_a_candidate_that_all_prefer_is_never_behind(movielens: Ledger, split: Split) -> None:
    parts = [Made(f"part{n}", split, 1.0, seed=n) for n in range(3)]
    fused = Fused("fused", parts, {"part0": 0.4, "part1": 0.0, "part2": 2.0})
    visit, items = Visits(movielens).of(split.cases[0]), split.items(0)
    again = [Made(f"part{n}", split, 1.0, seed=n) for n in (0, 2)]
    scores = np.stack([part.judge(visit, items).scores for part in again])
    found = fused.judge(visit, items)
    for one in range(len(items)):
        better = (scores[:, one][:, None] >= scores).all(axis=0)
        assert (found.scores[one] >= found.scores[better]).all()
    assert (found.tokens, found.seconds) == (6, 1.0), "it costs what its parts cost; one without a weight is not asked"
    assert (Fused("fused", parts, {}).judge(visit, items).scores == 0).all()


def test_where_a_part_has_nothing_to_say() -> None:
    table = features([np.array([NOTHING, 1.0, 3.0]), np.full(3, NOTHING), np.full(3, 7.0)])
    assert table[0, 0] == table[1, 0] < table[2, 0]
    assert (table[:, 1:] == 0).all()
    assert np.isfinite(table).all()


def test_sources_that_score_are_parts_and_queries_are_not(shelf: Ledger) -> None:
    queries = surface("heads: [{name: watch, type: pointwise, weight: 1}]").model_dump(mode="json")
    queries["sources"] += [{"type": "request", "k": 5}]
    spec = type(movies()).model_validate(queries)
    split = leave_one_out(shelf, spec)
    retrieval = fit_sources(Materials(spec, split.train, shelf))
    assert [part.name for part in scoring_sources(retrieval, split.train)] == ["popular"]


def test_nothing_to_fit(movielens: Ledger, split: Split) -> None:
    with pytest.raises(ConfigError, match="fused: it needs a model or a source"):
        fit([], split, movielens)
