"""Every method gets the same tries, on validation alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest

from prompts.errors import ConfigError
from surfaces.evaluation.method import FromSource
from surfaces.evaluation.protocols import Split, leave_one_out, validation_of
from surfaces.evaluation.recipes import Recipe, recipes
from surfaces.evaluation.results import kept
from surfaces.evaluation.tuning import Trial, Tuned, score, tune
from surfaces.ledger.store import Ledger
from surfaces.sources.base import Interactions, Materials, Source
from surfaces.sources.co_visitation import CoVisitation
from surfaces.sources.popular import Popular
from tests.surfaces.evaluation.shelf import fill, movies


@pytest.fixture(scope="module")
def validation(movielens: Ledger) -> Split:
    return validation_of(leave_one_out(movielens, movies()), movielens, movies(), members=60)


def materials(movielens: Ledger, split: Split) -> Materials:
    return Materials(movies(), split.train, movielens)


def test_the_best_on_validation_is_taken(movielens: Ledger, validation: Split) -> None:
    made: list[Mapping[str, object]] = []

    def make(_: Materials, settings: Mapping[str, object]) -> Source:
        made.append(settings)
        return CoVisitation(**settings)  # type: ignore[arg-type]

    recipe = Recipe("co_visitation", {"recent": (1, 20), "neighbours": (1, 200)}, make)
    steps: list[tuple[int, int]] = []
    found = tune(recipe, materials(movielens, validation), validation, budget=4, progress=lambda *s: steps.append(s))
    assert [each.settings for each in found.tried] == made
    assert (len(made), steps[-1]) == (4, (4, 4))
    values = {json.dumps(each.settings): each.value for each in found.tried}
    assert found.value == max(value for value in values.values() if value is not None)
    assert values[json.dumps(found.settings)] == found.value
    assert found.seconds > 0
    again = FromSource("again", CoVisitation(**found.settings), validation.train)  # type: ignore[arg-type]
    assert score(again, validation, movielens) == found.value


def test_the_budget_holds(movielens: Ledger, validation: Split) -> None:
    recipe = recipes()["co_visitation"]
    assert len(tune(recipe, materials(movielens, validation), validation, budget=1).tried) == 1
    with pytest.raises(ConfigError, match="budget: 0"):
        tune(recipe, materials(movielens, validation), validation, budget=0)


def test_settings_that_are_ruled_out_do_not_count(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/order.sqlite") as ledger:
        ledger.set_clock("order")
        fill(ledger)
        split = validation_of(leave_one_out(ledger, movies()), ledger, movies())
        data = Materials(movies(), split.train, ledger)
        recipe = Recipe("popular", {"half_life": (None, 60.0)}, lambda _, settings: Popular(**settings))
        found = tune(recipe, data, split, budget=2)
        assert found.settings == {"half_life": None}
        assert [each.value is None for each in found.tried] == [False, True]
        assert "clock is 'order'" in found.tried[1].problem
        with pytest.raises(ConfigError, match=r"method 'popular_7d': .*clock is 'order'"):
            tune(recipes()["popular_7d"], data, split, budget=1)


class Stopping(Popular):
    """Finds one of its settings while it is fitted."""

    def fit(self, data: Interactions) -> None:
        super().fit(data)

    def settings_after_fit(self) -> Mapping[str, object]:
        return {"epochs": 7}


def test_what_a_source_found_itself_is_kept(movielens: Ledger, validation: Split) -> None:
    recipe = Recipe("stopping", {"epochs": (100,)}, lambda *_: Stopping())
    assert tune(recipe, materials(movielens, validation), validation, budget=1).settings == {"epochs": 7}


def test_what_was_found_is_not_looked_for_again(tmp_path: Path) -> None:
    path, calls = tmp_path / "tuned" / "ease.json", []
    found = Tuned({"l2": 50.0}, 0.1, (Trial({"l2": 50.0}, 0.1, 2.0), Trial({"l2": 5.0}, None, 1.0, "no")))

    def find() -> dict[str, object]:
        calls.append(1)
        return asdict(found)

    assert Tuned.read(kept(path, "key", find)) == Tuned.read(kept(path, "key", find)) == found
    assert len(calls) == 1
    kept(path, "other", find)
    path.write_text("{")
    kept(path, "key", find)
    kept(None, "key", find)
    assert len(calls) == 4
