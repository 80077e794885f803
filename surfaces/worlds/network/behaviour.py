"""How the simulated members act on what they are shown.

An item is examined with a probability that depends on its place alone, and only an examined one can be acted on: the
examination hypothesis of Craswell et al., "An experimental comparison of click position-bias models" (WSDM 2008).
Whether it is then acted on depends on the latent interests alone. Members act on an item once: shown again, it is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from surfaces.worlds.network.arrays import Bools, Floats, Ints
from surfaces.worlds.network.policy import Slates
from surfaces.worlds.network.settings import EXAMINATION, Simulated
from surfaces.worlds.network.shelf import ANYWHERE, DAY, Shelf
from surfaces.worlds.network.world import World

NOTHING = -1


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of slates, each (S, K)."""

    truth: Floats
    """The probability of a positive action, were the item examined; 0 where it had been acted on before."""
    action: Ints
    """The place in `actions(surface)`, or NOTHING."""

    def positive(self, surface: Simulated) -> Bools:
        """(S, K) whether the action is a positive one."""
        return np.asarray((self.action >= 0) & (self.action < len(surface.positive)))


def actions(surface: Simulated) -> tuple[str, ...]:
    """Names of the surface's actions, the positive ones first."""
    return tuple(name for name, _ in (*surface.positive, *surface.negative))


def examination(slate: int) -> Floats:
    """(K) the probability that each place is examined."""
    return np.asarray((1.0 + np.arange(slate)) ** -EXAMINATION)


def answer(world: World, slates: Slates, rng: np.random.Generator) -> Answers:
    """What the members do. Sessions of one member must stand in the order of time."""
    truth = probability(world, slates.surface, slates.member, slates.seconds, slates.items_SK) * slates.shown
    examined = rng.random(truth.shape) < examination(truth.shape[1])
    action = np.where(examined & slates.shown, _chosen(slates.surface, truth, rng), NOTHING)
    before = _acted_before(slates, action != NOTHING)
    return Answers(np.where(before, 0.0, truth), np.where(before, NOTHING, action))


def probability(world: World, surface: Simulated, member: Ints, seconds: Ints, items_SK: Ints) -> Floats:
    """(S, K) of a positive action with examined items at that time; empty places hold any number."""
    return likelihood(world.bias[surface.surface], logits(world, surface, member, seconds, items_SK))


def likelihood(bias: float, sides: Sequence[Floats]) -> Floats:
    """The probability that all sides want it: the product of the logistic functions of bias + logit."""
    chances = [1.0 / (1.0 + np.exp(-(bias + side.astype(np.float64)))) for side in sides]
    return np.asarray(np.prod(chances, axis=0))


def logits(world: World, surface: Simulated, member: Ints, seconds: Ints, items_SK: Ints) -> list[Floats]:
    """(S, K) for the member; where the surface is mutual also for the others, as if each were shown the member."""
    shelf = world.shelves[surface.kind]
    person, items, now = member[:, None], np.maximum(items_SK, 0), seconds[:, None]
    sides = [_logit(world, surface, person, shelf, items, now)]
    if surface.mutual:
        sides.append(_logit(world, surface, items, shelf, np.broadcast_to(person, items.shape), now))
    return sides


def _logit(world: World, surface: Simulated, member: Ints, shelf: Shelf, items: Ints, seconds: Ints) -> Floats:
    """The logit of `Simulated` without the bias; the arguments broadcast."""
    people = world.members
    vectors = shelf.vectors[items].astype(np.float32)
    fits = surface.affinity * np.sum(world.interest(member, seconds) * vectors, axis=-1)
    if surface.local:
        city = shelf.city[items]
        fits = fits + surface.local * ((city == people.city[member]) | (city == ANYWHERE))
    if surface.level:
        fits = fits + surface.level * (1.0 - np.abs(shelf.level[items] - people.level[member]) / 5.0)
    if surface.company:
        fits = fits + surface.company * (shelf.company[items] == people.company[member])
    if surface.recent:
        fits = fits + surface.recent * 0.5 ** ((seconds - shelf.start[items]) / (surface.half_life * DAY))
    return np.asarray(fits + surface.popular * shelf.popularity(items) + people.mood[member])


def _chosen(surface: Simulated, truth: Floats, rng: np.random.Generator) -> Ints:
    """(S, K) one action or none: positive by the truth, else negative by a rate times (1 - truth) ** 2."""
    draws = rng.random(truth.shape)
    chosen = np.full(truth.shape, NOTHING)
    edge = np.zeros(truth.shape)
    rates = [truth * share for _, share in surface.positive]
    rates += [(1 - truth) ** 2 * rate for _, rate in surface.negative]
    for number, rate in enumerate(rates):
        chosen[(draws >= edge) & (draws < edge + rate)] = number
        edge += rate
    return chosen


def _acted_before(slates: Slates, acted: Bools) -> Bools:
    """(S, K) whether the member had acted on the item in an earlier session."""
    pairs = slates.member[:, None].astype(np.int64) << 32 | np.maximum(slates.items_SK, 0)
    sessions = np.broadcast_to(np.arange(len(pairs))[:, None], pairs.shape)
    known, first = np.unique(pairs[acted], return_index=True)
    if not len(known):
        return np.zeros_like(acted)
    place = np.searchsorted(known, pairs).clip(max=len(known) - 1)
    return np.asarray((known[place] == pairs) & (sessions[acted][first][place] < sessions) & slates.shown)
