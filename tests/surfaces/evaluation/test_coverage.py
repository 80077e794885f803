"""What the first stage brings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from surfaces.evaluation.coverage import MERGED, coverage
from surfaces.evaluation.protocols import leave_one_out
from surfaces.ledger.store import Ledger
from surfaces.sources.base import Materials
from surfaces.sources.fit import fit_sources
from surfaces.sources.merge import Fitted, Retrieval
from surfaces.sources.popular import Popular
from surfaces.spec import SurfaceSpec
from tests.surfaces.evaluation.shelf import movies


def two_sources() -> SurfaceSpec:
    content = movies().model_dump(mode="json")
    content["sources"] = [{"type": "popular", "k": 5}, {"type": "co_visitation", "k": 5}]
    content["evidence"] = []
    content["fallback"] = {}
    return SurfaceSpec.model_validate(content)


def fitted(ledger: Ledger, spec: SurfaceSpec) -> tuple[Retrieval, SurfaceSpec]:
    split = leave_one_out(ledger, spec)
    return replace(fit_sources(Materials(spec, split.train, ledger)), filters=()), spec


def test_coverage_by_hand(shelf: Ledger) -> None:
    retrieval, spec = fitted(shelf, two_sources())
    found = coverage(leave_one_out(shelf, spec), retrieval, shelf, depths=(1, 2, 10)).found
    # Learned: ann a b, bob b, dan c b; so b has 3, a and c have 1. Wanted: ann c, bob a, and of dan c, a second time.
    assert found["popular"][1].tolist() == [1.0, 1.0, 0.0], "for dan b is seen and a stands before c"
    assert found["popular"][2].tolist() == [1.0, 1.0, 1.0]
    assert found["co_visitation"][2].tolist() == [1.0, 1.0, 1.0]
    assert found[MERGED][2].tolist() == [1.0, 1.0, 1.0]


def test_figures_grow_with_the_depth_and_agree_with_a_count(movielens: Ledger) -> None:
    spec = two_sources()
    split = leave_one_out(movielens, spec, members=60)
    retrieval = replace(fit_sources(Materials(spec, split.train, movielens)), filters=())
    steps: list[tuple[int, int]] = []
    told = coverage(split, retrieval, movielens, depths=(10, 100), progress=lambda *step: steps.append(step))
    assert steps[-1] == (60, 60)
    figures = told.figures()
    assert list(figures) == ["popular", "co_visitation", MERGED]
    for by_depth in figures.values():
        assert by_depth["coverage@10"].value <= by_depth["coverage@100"].value
    popular = Popular()
    popular.fit(split.train)
    counts = popular.scores(np.zeros(0, dtype=np.int64))
    for number, case in enumerate(split.cases):
        items = [split.train.index[name] for name in split.items(number)]
        best = sorted(items, key=lambda item: (-counts[item], item))[:10]
        assert told.found["popular"][10][number] == (split.train.index[case.wanted[0]] in best)


def test_a_source_that_is_asked_for_little_brings_as_much_here(movielens: Ledger) -> None:
    """Sources are compared at equal depth, whatever the surface lets them bring."""
    spec = two_sources()
    split = leave_one_out(movielens, spec, members=20)
    retrieval = replace(fit_sources(Materials(spec, split.train, movielens)), filters=())
    few = replace(retrieval, sources=tuple(Fitted(s.name, s.source, 1, s.weight) for s in retrieval.sources))
    one, other = (coverage(split, each, movielens, depths=(50,)).found for each in (retrieval, few))
    assert all(np.array_equal(one[name][50], other[name][50]) for name in one)
