"""The methods by name, their settings, and the tries that a budget allows."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest

from prompts.errors import ConfigError
from surfaces.evaluation.baselines.factors import Bpr
from surfaces.evaluation.baselines.text import TextEmbedding
from surfaces.evaluation.recipes import WEEK, Recipe, recipes, trials
from surfaces.ledger.store import Ledger
from surfaces.sources.als import Als
from surfaces.sources.base import Materials, Source
from surfaces.sources.co_visitation import CoVisitation
from surfaces.sources.ease import Ease
from surfaces.sources.itemknn import ItemKnn
from surfaces.sources.popular import Popular
from surfaces.sources.sasrec import SasRec
from surfaces.sources.slist import Slist
from surfaces.visit import Visit
from tests.contracts.test_source_contract import ITEMS, drawn, history, surface, thing

NAMES = [
    "popular", "popular_7d", "co_visitation", "itemknn", "ease", "slist", "als", "bpr", "sasrec", "blend", "bm25",
    "text_embedding", "equal",
]  # fmt: skip
MADE: Mapping[str, type[object]] = {
    "co_visitation": CoVisitation, "itemknn": ItemKnn, "ease": Ease, "slist": Slist, "als": Als, "bpr": Bpr,
    "sasrec": SasRec, "text_embedding": TextEmbedding,
}  # fmt: skip


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Materials]:
    """A shelf of things with texts, and who chose which."""
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('things')}/ledger.sqlite") as ledger:
        ledger.write(items=[thing(place) for place in range(ITEMS)])
        yield Materials(surface(), drawn(0), ledger)


def test_the_methods_and_their_order() -> None:
    assert list(recipes()) == NAMES
    assert all(name == recipe.name for name, recipe in recipes().items())


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"sasrec", "blend"}])
def test_a_recipe_gives_a_source(name: str, given: Materials) -> None:
    recipe = recipes()[name]
    for settings in trials(recipe, 3, 0):
        source: Source = recipe.make(given, settings)
        source.fit(given.data)
        scores_I = source.scores(history([1, 2, 3]), Visit(member_id="member 1"))
        assert scores_I.shape == (ITEMS,)
        assert np.isfinite(scores_I).any()
        assert {key: getattr(source, key) for key in settings} == settings


def test_popular_of_a_week(given: Materials) -> None:
    source = recipes()["popular_7d"].make(given, {})
    assert isinstance(source, Popular)
    assert source.window == WEEK == 604_800.0


@pytest.mark.parametrize("name", MADE)
def test_the_first_values_are_the_defaults(name: str) -> None:
    """As the classes have them; text_embedding's class follows the surface's source instead."""
    settings = inspect.signature(MADE[name]).parameters
    first = {key: values[0] for key, values in recipes()[name].space.items()}
    assert set(first) <= set(settings)
    if name != "text_embedding":
        assert first == {key: settings[key].default for key in first}


@pytest.mark.parametrize("name", NAMES)
def test_trials(name: str) -> None:
    recipe = recipes()[name]
    size = int(np.prod([len(values) for values in recipe.space.values()]))
    assert trials(recipe, 1, 7) == [{key: values[0] for key, values in recipe.space.items()}]
    for budget in (1, 3, 8, 1_000):
        found = trials(recipe, budget, 7)
        assert len(found) == min(budget, size)
        assert len({tuple(point.items()) for point in found}) == len(found)
        assert found == trials(recipe, budget, 7)
        assert all(point[key] in values for point in found for key, values in recipe.space.items())


def test_trials_differ_by_seed() -> None:
    recipe = recipes()["als"]
    assert trials(recipe, 5, 1) != trials(recipe, 5, 2)
    assert trials(recipe, 5, 1)[:3] == trials(recipe, 3, 1), "a larger budget tries more, not something else"


@pytest.mark.parametrize("space", [{}, {"k": (1,)}, {"k": (1, 2), "l": ("a", "b", "c")}])
def test_trials_of_any_space(space: Mapping[str, Sequence[object]]) -> None:
    recipe = Recipe("any", space, lambda *_: Popular())
    found = trials(recipe, 100, 0)
    points = {tuple(point.values()) for point in found}
    assert len(points) == len(found) == int(np.prod([len(values) for values in space.values()]))


def test_trials_need_a_budget() -> None:
    with pytest.raises(ConfigError, match="budget: 0; every method needs 1 trial or more"):
        trials(recipes()["ease"], 0, 0)
