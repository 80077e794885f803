"""The logging policy of the simulated network: who is shown what, and with which probability.

A session draws a small pool of candidates in several ways, and fills its slate from it place by place: with
probability 0.1 any candidate that is left, all alike, else one by a softmax of scores over those that are left. The
propensity of an impression is exactly the probability with which the policy put this item at this place, given the
pool and what stands above. Which pools the policy could have drawn is not part of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from surfaces.worlds.network.arrays import Bools, Floats, Ints
from surfaces.worlds.network.settings import EXPLORATION, LOGGED_AFFINITY, LOGGED_POPULARITY, Draw, Simulated
from surfaces.worlds.network.shelf import Shelf
from surfaces.worlds.network.world import World


@dataclass(frozen=True, slots=True)
class Slates:
    """What sessions of one surface showed; places are 0 first, and -1 as an item is an empty place at the end."""

    surface: Simulated
    session: Ints
    """(S) the session's number within its block."""
    member: Ints
    seconds: Ints
    """(S) into the period."""
    items_SK: Ints
    propensity_SK: Floats

    @property
    def shown(self) -> Bools:
        """(S, K) whether the place holds an item."""
        return np.asarray(self.items_SK >= 0)


def make_slates(
    world: World, surface: Simulated, session: Ints, member: Ints, seconds: Ints, rng: np.random.Generator
) -> Slates:
    """The slates of those sessions (one number, member and time each) with their propensities."""
    shelf = world.shelves[surface.kind]
    pool_SP = _pool(world, surface, member, seconds, rng)
    valid_SP = _valid(shelf, pool_SP, member, seconds)
    scores_SP = _scores(world, shelf, member, pool_SP)
    places_SK, propensity_SK = fill(scores_SP, valid_SP, surface.slate, rng)
    items_SK = np.where(places_SK >= 0, np.take_along_axis(pool_SP, places_SK, axis=1), -1)
    return Slates(surface, session, member, seconds, items_SK, propensity_SK)


def _pool(world: World, surface: Simulated, member: Ints, seconds: Ints, rng: np.random.Generator) -> Ints:
    """(S, P) of candidates, -1 where a draw found none; one may come twice."""
    turned = world.turned(member, seconds)
    drifted = rng.random(len(member)) < np.sin(turned) ** 2
    focus = np.where(drifted, world.members.second[member], world.members.occupation[member])
    shelf = world.shelves[surface.kind]
    drawn = [
        _draw(world, shelf, way, member[:, None], focus[:, None], seconds[:, None], rng.random((2, len(member), n)))
        for way, n in surface.pool
    ]
    return np.concatenate(drawn, axis=1)


def _draw(world: World, shelf: Shelf, way: Draw, member: Ints, focus: Ints, until: Ints, draws_2SN: Floats) -> Ints:
    """(S, N) of items that may be current; `focus` is the occupation that interests the member now."""
    draws, others = draws_2SN
    since = until - shelf.longest
    if way in ("popular", "uniform"):
        return shelf.anywhere.draw(np.zeros_like(until), since, until, draws, flat=way == "uniform")
    if way == "topic":
        topics = world.meaning.near(np.broadcast_to(focus, draws.shape), others)
        return shelf.by_topic.draw(topics, since, until, draws, flat=True)
    if way == "industry":
        return shelf.by_industry.draw(world.meaning.group_of[focus], since, until, draws, flat=True)
    return shelf.by_city.draw(world.members.city[member], since, until, draws, flat=True)


def _valid(shelf: Shelf, pool_SP: Ints, member: Ints, seconds: Ints) -> Bools:
    """Whether the candidate is there, current, not the member, and not drawn before."""
    there = (pool_SP >= 0) & (shelf.start[pool_SP] <= seconds[:, None]) & (shelf.end[pool_SP] > seconds[:, None])
    if shelf.prefix == "u":
        there &= pool_SP != member[:, None]
    order = np.argsort(pool_SP, axis=1, kind="stable")
    ranked = np.take_along_axis(pool_SP, order, axis=1)
    again = np.zeros_like(there)
    np.put_along_axis(again, order[:, 1:], ranked[:, 1:] == ranked[:, :-1], axis=1)
    return np.asarray(there & ~again)


def _scores(world: World, shelf: Shelf, member: Ints, pool_SP: Ints) -> Floats:
    own = world.members.vectors[member].astype(np.float32)
    theirs = shelf.vectors[pool_SP].astype(np.float32)
    affinity = np.einsum("spd,sd->sp", theirs, own)
    return np.asarray(LOGGED_AFFINITY * affinity + LOGGED_POPULARITY * shelf.popularity(pool_SP))


def fill(scores_SP: Floats, valid_SP: Bools, slate: int, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """(S, K) places in the pool, -1 where nothing was left, and their propensities (1 there)."""
    weights = np.exp(scores_SP.astype(np.float64)) * valid_SP
    left = valid_SP.astype(np.float64)
    rows = np.arange(len(weights))
    places = np.full((len(weights), slate), -1)
    propensity = np.ones((len(weights), slate))
    for place in range(slate):
        some = left.sum(axis=1) > 0
        shares = (1 - EXPLORATION) * _shares(weights) + EXPLORATION * _shares(left)
        sums = np.cumsum(shares, axis=1)
        chosen = (sums <= rng.random(len(rows))[:, None] * sums[:, -1:]).sum(axis=1).clip(max=weights.shape[1] - 1)
        places[some, place] = chosen[some]
        propensity[some, place] = shares[rows, chosen][some].clip(max=1.0)
        weights[rows, chosen] = left[rows, chosen] = 0.0
    return places, propensity


def _shares(weights: Floats) -> Floats:
    return np.asarray(weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300))
