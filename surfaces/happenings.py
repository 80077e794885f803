"""From the ledger's events to what the prompts see of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prompts.verbalize import Happening
from surfaces.ledger.records import IMPRESSION, Event, Item

BEFORE = Happening("", "", {})
"""In the place of an event that is too old to be put into words: it only counts."""


def happenings(timeline: Sequence[Event], items: Mapping[str, Item]) -> list[Happening]:
    """Every event but impressions, with its item's kind and attributes.

    `items` holds at least the items of those that are `readable` under the trunk's budget, by id.
    """
    return [_happening(event, items.get(event.item_id)) for event in _chosen(timeline)]


def readable(timeline: Sequence[Event], budget: int) -> list[Event]:
    """The newest events that a trunk of `budget` slots may hold: each takes at least one. Impressions are left out."""
    return _chosen(timeline)[-budget:]


def attributes_of(item: Item) -> dict[str, object]:
    """What a template may read of an item: its attributes and its `item_id`."""
    return {**item.attributes, "item_id": item.item_id}


def _happening(event: Event, item: Item | None) -> Happening:
    return Happening(item.kind, event.action, attributes_of(item)) if item else BEFORE


def _chosen(timeline: Sequence[Event]) -> list[Event]:
    return [event for event in timeline if event.action != IMPRESSION]
