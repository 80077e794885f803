"""Every baseline gets the same number of tries on validation, and is then fitted to all that may be learned from.

Most claims of progress fell when the baselines were tuned: Ferrari Dacrema, Cremonesi and Jannach, "Are we really
making much progress?", RecSys 2019.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from prompts.errors import ConfigError, PrismrankError
from surfaces.evaluation.method import FromSource, Visits
from surfaces.evaluation.metrics import ndcg
from surfaces.evaluation.protocols import Split
from surfaces.evaluation.recipes import Recipe, trials
from surfaces.ledger.store import Ledger
from surfaces.sources.base import Materials

BUDGET = 8
"""Settings that every method is tried with."""
MEMBERS = 1_000
"""The validation takes at most so many members."""


@runtime_checkable
class Settling(Protocol):
    """A source that finds some of its settings itself while it is fitted, such as when to stop."""

    def settings_after_fit(self) -> Mapping[str, object]:
        """Settings with which another fit need not search again."""
        ...


@dataclass(frozen=True, slots=True)
class Trial:
    """One try: the mean NDCG@10 on validation, or the reason why these settings cannot be had."""

    settings: Mapping[str, object]
    value: float | None
    seconds: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a method is fitted with in the end, and how that was found; no `value` where nothing had to be chosen."""

    settings: Mapping[str, object]
    value: float | None
    tried: tuple[Trial, ...]

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Tuned:
        """From what `asdict` made of it."""
        return cls(told["settings"], told["value"], tuple(Trial(**each) for each in told["tried"]))

    @property
    def seconds(self) -> float:
        """Spent on all tries."""
        return sum(trial.seconds for trial in self.tried)


def tune(
    recipe: Recipe,
    materials: Materials,
    validation: Split,
    *,
    budget: int = BUDGET,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Tuned:
    """The settings with the highest NDCG@10 on the validation split; `materials` hold what may be learned from there.

    Settings that this ledger rules out do not count. Raises ConfigError when all of them are ruled out.
    """
    if budget < 1:
        raise ConfigError(f"budget: {budget}; every method needs 1 try or more")
    tried: list[Trial] = []
    wanted = trials(recipe, budget, seed)
    for number, settings in enumerate(wanted, 1):
        tried.append(_try(recipe, settings, materials, validation))
        if progress:
            progress(number, len(wanted))
    best = max(tried, key=lambda trial: -1.0 if trial.value is None else trial.value)
    if best.value is None:
        raise ConfigError(f"method '{recipe.name}': {tried[0].problem}")
    return Tuned(best.settings, best.value, tuple(tried))


def _try(recipe: Recipe, settings: Mapping[str, object], materials: Materials, validation: Split) -> Trial:
    start = time.perf_counter()
    try:
        source = recipe.make(materials, settings)
        method = FromSource(recipe.name, source, materials.data)
    except PrismrankError as error:
        return Trial(settings, None, time.perf_counter() - start, str(error))
    value = score(method, validation, materials.ledger)
    found = {**settings, **(source.settings_after_fit() if isinstance(source, Settling) else {})}
    return Trial(found, value, time.perf_counter() - start)


def score(method: FromSource, split: Split, ledger: Ledger) -> float:
    """The mean NDCG@10 over a split's cases."""
    visits, values = Visits(ledger), []
    for number, case in enumerate(split.cases):
        items = split.items(number)
        labels = np.array([case.labels.get(item_id, 0.0) for item_id in items])
        values.append(ndcg(method.judge(visits.of(case), items).scores, labels, 10))
    return float(np.mean(values))
