"""Nobody is wished for by more than they can answer.

Legend of array names: I items, C the places of a member's list of wishes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from prompts.errors import ConfigError
from surfaces.policies.base import Entry, Policy, PolicyKind, in_this_order
from surfaces.policies.matching import deferred_acceptance
from surfaces.sources.base import NOTHING, Indices, Interactions, Materials, Scores, best
from surfaces.sources.co_visitation import CoVisitation
from surfaces.sources.popular import Popular
from surfaces.visit import Visit

LARGEST = 10_000
"""Members of a market: what they all think of all people is worked out when the surface comes online, in seconds."""

STRANGER = -2.0
"""How much a suitor is liked who is no item of the surface: less than every one who is."""


class MatchPolicy(PolicyKind):
    """For surfaces where members choose members: brings up those with whom a stable match is to be had.

    Left alone, everybody is shown the same few people, who cannot answer them all. When the surface comes online, every
    member wishes for people they have not chosen yet, by what was chosen together and by popularity; the people judge
    their suitors in the same way; and the two sides are matched so that no two of them would both rather have each
    other (Gale and Shapley, 1962). An entry that is the visitor's match comes before the others; a visitor who was not
    there then sees the slate as it is.
    """

    single: ClassVar[bool] = True
    type: Literal["match"]
    slots: int = Field(ge=1, le=100, description="With how many people a member is matched at most.")
    capacity: int = Field(ge=1, le=1_000, description="With how many suitors a person is matched at most.")
    candidates: int = Field(50, ge=1, le=500, description="So many people may be on a member's list of wishes.")

    def build(self, materials: Materials) -> Policy:
        """The matching of all members. Raises ConfigError for a surface whose items are no members."""
        items, data = materials.items, materials.data
        owners = [item.member_id for item in items]
        if items and not any(owners):
            surface = materials.surface
            raise ConfigError(
                f"surface '{surface.surface}': match needs items that are members; give the items of kind "
                f"'{surface.item_kind}' the member_id of the person that each is, or leave match out"
            )
        market = Market.of(data, owners)
        wishes = [market.wishes(member, self.candidates) for member in range(len(market.members))]
        pairs = deferred_acceptance(wishes, market.likes(wishes), self.slots, self.capacity)
        ids = [frozenset(data.item_ids[item] for item in mine) for mine in pairs]
        return Matched(dict(zip(market.members, ids, strict=True)))


@dataclass(frozen=True, slots=True)
class Matched:
    """`partners` are the items that a member is matched with, by the member's id."""

    partners: Mapping[str, frozenset[str]]

    def apply(self, slate: Sequence[Entry], visit: Visit, k: int) -> list[Entry]:  # noqa: ARG002 - of any length
        """The visitor's matches in their order, then the rest in its order."""
        mine = self.partners.get(visit.member_id, frozenset())
        if not mine:
            return list(slate)
        return in_this_order(sorted(slate, key=lambda entry: entry.item_id not in mine))


@dataclass(frozen=True, slots=True)
class Market:
    """Who may be matched, and what they think of whom.

    `members` are ids, `histories[m]` the items that member `m` chose; `place` tells of a member the item that they are,
    `owner` of an item which of the members it is; `people_I` says which items are members.
    """

    members: Sequence[str]
    histories: Sequence[Indices]
    place: Mapping[int, int]
    owner: Mapping[int, int]
    people_I: npt.NDArray[np.bool_]
    together: CoVisitation
    popular_I: Scores

    @classmethod
    def of(cls, data: Interactions, owners: Sequence[str | None]) -> Market:
        """Everybody who chose an item of the surface, or is one; of several items of one person the first counts.

        Of more than `LARGEST` members, those who chose most: it is they who wish for the same people.
        """
        nothing = np.zeros(0, dtype=np.int64)
        chosen = dict.fromkeys([*data.member_ids, *filter(None, owners)], nothing)
        chosen.update(zip(data.member_ids, data.sequences, strict=True))
        members = sorted(chosen, key=lambda member_id: -len(chosen[member_id]))[:LARGEST]
        number = {member_id: place for place, member_id in enumerate(members)}
        histories = [chosen[member_id] for member_id in members]
        place: dict[int, int] = {}
        for item, member_id in enumerate(owners):
            if member_id in number:
                place.setdefault(number[member_id], item)
        together, popular = CoVisitation(), Popular()
        together.fit(data)
        popular.fit(data)
        chosen_I = popular.scores(nothing)
        popular_I = chosen_I / (1 + chosen_I.max(initial=0)) - 1
        owner = {item: member for member, item in place.items()}
        people_I = np.zeros(len(owners), dtype=bool)
        people_I[list(owner)] = True
        return cls(members, histories, place, owner, people_I, together, popular_I)

    def opinion(self, member: int) -> Scores:
        """[items]: above 0 what the member's choices speak for; below 0, from -1 on, the others by popularity."""
        together_I = self.together.scores(self.histories[member])
        return np.where(together_I > NOTHING, together_I, self.popular_I)

    def wishes(self, member: int, count: int) -> list[int]:
        """The items that the member wishes for most: people, but not oneself, and not one chosen before."""
        scores_I = self.opinion(member)
        people_I = self.people_I.copy()
        people_I[self.histories[member]] = False
        people_I[self.place.get(member, [])] = False
        found: list[int] = best(np.where(people_I, scores_I, NOTHING), count).tolist()
        return found

    def likes(self, wishes: Sequence[Sequence[int]]) -> list[list[float]]:
        """[members, C]: how much the person behind each wished-for item likes the member who wishes."""
        likes = [[STRANGER] * len(mine) for mine in wishes]
        suitors: dict[int, list[tuple[int, int]]] = {}
        for member, mine in enumerate(wishes):
            for number, item in enumerate(mine if member in self.place else ()):
                suitors.setdefault(item, []).append((member, number))
        for item, asking in suitors.items():
            scores_I = self.opinion(self.owner[item])
            for member, number in asking:
                likes[member][number] = float(scores_I[self.place[member]])
        return likes
