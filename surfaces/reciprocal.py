"""The other side of a reciprocal surface: would the candidate, who is a member too, choose this member?

The question is the surface's own, turned round: the candidate's timeline is the trunk, this member's item the leaf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from prompts.tree import PromptTree
from surfaces.compose import Composer
from surfaces.happenings import readable
from surfaces.heads.base import Array
from surfaces.heads.reading import HeadReading, utility
from surfaces.ledger.records import Item
from surfaces.ledger.store import Ledger
from surfaces.spec import BACK, SurfaceSpec
from surfaces.visit import Visit


class OtherSides(NamedTuple):
    """A tree for every candidate that is asked, and its number among the candidates."""

    places: tuple[int, ...] = ()
    trees: tuple[PromptTree, ...] = ()


@dataclass(frozen=True, slots=True)
class Asker:
    """Puts the other sides' questions."""

    composer: Composer
    ledger: Ledger

    def ask(self, visit: Visit, candidates: Sequence[Item]) -> OtherSides:
        """The first candidates that are members, each asked for the visitor."""
        rule = self.composer.spec.reciprocal
        if rule is None:
            return OtherSides()
        persons = [(place, item.member_id) for place, item in enumerate(candidates) if item.member_id is not None]
        asked = persons[: rule.top]
        sides = self._sides([member_id for _, member_id in asked], visit)
        items = {**self._told(sides, visit), **(me := self._myself(visit))}
        trees = [self.composer.tree(side, items, list(me)) for side in sides]
        return OtherSides(tuple(place for place, _ in asked), tuple(trees))

    def _myself(self, visit: Visit) -> dict[str, Item]:
        """The visitor as an item, by its id: the one that they are, or their profile."""
        item_id = self.composer.retrieval.people.get(visit.member_id, "")
        found = visit.lookup([item_id]) if item_id else {}
        unknown = Item(item_id, self.composer.spec.item_kind, visit.profile, visit.member_id or None)
        return {item_id: found.get(item_id, unknown)}

    def _sides(self, member_ids: Sequence[str], visit: Visit) -> list[Visit]:
        """The others' visits: the visitor's query is not theirs.

        One who was taken out of the ledger a moment ago is told as a stranger.
        """
        context = {key: visit.context[key] for key in ("now", "locale") if key in visit.context}
        here = replace(visit, context=context, given=())
        members, timelines = self.ledger.members(member_ids), self.ledger.timelines(member_ids)
        profiles = {member_id: member.profile for member_id, member in members.items()}
        return [
            replace(here, member_id=one, profile=profiles.get(one, {}), timeline=timelines[one]) for one in member_ids
        ]

    def _told(self, sides: Sequence[Visit], visit: Visit) -> Mapping[str, Item]:
        """The items of all events that the others' trunks may tell."""
        budget = self.composer.form.budget
        return visit.lookup(event.item_id for side in sides for event in readable(side.timeline, budget))


def mutual(
    spec: SurfaceSpec,
    forward: HeadReading,
    back: Mapping[str, Array],
    places: Sequence[int],
    attributes: Sequence[Mapping[str, object]],
) -> HeadReading:
    """The reading with the other side's answers: `back[head]` has one for each of `places`.

    A candidate that was not asked counts as the mean of those that were: neither better nor worse for it.
    """
    if spec.reciprocal is None or not places:
        return forward
    values, both = dict(forward.values), dict(forward.values)
    for head in spec.heads:
        if head.probability and head.weight > 0:
            theirs = np.full(len(attributes), float(back[head.name].mean()))
            theirs[list(places)] = back[head.name]
            both[head.name] = joined(forward.values[head.name], theirs, spec.reciprocal.mean)
            values[f"{head.name}{BACK}"] = theirs
    return HeadReading(values, utility(spec, both, attributes))


def joined(mine: Array, theirs: Array, mean: str) -> Array:
    """One probability of both sides' ones: their product, or their harmonic mean (0 where either is 0)."""
    product: Array = mine * theirs
    if mean == "product":
        return product
    total = mine + theirs
    return np.divide(2 * product, total, out=np.zeros_like(total), where=total > 0)
