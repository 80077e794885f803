"""What sources learn from, what every source does, and how the best of its scores are taken.

Legend of array names: I items, H events of a history, in the order of time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from prompts.errors import ConfigError
from surfaces.ledger.records import IMPRESSION, Clock, Event
from surfaces.ledger.store import Ledger

Indices = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

NOTHING = -np.inf
"""The score of an item of which a source has nothing to say."""


@dataclass(frozen=True, slots=True)
class Interactions:
    """Who chose which items of one kind, and when; impressions are left out.

    `index[item_ids[i]] == i`. Member `m` is `member_ids[m]`; `sequences[m]` are indices of items in the order of time,
    `times[m]` their timestamps. Items that nobody chose are among `item_ids` too.
    """

    item_ids: tuple[str, ...]
    index: dict[str, int]
    member_ids: tuple[str, ...]
    sequences: tuple[Indices, ...]
    times: tuple[Scores, ...]
    clock: Clock = "time"

    @classmethod
    def of(cls, ledger: Ledger, kind: str, *, before: float | None = None) -> Interactions:
        """The ledger's events with items of that kind, on any surface; with `before`, only those that are earlier.

        Raises ConfigError for `before` where the ledger's timestamps are no times.
        """
        if before is not None and ledger.clock == "order":
            raise ConfigError("before: a split by time needs times, but this ledger's clock is 'order'")
        item_ids = tuple(item.item_id for item in ledger.all_items(kind))
        index = {item_id: place for place, item_id in enumerate(item_ids)}
        chosen = (event for event in ledger.all_events() if event.item_id in index and event.action != IMPRESSION)
        early = (event for event in chosen if before is None or event.timestamp < before)
        member_ids, sequences, times = [], [], []
        for member_id, events in groupby(early, key=lambda event: event.member_id):
            timeline = list(events)
            member_ids.append(member_id)
            sequences.append(np.array([index[event.item_id] for event in timeline], dtype=np.int64))
            times.append(np.array([event.timestamp for event in timeline], dtype=np.float64))
        return cls(item_ids, index, tuple(member_ids), tuple(sequences), tuple(times), ledger.clock)

    def without_last(self, count: int) -> Interactions:
        """The same without the last `count` events of each member."""
        sequences = tuple(sequence[: max(len(sequence) - count, 0)] for sequence in self.sequences)
        times = tuple(time[: max(len(time) - count, 0)] for time in self.times)
        return Interactions(self.item_ids, self.index, self.member_ids, sequences, times, self.clock)

    def history(self, timeline: Iterable[Event]) -> Indices:
        """A timeline as indices of the items known here; impressions and other items are left out."""
        return history_of(self.index, timeline)


def history_of(index: Mapping[str, int], timeline: Iterable[Event]) -> Indices:
    """A timeline as indices of items; impressions and items that are not in the index are left out."""
    places = [index[event.item_id] for event in timeline if event.action != IMPRESSION and event.item_id in index]
    return np.array(places, dtype=np.int64)


class Source(Protocol):
    """Scores every item for a member, from what it learned in `fit`. `scores` may be called from any thread."""

    name: str

    def fit(self, data: Interactions) -> None:
        """Learns from the interactions; what was learned before is forgotten. Raises ConfigError for a wrong clock."""
        ...

    def scores(self, history_H: Indices) -> Scores:
        """[items]: higher is better, `NOTHING` where the source has nothing to say, never NaN."""
        ...


@runtime_checkable
class Searching(Protocol):
    """A source that finds its best items without scoring all of them."""

    def search(self, history_H: Indices, count: int) -> list[tuple[int, float]]:
        """The `count` best items with their scores, best first."""
        ...


def retrieve(source: Source, history_H: Indices, k: int, exclude: Collection[int] = ()) -> list[tuple[int, float]]:
    """The `k` best items that are not excluded, as (index, score), best first, ties by index.

    Fewer when the source has nothing to say of more.
    """
    if isinstance(source, Searching):
        found = source.search(history_H, k + len(exclude))
        return [(item, score) for item, score in found if item not in exclude][:k]
    scores_I = source.scores(history_H).copy()
    scores_I[np.fromiter(exclude, dtype=np.int64)] = NOTHING
    return [(int(item), float(scores_I[item])) for item in best(scores_I, k)]


def best(scores_I: Scores, k: int) -> Indices:
    """Indices of the `k` highest scores above `NOTHING`, highest first, ties by index."""
    known = np.flatnonzero(scores_I > NOTHING)
    if len(known) > k:
        threshold = np.partition(scores_I[known], len(known) - k)[len(known) - k]
        above = known[scores_I[known] > threshold]
        level = known[scores_I[known] == threshold][: k - len(above)]
        known = np.concatenate([above, level])
    return known[np.lexsort((known, -scores_I[known]))]
