"""What was read of a ledger lately, kept beside what tells whether the ledger still says so.

A ranking reads the same items again and again, and all that its member ever did, of which it knew all but the last
event. So items are kept under a version that every writer of items changes, and timelines beside the number of their
events and the latest arrival, since events are only ever added; what is erased changes a version, too.
Legend: a version is a random word; None stands for a ledger that nobody has written to under one yet.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, NamedTuple

from surfaces.lately import Lately
from surfaces.ledger.records import Event, Item

ITEMS = 16_384
"""So many items are kept."""
EVENTS = 262_144
"""So many events are kept, in all timelines together: about 40 MB."""
FEW = 1_000
"""A timeline that grew by more than that is read anew."""


class Stamp(NamedTuple):
    """What tells that a member's events are the same: the last erasure, how many there are, the latest arrival."""

    erased: str | None
    events: int
    latest: int | None


class Items(Lately[str, Item]):
    """Items by id, of one version of them."""

    def __init__(self, version: str | None) -> None:
        super().__init__(ITEMS)
        self.version = version


class Timeline(list[Event]):
    """A member's events, oldest first, which are never changed. What is made of them may refer to them weakly."""


class _Kept(NamedTuple):
    """The newest so many events of a member, oldest first."""

    newest: int
    stamp: Stamp
    events: Timeline


Rows = Sequence[Sequence[Any]]
"""Events as their fields without the id, and at last their arrival."""


class Timelines:
    """Timelines by member. May be used from any thread."""

    def __init__(self, room: int = EVENTS) -> None:
        self.room, self.held = room, 0
        self._erased: str | None = None
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = Lock()

    def of(
        self, member_id: str, newest: int, stamp: Stamp, later: Callable[[int], Rows], every: Callable[[], Rows]
    ) -> Timeline:
        """The member's `newest` events, oldest first, as the ledger has them under `stamp`, or newer.

        `later` reads those that arrived after one, as they arrived; `every` all of them, as a timeline has them.
        """
        kept = self._find(member_id, stamp.erased)
        if kept is not None and kept.newest == newest:
            if kept.stamp == stamp:
                return kept.events
            if (grown := _grown(kept, stamp, later)) is not None:
                return self._keep(member_id, _Kept(newest, stamp, grown))
        rows = every()
        found = _Kept(newest, stamp, Timeline(_events(rows)))
        # A write may have come in between; then its events would come again with the next look for later ones.
        return self._keep(member_id, found) if _until(rows, stamp) else found.events

    def forget(self) -> None:
        """Drops all."""
        with self._lock:
            self._kept.clear()
            self.held = 0

    def _find(self, member_id: str, erased: str | None) -> _Kept | None:
        with self._lock:
            if erased != self._erased:  # nothing of who was erased is kept, whoever did it
                self._erased, self.held = erased, 0
                self._kept.clear()
            kept = self._kept.get(member_id)
            if kept is not None:
                self._kept.move_to_end(member_id)
            return kept

    def _keep(self, member_id: str, kept: _Kept) -> Timeline:
        with self._lock:
            before = self._kept.pop(member_id, None)
            self.held += len(kept.events) - (len(before.events) if before else 0)
            self._kept[member_id] = kept
            while self.held > self.room:
                self.held -= len(self._kept.popitem(last=False)[1].events)
        return kept.events


def _grown(kept: _Kept, stamp: Stamp, later: Callable[[int], Rows]) -> Timeline | None:
    """A timeline with what came since; None where that is not all that happened to it."""
    before, more = kept.stamp, stamp.events - kept.stamp.events
    if before.latest is None or not 0 < more <= FEW:
        return None
    rows = later(before.latest)
    if len(rows) != more or not _until(rows, stamp):
        return None
    # What arrived later comes behind what happened at the same time.
    events = sorted([*kept.events, *_events(rows)], key=lambda event: event.timestamp)
    return Timeline(events[-kept.newest :])


def _until(rows: Rows, stamp: Stamp) -> bool:
    """Whether none of the rows arrived after the stamp."""
    return all(row[-1] <= (stamp.latest or 0) for row in rows)


def _events(rows: Rows) -> list[Event]:
    """Rows as events. Words that come again and again are one object each, for thousands of events."""
    word = sys.intern
    return [
        Event(word(member_id), word(item_id), word(surface), word(action), *more)
        for member_id, item_id, surface, action, *more, _ in rows
    ]
