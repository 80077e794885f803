"""Everything that stands still in a simulated network: its occupations, members and items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from surfaces.worlds.network.arrays import Floats, Ints, unit
from surfaces.worlds.network.items import make_ads, make_companies, make_jobs, make_people, make_posts
from surfaces.worlds.network.meaning import Meaning
from surfaces.worlds.network.members import Members, make_members, some_occupations
from surfaces.worlds.network.onet import Occupation
from surfaces.worlds.network.shelf import DAY, DAYS, Shelf

_PERIOD = DAY * DAYS


@dataclass(frozen=True)
class World:
    """A network before anybody does anything."""

    seed: int
    meaning: Meaning
    members: Members
    shelves: Mapping[str, Shelf]
    """By kind: company, job, post, ad, person."""
    bias: Mapping[str, float] = field(default_factory=dict)
    """For each surface, what is added to every logit; see `calibration`."""

    def turned(self, members: Ints, seconds: Ints) -> Floats:
        """Radians that the members' interest has turned by so many seconds into the period."""
        return np.asarray(self.members.angle[members] * (seconds / _PERIOD))

    def interest(self, members: Ints, seconds: Ints) -> Floats:
        """(..., SIZE) of length 1: from the member's own vector toward the second occupation's."""
        turned = self.turned(members, seconds)[..., None]
        own = self.members.vectors[members].astype(np.float32)
        second = self.meaning.vectors[self.members.second[members]]
        return unit(np.cos(turned) * own + np.sin(turned) * second)


def build_world(seed: int, members: int, occupations: Sequence[Occupation]) -> World:
    """The world of that seed and size; see `Network` for how the numbers of items follow from it."""
    chosen = some_occupations(seed, len(occupations), members)
    meaning = Meaning([occupations[place] for place in chosen])
    companies = make_companies(seed, max(30, members // 25), meaning)
    people = make_members(seed, members, meaning, companies)
    return World(
        seed,
        meaning,
        people,
        {
            "company": companies,
            "job": make_jobs(seed, max(200, members // 4), meaning, companies),
            "post": make_posts(seed, max(500, members), meaning, people, companies),
            "ad": make_ads(seed, max(60, members // 20), meaning, companies),
            "person": make_people(people, meaning),
        },
    )
