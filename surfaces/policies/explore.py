"""A chance for those of which little is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import ClassVar, Literal

from pydantic import Field

from surfaces.fields import Duration
from surfaces.policies.base import Entry, PolicyKind, Share, in_this_order
from surfaces.visit import Visit


class ExplorePolicy(PolicyKind):
    """Gives some places to entries drawn by lot (epsilon-greedy), and tells with which probability each got its place.

    Each of the first k places goes, with the probability `rate`, to one of the entries that are left, all alike; else
    to the best of them. A member sees the same draw for as long as `every` says. The propensity in the reply makes the
    events of such slates worth learning from; put this policy last.

    R. Sutton, A. Barto, "Reinforcement learning", 2nd edition, 2018, chapter 2.2.
    """

    single: ClassVar[bool] = True
    type: Literal["explore"]
    rate: Share = Field(description="The probability that a place is drawn by lot.")
    every: Duration = Field(86_400.0, description="For so long a member's draw stays the same.")
    seed: int = Field(0, ge=0, lt=2**63, description="Another number gives other draws, on another surface say.")

    def apply(self, slate: Sequence[Entry], visit: Visit, k: int) -> list[Entry]:
        """The drawn places, then the rest in its order. A propensity that is there already is multiplied."""
        lot, left, placed = Random(self._seed(visit)), list(slate), list[Entry]()
        while left and len(placed) < k:
            number = len(left)
            place = lot.randrange(number) if lot.random() < self.rate else 0
            chance = self.rate / number + (0.0 if place else 1 - self.rate)
            entry = left.pop(place)
            placed.append(replace(entry, propensity=entry.propensity * chance))
        return in_this_order([*placed, *left])

    def _seed(self, visit: Visit) -> str:
        """The same for a member, or for what an unknown one did, within a period."""
        who = visit.member_id or [event.item_id for event in visit.timeline]
        return json.dumps([self.seed, visit.now // self.every, who])
