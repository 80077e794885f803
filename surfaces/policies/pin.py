"""These, here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator

from surfaces.fields import listed, wrong
from surfaces.policies.base import Entry, PolicyKind, in_this_order
from surfaces.visit import Visit

ItemId = Annotated[str, Field(min_length=1, max_length=256)]


class PinPolicy(PolicyKind):
    """Puts items at a place of the slate, one below the other in the order of the list, whatever the model thinks.

    They are made as relevant as the best entry below them, so that later policies leave them about there; list this
    policy last for exactly there. An item that a filter drops, or that a caller's own list lacks, is not shown.
    """

    type: Literal["pin"]
    items: Annotated[tuple[ItemId, ...], listed(min_length=1, max_length=32)] = Field(
        description="Ids of the items, in their order."
    )
    position: int = Field(1, ge=1, le=1_000, description="The place of the first of them; 1 is the top.")

    @field_validator("items")
    @classmethod
    def _each_once(cls, items: tuple[str, ...]) -> tuple[str, ...]:
        for index, item_id in enumerate(items):
            if item_id in items[:index]:
                raise wrong(f"'{item_id}' is listed twice; once is enough", index)
        return items

    @property
    def brings(self) -> tuple[str, ...]:
        """The pinned items: they are candidates whether a source brings them or not."""
        return self.items

    def apply(self, slate: Sequence[Entry], visit: Visit, k: int) -> list[Entry]:  # noqa: ARG002 - the same for all
        """The pinned entries at their place, the others around them in their order."""
        among = {entry.item_id: entry for entry in slate}
        pinned = [among[item_id] for item_id in self.items if item_id in among]
        rest = [entry for entry in slate if entry.item_id not in self.items]
        above = self.position - 1
        return in_this_order([*rest[:above], *pinned, *rest[above:]])
