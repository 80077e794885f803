"""Slates of the simulated network whose every answer is known in probability: what experiments are tried out on.

A session's candidates are the simulator's own pool, its members answer as the simulator's do: a place is examined with
the probability of `behaviour.examination`, an examined item gets a positive action with `behaviour.probability`. One
rule is left out, that members act on an item once: with it the value of an arm would hang on what was shown before, and
no true value could be told exactly. Array names say their shape: M members, S slates, P candidates, K places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from prompts.errors import ConfigError
from surfaces.worlds.network import Network
from surfaces.worlds.network.arrays import Bools, Floats, Ints, generator
from surfaces.worlds.network.behaviour import examination, probability
from surfaces.worlds.network.policy import Slates, make_slates
from surfaces.worlds.network.sessions import show
from surfaces.worlds.network.settings import LOGGED_AFFINITY, LOGGED_POPULARITY, SURFACES, Simulated
from surfaces.worlds.network.shelf import DAY, DAYS
from surfaces.worlds.network.world import World

STAGE = 300
"""Of the generators of everything here, beside `arrays.Stage`."""
LARGEST = 20_480
"""Members that are looked at, at most: 1 GB of slates."""

_MIDDLE = DAY * DAYS // 2  # before it is the history, after it the experiment


class Taste(NamedTuple):
    """How a policy scores a candidate: weights of the cosine of member and item, and of the log-popularity."""

    affinity: float
    popularity: float


LOGGED = Taste(LOGGED_AFFINITY, LOGGED_POPULARITY)


class Arm(NamedTuple):
    """A ranking of every slate's candidates, and what it is worth."""

    name: str
    ranks_SP: Ints
    """0 is the best."""
    chance_SK: Floats
    """Of a positive action at each place."""

    @property
    def value(self) -> float:
        """The expected positive actions for each slate, exactly."""
        return float(self.chance_SK.sum(axis=1).mean())


class Drawn(NamedTuple):
    """Members drawn with replacement, each one's slates with it."""

    members: Ints
    rows_S: Ints
    """Places of their slates in the population."""
    owner_S: Ints
    """Which of the draws each slate belongs to."""


@dataclass(frozen=True)
class Population:
    """The slates of one surface in the second half of the period, by member."""

    world: World
    slates: Slates
    """Candidates instead of shown items: `items_SK` has P columns, -1 where there is none."""
    truth_SP: Floats
    """The probability of a positive action, were the candidate examined; 0 where there is none."""
    first_M: Ints
    """Each member's first slate."""
    count_M: Ints
    history_M: Floats
    """Positive actions for each slate of the first half, as the logging policy showed them."""

    @property
    def surface(self) -> Simulated:
        """As the simulator has it: `slate` is K."""
        return next(surface for surface in SURFACES if surface.surface == self.slates.surface.surface)

    @property
    def there_SP(self) -> Bools:
        """Whether there is a candidate."""
        return self.slates.shown

    @property
    def impressions(self) -> float:
        """Shown items for each slate."""
        return float(np.minimum(self.there_SP.sum(axis=1), self.surface.slate).mean())

    def scores(self, taste: Taste) -> Floats:
        """(S, P) by that taste; the logging policy's are those of `LOGGED`."""
        shelf, items_SP = self.world.shelves[self.surface.kind], np.maximum(self.slates.items_SK, 0)
        own_SD = self.world.members.vectors[self.slates.member].astype(np.float32)
        cosine_SP = np.einsum("spd,sd->sp", shelf.vectors[items_SP].astype(np.float32), own_SD)
        return np.asarray(taste.affinity * cosine_SP + taste.popularity * shelf.popularity(items_SP))

    def noisy_truth(self, noise: float, rng: np.random.Generator) -> Floats:
        """(S, P) the logit of the truth, and normal noise of that deviation."""
        logit_SP = np.log(np.clip(self.truth_SP, 1e-12, None)) - np.log1p(-np.clip(self.truth_SP, None, 1 - 1e-9))
        return np.asarray(logit_SP + noise * rng.standard_normal(logit_SP.shape))

    def arm(self, name: str, scores_SP: Floats) -> Arm:
        """The ranking by descending score."""
        order_SP = np.argsort(np.where(self.there_SP, -scores_SP, np.inf), axis=1, kind="stable")
        ranks_SP = np.argsort(order_SP, axis=1).astype(np.int32)
        return Arm(name, ranks_SP, self.chances(order_SP[:, : self.surface.slate]))

    def chances(self, places_SK: Ints, rows_S: Ints | None = None) -> Floats:
        """(S, K) of a positive action, with those candidates of those slates shown; 0 where a place is -1."""
        truth_SP = self.truth_SP if rows_S is None else self.truth_SP[rows_S]
        truth_SK = np.take_along_axis(truth_SP, np.maximum(places_SK, 0), axis=1) * (places_SK >= 0)
        return np.asarray(truth_SK * examination(places_SK.shape[1]))

    def draw(self, size: int, rng: np.random.Generator) -> Drawn:
        """So many members, with replacement: independent of each other, as the theory of the estimators has it."""
        members = rng.integers(len(self.first_M), size=size)
        counts = self.count_M[members]
        before = np.cumsum(counts) - counts
        rows_S = np.repeat(self.first_M[members] - before, counts) + np.arange(int(counts.sum()))
        return Drawn(members, rows_S, np.repeat(np.arange(size), counts))


def populations(members: int, seed: int, surfaces: Sequence[str]) -> list[Population]:
    """One for each surface, of the simulated network of that size and seed.

    Of a larger network the first LARGEST members are taken. Raises ConfigError for a surface that is not simulated, and
    whatever `Network` raises.
    """
    known = [surface.surface for surface in SURFACES]
    for name in surfaces:
        if name not in known:
            raise ConfigError(f"surface {name!r} is not simulated; {', '.join(known)} are")
    world = Network(members, seed).world()
    rng = generator(seed, STAGE)
    sessions = show(world, range(min(members, LARGEST)), rng)
    return [_population(world, sessions[known.index(name)], rng) for name in surfaces]


def _population(world: World, sessions: Slates, rng: np.random.Generator) -> Population:
    """From the times of one surface's sessions: a slate as long as the pool takes in every candidate."""
    surface = sessions.surface
    whole = replace(surface, slate=sum(count for _, count in surface.pool))
    slates = make_slates(world, whole, sessions.session, sessions.member, sessions.seconds, rng)
    truth_SP = probability(world, surface, slates.member, slates.seconds, slates.items_SK) * slates.shown
    late_S = slates.seconds >= _MIDDLE
    members, first_M, count_M = np.unique(slates.member[late_S], return_index=True, return_counts=True)
    if len(members) < 2:
        raise ConfigError(f"surface {surface.surface!r}: too few members have a session; take a larger network")
    acted_SK = rng.random((len(truth_SP), surface.slate)) < truth_SP[:, : surface.slate] * examination(surface.slate)
    history_M = _history(acted_SK[~late_S].sum(axis=1), slates.member[~late_S], members)
    return Population(world, _some(slates, late_S), truth_SP[late_S], first_M, count_M, history_M)


def _some(slates: Slates, chosen_S: Bools) -> Slates:
    names = ("session", "member", "seconds", "items_SK", "propensity_SK")
    return replace(slates, **{name: getattr(slates, name)[chosen_S] for name in names})


def _history(acted_S: Ints, member_S: Ints, members: Ints) -> Floats:
    """Each member's mean; for those without a slate the mean of all."""
    size = int(max(member_S.max(initial=0), members.max())) + 1
    slates = np.bincount(member_S, minlength=size)[members]
    acted = np.bincount(member_S, acted_S, minlength=size)[members]
    return np.where(slates > 0, acted / np.maximum(slates, 1), acted_S.mean() if len(acted_S) else 0.0)
