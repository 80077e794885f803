"""What members did, as trees are made of it: what may be learned from, and what is held out.

Places count a member's acts: all of their events but impressions, oldest first. Choices are those acts that a surface
ranks by. Legend of array names: C choices, S spots.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from foundation.engine.base import Engine
from prompts.tree import Piece
from prompts.verbalize import TrunkForm, fitted, profile_piece
from surfaces.ledger.records import IMPRESSION, Event
from surfaces.ledger.store import Ledger

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Timeline:
    """A member's profile, what they did on all surfaces, and what they were shown. `fold` is by member."""

    member_id: str
    profile: Piece
    acts: tuple[Event, ...]
    impressions: tuple[Event, ...]
    fold: int


class Slate(NamedTuple):
    """What was shown at once: indices of items, and what the member did with each, None where nothing."""

    place: int
    time: float
    items: tuple[int, ...]
    actions: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Course:
    """A member on one surface. `items_C` were chosen at `places_C`; from number `learned` on they are held out.

    A spot is where leaves may hang: `spots_S` are places, and `which_S` says what is known there: a choice's number,
    or -1-n for slate n.
    """

    timeline: Timeline
    places_C: Integers
    items_C: Integers
    learned: int
    slates: tuple[Slate, ...]
    spots_S: Integers
    which_S: Integers

    def history(self, place: int) -> Integers:
        """The items that were chosen before a place."""
        return self.items_C[: int(np.searchsorted(self.places_C, place))]

    @property
    def held(self) -> Sequence[int]:
        """Places of what is held out."""
        found: Sequence[int] = self.places_C[self.learned :].tolist()
        return found

    @property
    def times_S(self) -> npt.NDArray[np.float64]:
        """When each spot's item was chosen, or its slate shown, in the ledger's clock."""
        acts, spots = self.timeline.acts, zip(self.spots_S, self.which_S, strict=True)
        times = [acts[place].timestamp if which >= 0 else self.slates[-1 - which].time for place, which in spots]
        return np.array(times, dtype=np.float64)

    def at(self, kept_S: npt.NDArray[np.bool_]) -> Course:
        """The same, with leaves at these spots alone."""
        return replace(self, spots_S=self.spots_S[kept_S], which_S=self.which_S[kept_S])


def timelines(ledger: Ledger, form: TrunkForm, engine: Engine, folds: int) -> list[Timeline]:
    """Of every member with events."""
    profiles = {
        member.member_id: fitted(profile_piece(form, member.profile), form.budget, engine.count)
        for member in ledger.all_members()
    }
    found = []
    for number, (member_id, events) in enumerate(groupby(ledger.all_events(), key=lambda event: event.member_id)):
        by_kind: dict[bool, list[Event]] = {True: [], False: []}
        for event in events:
            by_kind[event.action == IMPRESSION].append(event)
        found.append(
            Timeline(member_id, profiles[member_id], tuple(by_kind[False]), tuple(by_kind[True]), number % folds)
        )
    return found


class Reading(NamedTuple):
    """What of an event a surface counts: items by id, its name, unwanted actions, and those that it ranks by."""

    surface: str
    places: Mapping[str, int]
    unwanted: frozenset[str]
    wanted: frozenset[str]


def course(timeline: Timeline, reading: Reading, holdout: int) -> Course:
    """A member's part on a surface: nothing from the `holdout`-th last wanted choice on is learned from."""
    index = reading.places
    chosen = [
        place for place, act in enumerate(timeline.acts) if act.item_id in index and act.action not in reading.unwanted
    ]
    items = np.array([index[timeline.acts[place].item_id] for place in chosen], dtype=np.int64)
    wanted = [number for number, place in enumerate(chosen) if timeline.acts[place].action in reading.wanted]
    learned = wanted[max(len(wanted) - holdout, 0)] if holdout and wanted else len(chosen)
    end = chosen[learned] if learned < len(chosen) else len(timeline.acts)
    slates = tuple(_slates(timeline, reading, end))
    spots = [(chosen[number], number) for number in wanted if number < learned]
    spots += [(slate.place, -1 - number) for number, slate in enumerate(slates)]
    spots.sort()
    both = np.array(spots, dtype=np.int64).reshape(-1, 2)
    return Course(timeline, np.array(chosen, dtype=np.int64), items, learned, slates, both[:, 0], both[:, 1])


def _slates(timeline: Timeline, reading: Reading, end: int) -> list[Slate]:
    """The member's slates on the surface of which all that came is before place `end`.

    Impressions of one second are a slate; what the member did with an item before the next slate came of it.
    """
    shown: dict[float, dict[str, None]] = defaultdict(dict)
    for event in timeline.impressions:
        if event.surface == reading.surface and event.item_id in reading.places:
            shown[event.timestamp][event.item_id] = None
    times = sorted(shown)
    came: dict[float, dict[str, str]] = defaultdict(dict)
    ends: dict[float, int] = {}
    for place, act in enumerate(timeline.acts):
        before = int(np.searchsorted(times, act.timestamp, side="right")) - 1
        if before >= 0 and act.surface == reading.surface and act.item_id in shown[times[before]]:
            came[times[before]].setdefault(act.item_id, act.action)
            ends[times[before]] = place
    stamps = [act.timestamp for act in timeline.acts]
    found = []
    for time in times:
        place = int(np.searchsorted(stamps, time))
        if max(place, ends.get(time, -1) + 1) <= end:
            items = tuple(reading.places[name] for name in shown[time])
            found.append(Slate(place, time, items, tuple(came[time].get(name) for name in shown[time])))
    return found
