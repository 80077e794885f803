"""From the ledger's events to what the prompts see of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prompts.verbalize import Happening
from surfaces.ledger.records import IMPRESSION, Event, Item

Act = tuple[Item | None, str]
"""An event's item, where it is to be put into words, and its action."""
BEFORE = Happening("", "", {})
"""In the place of an event that is too old to be put into words: it only counts."""


def happenings(timeline: Sequence[Event], items: Mapping[str, Item]) -> list[Happening]:
    """Every event but impressions, with its item's kind and attributes.

    `items` holds at least the items of those that are `readable` under the trunk's budget, by id.
    """
    return [happening(act) for act in acts_of(timeline, items)]


def acts_of(timeline: Sequence[Event], items: Mapping[str, Item], budget: int | None = None) -> list[Act]:
    """What `happenings` are made of; under a budget, of those that are `readable` under it and no others."""
    chosen = _chosen(timeline)
    first = 0 if budget is None else max(0, len(chosen) - budget)
    old: list[Act] = [(None, event.action) for event in chosen[:first]]
    return old + [(items.get(event.item_id), event.action) for event in chosen[first:]]


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
