"""How many of the held-out items the first stage brings at all: each source alone, and all of them merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from surfaces.evaluation.bootstrap import Interval, interval
from surfaces.evaluation.method import Visits
from surfaces.evaluation.protocols import Split
from surfaces.ledger.records import IMPRESSION
from surfaces.ledger.store import Ledger
from surfaces.sources.merge import Retrieval, fuse

DEPTHS = (10, 50, 100, 200)
MERGED = "merged"


@dataclass(frozen=True, slots=True)
class Coverage:
    """`found[name][k]` [cases] is the share of a case's wanted items among the first k that a source brings.

    `merged` is the pool: the first k of the lists merged, each of them k long.
    """

    found: dict[str, dict[int, npt.NDArray[np.float64]]]

    def figures(self) -> dict[str, dict[str, Interval]]:
        """By source, the mean over cases at each depth with its interval."""
        return {
            name: {f"coverage@{k}": interval(values) for k, values in by_depth.items()}
            for name, by_depth in self.found.items()
        }


def coverage(
    split: Split,
    retrieval: Retrieval,
    ledger: Ledger,
    *,
    depths: Sequence[int] = DEPTHS,
    progress: Callable[[int, int], None] | None = None,
) -> Coverage:
    """What each source of a fitted retrieval brings of the cases' wanted items.

    Items that the member acted on before are left out, but never the wanted ones; no filter of the surface is asked.
    """
    names = [fitted.name for fitted in retrieval.sources]
    weights = {fitted.name: fitted.weight for fitted in retrieval.sources}
    found = {name: {k: np.zeros(len(split.cases)) for k in depths} for name in (*names, MERGED)}
    visits = Visits(ledger)
    for number, case in enumerate(split.cases):
        wanted = set(case.wanted)
        seen = {event.item_id for event in case.history if event.action != IMPRESSION} - wanted
        lists = retrieval.lists(visits.of(case), max(depths), seen)
        for k in depths:
            first = {name: item_ids[:k] for name, item_ids in lists.items()}
            pool = [candidate.item_id for candidate in fuse(first, weights)[:k]]
            for name, item_ids in {**first, MERGED: pool}.items():
                found[name][k][number] = len(wanted.intersection(item_ids)) / len(wanted)
        if progress:
            progress(number + 1, len(split.cases))
    return Coverage(found)
