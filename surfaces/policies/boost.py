"""More of this, less of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from surfaces.fields import ConditionText
from surfaces.policies.base import Entry, PolicyKind, best_first
from surfaces.visit import Visit


class BoostPolicy(PolicyKind):
    """Adds `strength` to the relevance of the entries for which a condition holds; below 0 it buries them.

    Relevance begins between 0 and 1: a strength of 1 makes the least of them level with the best of the others, one of
    0.2 is a fifth of that way. Boosts add up, in any order, and a boost and a burying of the same strength cancel out;
    for that, the sum may leave 0 to 1. Level entries keep their order.
    """

    type: Literal["boost"]
    where: ConditionText = Field(
        description="An expression over item.NAME, member.NAME and context.NAME, like item.city == member.city."
    )
    strength: float = Field(ge=-1, le=1, description="What is added; below 0 the entries are buried.")

    def apply(self, slate: Sequence[Entry], visit: Visit, k: int) -> list[Entry]:  # noqa: ARG002 - of any length
        """The entries by what their relevance has become."""
        return best_first([self._boosted(entry, visit) for entry in slate])

    def _boosted(self, entry: Entry, visit: Visit) -> Entry:
        item = {**entry.attributes, "item_id": entry.item_id}
        if not self.where.holds({"item": item, "member": visit.profile, "context": visit.context}):
            return entry
        return replace(entry, relevance=entry.relevance + self.strength)
