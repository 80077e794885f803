"""What the shipped nano is worth on real held-out films. Figures are in its model card; here stand the claims."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import pytest

from foundation.engine.torch import TorchEngine
from foundation.model import shipped
from surfaces.evaluation.foundation import FoundationMethod
from surfaces.evaluation.method import FromSource, Visits
from surfaces.evaluation.protocols import Split, leave_one_out
from surfaces.evaluation.report import Report
from surfaces.evaluation.run import rank
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from surfaces.sources.base import Interactions
from surfaces.sources.popular import Popular
from surfaces.spec import SurfaceSpec

SLOW = ("sasrec",)
"""Advisers that take minutes to learn from this ledger."""


def ranker(ledger: Ledger, spec: SurfaceSpec, train: Interactions) -> FoundationMethod:
    trunk = Registry.shipped().trunk(spec.trunk)
    return FoundationMethod(spec, trunk, ledger, TorchEngine.load(shipped("nano")), train)


def movies(without: Collection[str] = SLOW) -> SurfaceSpec:
    """The surface, of whose advisers some have nothing to say."""
    spec = Registry.shipped().surface("movies")
    return spec.model_copy(update={"evidence": tuple(name for name in spec.evidence if name not in without)})


def compared(ledger: Ledger, spec: SurfaceSpec, members: int, candidates: int | None) -> Report:
    split = leave_one_out(ledger, spec, members=members, candidates=candidates)
    method = ranker(ledger, spec, split.train)
    return Report("movies", split, rank(split, [method, FromSource("popular", Popular(), split.train)], ledger))


@pytest.mark.parametrize("without", [SLOW, pytest.param((), marks=pytest.mark.slow)], ids=["some advisers", "all"])
def test_it_ranks_held_out_films_above_popularity(movielens: Ledger, without: Collection[str]) -> None:
    report = compared(movielens, movies(without), members=150, candidates=100)
    assert report.difference("popular", "ndcg@10").low > 0


@pytest.mark.slow
def test_it_is_above_popularity_over_the_full_catalogue(movielens: Ledger) -> None:
    report = compared(movielens, movies(without=()), members=300, candidates=None)
    assert report.difference("popular", "ndcg@10").low > 0


@pytest.fixture(scope="module")
def asked(movielens: Ledger) -> tuple[Split, FoundationMethod]:
    """Twenty members, each with 300 candidates, and who ranks them."""
    split = leave_one_out(movielens, movies(), members=20, candidates=300)
    return split, ranker(movielens, movies(), split.train)


@pytest.mark.parametrize("genre", ["Children's", "Horror", "Sci-Fi"])
def test_it_listens_to_the_stem(movielens: Ledger, asked: tuple[Split, FoundationMethod], genre: str) -> None:
    """A genre that the request's context names brings films of that genre to the top, whatever the sources say."""
    plain, focused = (films_on_top(movielens, *asked, genre, context) for context in ({}, {"genres": [genre]}))
    assert focused > 1.15 * plain


def films_on_top(
    ledger: Ledger, split: Split, method: FoundationMethod, genre: str, context: Mapping[str, object]
) -> int:
    """How many films of the genre are among the first 20 candidates, for all members together."""
    found, visits = 0, Visits(ledger)
    for number, case in enumerate(split.cases):
        items, visit = split.items(number), visits.of(case)
        scores = method.judge(replace(visit, context={**visit.context, **context}), items).scores
        top = ledger.items(items[place] for place in np.argsort(-scores)[:20])
        found += sum(genre in str(film.attributes["genres"]) for film in top.values())
    return found
