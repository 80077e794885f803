"""Kinds of cases that are told apart: by the member's history, by what is wanted, by the time since training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from surfaces.evaluation.breadth import head_items
from surfaces.evaluation.protocols import Split
from surfaces.sources.base import Interactions

SHORT = (0, 5, 10, 100)
"""A member with at most so many choices is cold to that degree; one with more than the last has a long history."""
DAY = 86_400
GAPS = (("a day", 1), ("a week", 7), ("30 days", 30))
"""Bounds of the time since training: in words, and in days."""

Mask = npt.NDArray[np.bool_]


class Segment(NamedTuple):
    """Some of the cases; `when` is the condition in a surface's `routing` that such a visit meets, if there is one."""

    name: str
    inside_M: Mask
    when: Mapping[str, Mapping[str, object]] | None = None


def segments(split: Split) -> list[Segment]:
    """Every segment that has cases."""
    found = [*_by_history(split), *_by_item(split), *_by_gap(split)]
    return [segment for segment in found if segment.inside_M.any()]


def _by_history(split: Split) -> list[Segment]:
    lengths_M = np.array([len(split.train.history(case.history)) for case in split.cases])
    cold = [
        Segment(_events(most), lengths_M <= most, {"history": {"max": most}})
        for most in SHORT
    ]  # fmt: skip
    return [
        *cold,
        Segment(f"members: over {SHORT[-1]} events", lengths_M > SHORT[-1], {"history": {"min": SHORT[-1] + 1}}),
    ]


def _events(most: int) -> str:
    return "members: no events" if not most else f"members: up to {most} events"


def counts(data: Interactions) -> npt.NDArray[np.int64]:
    """[items]: how many events each has to be learned from."""
    chosen = np.concatenate([np.zeros(0, dtype=np.int64), *data.sequences])
    return np.bincount(chosen, minlength=len(data.item_ids))


def _by_item(split: Split) -> list[Segment]:
    """By the most popular of a case's wanted items; an item from nowhere is cold."""
    counts_I = counts(split.train)
    kinds = head_items(counts_I)
    wanted_M = [_most(case.wanted, split.train, counts_I) for case in split.cases]

    def among(chosen_I: Mask, *, unknown: bool = False) -> Mask:
        return np.array([unknown if item is None else bool(chosen_I[item]) for item in wanted_M])

    return [
        Segment("items: head (half of events)", among(kinds.head)),
        Segment("items: tail", among(kinds.tail)),
        Segment("items: cold (not in training)", among(kinds.cold, unknown=True)),
    ]


def _most(wanted: Sequence[str], data: Interactions, counts_I: npt.NDArray[np.int64]) -> int | None:
    places = [data.index[item_id] for item_id in wanted if item_id in data.index]
    return max(places, key=lambda place: int(counts_I[place])) if places else None


def _by_gap(split: Split) -> list[Segment]:
    """By the time from the last moment that was learned from; only where there is one such moment for all."""
    if split.cut is None:
        return []
    days_M = np.array([(case.time - split.cut) / DAY for case in split.cases])
    bounds = [0.0, *(days for _, days in GAPS), np.inf]
    names = [*(f"up to {word}" for word, _ in GAPS), f"over {GAPS[-1][0]}"]
    parts = zip(names, bounds, bounds[1:], strict=False)
    return [
        Segment(f"since training: {name}", (days_M >= low) & (days_M < high if np.isfinite(high) else True))
        for name, low, high in parts
    ]
