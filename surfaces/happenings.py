"""From the ledger's events to what the prompts see of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prompts.verbalize import Happening
from surfaces.ledger.records import IMPRESSION, Event, Item

Act = tuple[Item | None, str]
"""An event's item, where it is to be put into words, and its action."""


class Acts(NamedTuple):
    """What a member did: so many old things, which only count, and those that may be put into words."""

    older: int
    told: Sequence[Act]


BEFORE = Happening("", "", {})
"""In the place of an event that is too old to be put into words: it only counts."""


def happenings(timeline: Sequence[Event], items: Mapping[str, Item]) -> list[Happening]:
    """Every event but impressions, with its item's kind and attributes.

    `items` holds at least the items of those that are `readable` under the trunk's budget, by id.
    """
    return told(acts_of(timeline, items))


def acts_of(timeline: Sequence[Event], items: Mapping[str, Item], budget: int | None = None) -> Acts:
    """What `happenings` are made of; under a budget, those that are not `readable` under it only count."""
    chosen = _chosen(timeline)
    older = 0 if budget is None else max(0, len(chosen) - budget)
    return Acts(older, [(items.get(event.item_id), event.action) for event in chosen[older:]])


def told(acts: Acts) -> list[Happening]:
    """Acts for a trunk."""
    return [BEFORE] * acts.older + [happening(act) for act in acts.told]


def happening(act: Act) -> Happening:
    """One of them."""
    item, action = act
    return Happening(item.kind, action, attributes_of(item)) if item else BEFORE


def readable(timeline: Sequence[Event], budget: int) -> list[Event]:
    """The newest events that a trunk of `budget` slots may hold: each takes at least one. Impressions are left out."""
    return _chosen(timeline)[-budget:]


def attributes_of(item: Item) -> dict[str, object]:
    """What a template may read of an item: its attributes and its `item_id`."""
    return {**item.attributes, "item_id": item.item_id}


def _chosen(timeline: Sequence[Event]) -> list[Event]:
    return [event for event in timeline if event.action != IMPRESSION]
