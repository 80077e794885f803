"""Methods compared on the same members, the same targets and the same candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from prompts.errors import ConfigError, PrismrankError
from surfaces.evaluation.methods import Method
from surfaces.evaluation.metrics import METRICS, figures, rank_of
from surfaces.evaluation.report import Report, Values
from surfaces.evaluation.splits import Case, Split
from surfaces.ledger.records import IMPRESSION

Progress = Callable[[int, int], None]
"""Called with how many members are done, and of how many."""


def evaluate(
    surface: str,
    split: Split,
    methods: Sequence[Method],
    *,
    candidates: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Every method's figures for every member of the split; the first method is compared with the others.

    Each target stands among the whole catalogue (`candidates` None), or among that many items in all, drawn by
    `seed`; items that the member has acted on are left out, but never the target. Raises ConfigError for methods or
    candidates that cannot be compared, PrismrankError for a method that gives no proper scores.
    """
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"methods: {', '.join(names) or 'none'}; give one or more, each once")
    if candidates is not None and candidates < 2:
        raise ConfigError(f"candidates: {candidates}; a ranking needs 2 or more")
    ranks, sizes = np.zeros((len(methods), len(split.cases))), []
    for number, case in enumerate(split.cases):
        items = candidate_items(case, split.train.item_ids, candidates, seed + number)
        sizes.append(len(items))
        ranks[:, number] = [_rank(method, case, items) for method in methods]
        if progress:
            progress(number + 1, len(split.cases))
    histories_M = np.array([len(case.history) for case in split.cases])
    values = {name: _values(ranks[place], sizes) for place, name in enumerate(names)}
    return Report(surface, "leave-one-out", split.held, candidates, histories_M, values)


def candidate_items(case: Case, catalogue: Sequence[str], candidates: int | None, seed: int) -> list[str]:
    """The items that the case's target stands among, itself included, in the catalogue's order."""
    target = case.target.item_id
    seen = {event.item_id for event in case.history if event.action != IMPRESSION}
    others = [item_id for item_id in catalogue if item_id not in seen and item_id != target]
    if candidates is not None and candidates - 1 < len(others):
        drawn = np.random.default_rng(seed).choice(len(others), size=candidates - 1, replace=False)
        others = [others[place] for place in drawn]
    return sorted([*others, target])


def _rank(method: Method, case: Case, items: Sequence[str]) -> float:
    scores = np.asarray(method.scores(case.history, items), dtype=np.float64)
    if scores.shape != (len(items),) or np.isnan(scores).any():
        raise PrismrankError(
            f"method '{method.name}', member {case.member_id!r}: it must give one number for each of {len(items)} items"
        )
    return rank_of(scores, items.index(case.target.item_id))


def _values(ranks_M: Values, sizes: Sequence[int]) -> dict[str, Values]:
    """By metric, one value a member."""
    rows = [figures(rank, size) for rank, size in zip(ranks_M.tolist(), sizes, strict=True)]
    return {name: np.array([row[name] for row in rows]) for name in METRICS}
