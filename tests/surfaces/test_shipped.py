"""What the shipped nano is worth on real held-out films. Figures are in its model card; here stand the claims."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from foundation.engine.torch import TorchEngine
from foundation.model import shipped
from prompts.verbalize import verbalize
from surfaces.compose import compose
from surfaces.evaluation.foundation import FoundationMethod
from surfaces.evaluation.method import FromSource
from surfaces.evaluation.protocols import leave_one_out
from surfaces.evaluation.report import Report
from surfaces.evaluation.run import rank
from surfaces.happenings import attributes_of, happenings
from surfaces.heads.reading import read_heads
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


def test_it_listens_to_the_stem(movielens: Ledger) -> None:
    """A genre that the request's context names brings films of that genre to the top."""
    plain, focused = (childrens_films_on_top(movielens, context) for context in (None, {"genres": ["Children's"]}))
    assert focused > plain


def childrens_films_on_top(ledger: Ledger, context: Mapping[str, object] | None) -> int:
    """Among the first 20 of 400 films, for five members together."""
    registry, engine = Registry.shipped(), TorchEngine.load(shipped("nano"))
    spec, form = registry.surface("movies"), registry.trunk("member")
    items = {item.item_id: item for item in ledger.all_items("movie")}
    films = [attributes_of(item) for item in list(items.values())[:400]]
    found = 0
    for member_id in ledger.member_ids()[:5]:
        past = happenings(ledger.timeline(member_id), items)
        trunk = verbalize(form, ledger.member(member_id).profile, past, engine.count)
        tree = engine.read(compose(spec, trunk, films, context))
        utility = read_heads(spec, engine.score([tree])[0].table()).utility
        found += sum("Children's" in str(films[place]["genres"]) for place in (-utility).argsort()[:20])
    return found
