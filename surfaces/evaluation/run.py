"""Methods compared on the same members, the same targets and the same candidates."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from prompts.errors import ConfigError, PrismrankError
from surfaces.evaluation.method import Judged, Method, Visits
from surfaces.evaluation.metrics import METRICS, figures
from surfaces.evaluation.protocols import Case, Split
from surfaces.evaluation.results import TOP, Notebook, Results, outcomes
from surfaces.ledger.store import Ledger
from surfaces.sources.base import Scores, best
from surfaces.visit import Visit

Progress = Callable[[int, int], None]
"""Called with how many members are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where results are kept while they come: a folder, and by method what they depend on beside the split."""

    folder: Path | None = None
    keys: Mapping[str, str] = field(default_factory=dict)


def rank(
    split: Split,
    methods: Sequence[Method],
    ledger: Ledger,
    *,
    actions: Mapping[str, frozenset[str]] | None = None,
    keeping: Keeping | None = None,
    progress: Progress | None = None,
) -> dict[str, Results]:
    """Every method's results for every case of the split, by the method's name; what was kept is not done again.

    `actions` are those that make a head's answer come true, by head. Raises ConfigError for methods that cannot be
    compared, PrismrankError for a method that gives no proper scores.
    """
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"methods: {', '.join(names) or 'none'}; give one or more, each once")
    where, visits = keeping or Keeping(), Visits(ledger)
    books = [
        Notebook(where.folder, name, f"{split.digest}-{where.keys.get(name, '')}", len(split.cases)) for name in names
    ]
    try:
        for number, case in enumerate(split.cases):
            missing = [pair for pair in zip(methods, books, strict=True) if pair[1].results.done <= number]
            if missing:
                visit, items = visits.of(case), split.items(number)
                for method, book in missing:
                    _note(book.results, number, _judged(method, visit, items, case), case, items, split, actions or {})
                    book.save(now=False)
            if progress:
                progress(number + 1, len(split.cases))
    finally:
        for book in books:
            book.save()
    return {name: book.results for name, book in zip(names, books, strict=True)}


def _judged(method: Method, visit: Visit, items: Sequence[str], case: Case) -> Judged:
    """The method's scores and what they took. Raises PrismrankError for scores that are none."""
    start = time.perf_counter()
    found = method.judge(visit, items)
    scores = np.asarray(found.scores, dtype=np.float64)
    if scores.shape != (len(items),) or np.isnan(scores).any():
        raise PrismrankError(
            f"method '{method.name}', member {case.member_id!r}: it must give one number for each of {len(items)} items"
        )
    return found._replace(scores=scores, seconds=max(found.seconds, time.perf_counter() - start))


def _note(
    results: Results,
    number: int,
    judged: Judged,
    case: Case,
    items: list[str],
    split: Split,
    actions: Mapping[str, frozenset[str]],
) -> None:
    labels = np.array([case.labels.get(item_id, 0.0) for item_id in items])
    found = figures(judged.scores, labels)
    results.values_MF[number] = [found[name] for name in METRICS]
    results.seconds_M[number], results.tokens_M[number] = judged.seconds, judged.tokens
    first = [split.train.index[items[place]] for place in _top(judged.scores, number)]
    results.tops_MK[number, : len(first)] = first
    true = outcomes(case, items, {head: actions[head] for head in judged.heads if head in actions})
    for head, came in true.items():
        results.heads.setdefault(head, []).append((judged.heads[head].astype(np.float32), came))


def _top(scores: Scores, seed: int) -> list[int]:
    """The places of the first items, ties in an order drawn by the seed; those that nothing is said of are none."""
    order = np.random.default_rng(seed).permutation(len(scores))
    return [int(order[place]) for place in best(scores[order], TOP)]
