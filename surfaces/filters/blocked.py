"""Nothing that the member does not want to see again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from surfaces.fields import Word, listed
from surfaces.filters.base import FilterKind, Test
from surfaces.ledger.records import Item
from surfaces.visit import Visit


class BlockedFilter(FilterKind):
    """Drops items that the member blocked, and those of the same author, shop or whatever `by` names."""

    type: Literal["blocked"]
    actions: Annotated[tuple[Word, ...], listed(min_length=1, max_length=32)] = Field(
        ("block",), description="The actions that block an item, for ever."
    )
    by: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None, description="An attribute, such as author_id: items that share its value with a blocked one go, too."
    )

    def excludes(self, visit: Visit) -> set[str]:
        """The items that the member blocked."""
        return {event.item_id for event in visit.timeline if event.action in self.actions}

    def test(self, visit: Visit) -> Test:
        """Reads the blocked items once; an item without the attribute passes."""
        name, blocked = self.by, self.excludes(visit)
        if name is None or not blocked:
            return lambda item: item.item_id not in blocked
        values = _values(item.attributes.get(name) for item in visit.lookup(blocked).values())

        def wanted(item: Item) -> bool:
            return item.item_id not in blocked and values.isdisjoint(_values([item.attributes.get(name)]))

        return wanted


def _values(found: Iterable[object]) -> set[str | int | float]:
    """Texts and numbers, and those in lists: what two items can have in common."""
    parts = (part for value in found for part in (value if isinstance(value, list | tuple) else [value]))
    return {part for part in parts if isinstance(part, str | int | float) and part != ""}
