"""What the shipped nano is worth on real held-out films. Figures are in its model card; here stand the claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from foundation.engine.torch import TorchEngine
from foundation.model import shipped
from surfaces.evaluation.foundation import FoundationMethod
from surfaces.evaluation.method import FromSource, Visits
from surfaces.evaluation.protocols import leave_one_out
from surfaces.evaluation.report import Report
from surfaces.evaluation.run import rank
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from surfaces.sources.popular import Popular


def compared(ledger: Ledger, members: int, candidates: int | None) -> Report:
    registry, engine = Registry.shipped(), TorchEngine.load(shipped("nano"))
    spec = registry.surface("movies")
    split = leave_one_out(ledger, spec, members=members, candidates=candidates)
    method = FoundationMethod(spec, registry.trunk(spec.trunk), ledger, engine, split.train)
    return Report("movies", split, rank(split, [method, FromSource("popular", Popular(), split.train)], ledger))


def test_it_ranks_held_out_films_above_popularity(movielens: Ledger) -> None:
    report = compared(movielens, members=150, candidates=100)
    assert report.difference("popular", "ndcg@10").low > 0


@pytest.mark.slow
def test_it_is_above_popularity_over_the_full_catalogue(movielens: Ledger) -> None:
    report = compared(movielens, members=300, candidates=None)
    assert report.difference("popular", "ndcg@10").low > 0


@pytest.mark.parametrize("genre", ["Children's", "Horror", "Sci-Fi"])
def test_it_listens_to_the_stem(movielens: Ledger, genre: str) -> None:
    """A genre that the request's context names brings films of that genre to the top, whatever the sources say."""
    plain, focused = (films_on_top(movielens, genre, context) for context in ({}, {"genres": [genre]}))
    assert focused > 1.15 * plain


def films_on_top(ledger: Ledger, genre: str, context: Mapping[str, object]) -> int:
    """How many films of the genre are among the first 20 of 300, for twenty members together."""
    registry, engine = Registry.shipped(), TorchEngine.load(shipped("nano"))
    spec = registry.surface("movies")
    split, visits = leave_one_out(ledger, spec, members=20, candidates=300), Visits(ledger)
    method = FoundationMethod(spec, registry.trunk(spec.trunk), ledger, engine, split.train)
    found = 0
    for number, case in enumerate(split.cases):
        items, visit = split.items(number), visits.of(case)
        scores = method.judge(replace(visit, context={**visit.context, **context}), items).scores
        top = ledger.items(items[place] for place in np.argsort(-scores)[:20])
        found += sum(genre in str(film.attributes["genres"]) for film in top.values())
    return found
