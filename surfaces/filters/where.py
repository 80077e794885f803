"""Only items of which something holds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from surfaces.fields import ConditionText
from surfaces.filters.base import FilterKind, Test
from surfaces.happenings import attributes_of
from surfaces.ledger.records import Item
from surfaces.visit import Visit


class WhereFilter(FilterKind):
    """Keeps the items of which an expression holds, over `item`, `member` and `context`.

    `item` has the item's attributes, its `item_id` and its `kind`; `member` is the profile, and the `member_id`.
    """

    type: Literal["where"]
    keep: ConditionText = Field(description="Such as: item.remote or item.location == member.location")

    def test(self, visit: Visit) -> Test:
        """Nothing that an item or a member holds makes it raise."""
        member = {**visit.profile, **({"member_id": visit.member_id} if visit.member_id else {})}

        def kept(item: Item) -> bool:
            values = {**attributes_of(item), "kind": item.kind}
            return self.keep.holds({"item": values, "member": member, "context": visit.context})

        return kept
