"""Looks for what should have been held out, in everything that a method gets to see.

It reads the ledger anew and trusts nothing that the split says of itself. Three places are searched: the timelines that
methods are given, the prompts that the model reads, and what sources and indexes were fitted to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from prompts.errors import PrismrankError
from prompts.tree import PromptTree
from prompts.verbalize import Happening, TrunkForm, event_piece
from surfaces.evaluation.method import Method, Remembered, Visits
from surfaces.evaluation.protocols import Case, Split
from surfaces.happenings import attributes_of
from surfaces.ledger.records import IMPRESSION, Event, Item, quoted
from surfaces.ledger.store import Ledger
from surfaces.sources.base import Interactions
from surfaces.visit import Visit

TOLD = 3
"""So many of the leaks of one place are named."""


class LeakError(PrismrankError):
    """A method sees what is held out."""


class Place(NamedTuple):
    """How many things of one kind were searched, and the leaks found in them."""

    checked: int
    found: Sequence[str]


@runtime_checkable
class Prompting(Protocol):
    """A method that puts a case into words."""

    name: str
    form: TrunkForm

    def tree(self, visit: Visit, items: Sequence[str]) -> PromptTree:
        """What the model reads."""
        ...


def check(split: Split, methods: Sequence[Method], ledger: Ledger) -> dict[str, Place]:
    """Searches timelines, prompts and indexes; by place, how many were searched and what was found."""
    known = ledger.timelines(case.member_id for case in split.cases)
    visits = Visits(ledger)
    bare = [method.method if isinstance(method, Remembered) else method for method in methods]
    prompting = list({id(method): method for method in bare if isinstance(method, Prompting)}.values())
    prompts = (
        leak
        for case in split.cases
        for method in prompting
        for leak in in_prompt(method, case, visits.of(case), known[case.member_id])
    )
    learned = {id(data): data for method in methods for data in [split.train, *method.learned]} or {0: split.train}
    return {
        "timelines": Place(len(split.cases), [leak for case in split.cases for leak in in_timeline(case, known)]),
        "prompts": Place(len(split.cases) * len(prompting), list(prompts)),
        "indexes": Place(len(learned), [leak for data in learned.values() for leak in in_index(split, data)]),
    }


def refuse(places: Mapping[str, Place]) -> None:
    """Raises LeakError where anything was found, naming the first ones."""
    found = [f"{name}: {leak}" for name, place in places.items() for leak in place.found[:TOLD]]
    if found:
        total = sum(len(place.found) for place in places.values())
        more = f" and {total - len(found)} more" if total > len(found) else ""
        raise LeakError(f"what is held out can be seen: {'; '.join(found)}{more}")


def in_timeline(case: Case, known: Mapping[str, Sequence[Event]]) -> list[str]:
    """Events of a case's history that are later than the case, or are what it asks for."""
    who = f"member {quoted(case.member_id)}"
    late = [event for event in case.history if event.timestamp > case.time]
    seen = {_name(event) for event in case.history}
    same = [
        item_id for item_id in case.wanted if (held := _asked(case, known[case.member_id], item_id)) and held <= seen
    ]
    return [
        *(f"{who}: the event with {quoted(event.item_id)} is later than the ranking" for event in late),
        *(f"{who}: the event with {quoted(item_id)} is what is asked for" for item_id in same),
    ]


def in_prompt(method: Prompting, case: Case, visit: Visit, timeline: Sequence[Event]) -> list[str]:
    """Wanted items that the trunk tells of more often than the member did something with them before."""
    tree = method.tree(visit, case.wanted)
    lines = Counter(piece.text for piece in tree.nodes[0].pieces)
    acts = [event for event in timeline if event.action != IMPRESSION]
    items = visit.lookup(event.item_id for event in acts)
    told = [(event, _line(method.form, items[event.item_id], event)) for event in acts if event.item_id in items]
    found = []
    for item_id in case.wanted:
        for line in {line for event, line in told if event.item_id == item_id}:
            before = [event for event, said in told if said == line and event.timestamp <= case.time]
            held = any(
                event.item_id == item_id
                and event.timestamp == case.time
                and event.action == case.acts.get(item_id, event.action)
                for event in before
            )
            if lines[line] > len(before) - held:
                found.append(
                    f"member {quoted(case.member_id)}: method {method.name}: the trunk tells of {quoted(item_id)}, "
                    "which is what is asked for"
                )
    return found


def _line(form: TrunkForm, item: Item, event: Event) -> str:
    """An event as the trunk has it. Events with other items or actions may read the same."""
    return event_piece(form, Happening(item.kind, event.action, attributes_of(item)), compress=False).text


def in_index(split: Split, data: Interactions) -> list[str]:
    """Members of whom something was learned that is held out, or that comes after the split's moment."""
    index = data.index
    first: dict[str, float] = {}
    for case in split.cases:
        first[case.member_id] = min(case.time, first.get(case.member_id, np.inf))
    asked = {
        (case.member_id, index[item_id], case.time)
        for case in split.cases
        for item_id in case.wanted
        if item_id in index
    }
    allowed: dict[str, int] = {}
    for case in split.cases:
        before = len(data.history(case.history))
        allowed[case.member_id] = min(before, allowed.get(case.member_id, before))
    found = []
    for member_id, sequence, times in zip(data.member_ids, data.sequences, data.times, strict=True):
        who = f"member {quoted(member_id)}"
        if split.cut is not None and len(times) and times[-1] >= split.cut:
            found.append(f"{who}: an event at {times[-1]:g} was learned from, and the cut is at {split.cut:g}")
        elif len(times) and times[-1] > first.get(member_id, np.inf):
            found.append(f"{who}: an event at {times[-1]:g} was learned from, which is later than what is asked")
        elif len(times) > min(allowed.get(member_id, len(times)), len(times)) and _held(
            member_id, sequence, times, asked
        ):
            found.append(f"{who}: what is asked for was learned from")
    return found


def _held(member_id: str, sequence: Iterable[int], times: Iterable[float], asked: set[tuple[str, int, float]]) -> bool:
    return any((member_id, int(item), float(at)) in asked for item, at in zip(sequence, times, strict=True))


def _name(event: Event) -> str:
    return event.event_id or repr(event)


def _asked(case: Case, timeline: Sequence[Event], item_id: str) -> set[str]:
    """The events that are held out for a wanted item, as the ledger has them."""
    later = (event for event in timeline if event.timestamp >= case.time and event.action != IMPRESSION)
    return {_name(event) for event in later if event.item_id == item_id}
