"""The best that any ranking of the shown slates can reach, by the simulator's own truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from surfaces.worlds.network.arrays import Bools, Floats, Stage, blocks, generator
from surfaces.worlds.network.policy import Slates
from surfaces.worlds.network.sessions import Played, play
from surfaces.worlds.network.settings import SURFACES
from surfaces.worlds.network.world import World

BLOCKS = 10
"""Blocks of members that are looked at: 10,240 members."""

_ORDERS = ("truth", "popular", "shown", "random")


class Ceiling(NamedTuple):
    """Means of NDCG@10 over the slates of one surface that got a positive action, for four orders of each slate.

    Gains are 1 for an item with a positive action and 0 else. No model can be expected above `truth` but by what it
    learns of places: the realised actions also hang on where the items stood, and `shown` profits from that.
    """

    surface: str
    lists: int
    """How many slates the means are over."""
    truth: float
    """By the true probability of a positive action were the item examined, whatever its place."""
    popular: float
    """By the items' popularity in the simulator."""
    shown: float
    """As the logging policy showed them."""
    random: float


def ceiling(world: World) -> list[Ceiling]:
    """One for each surface, over the first 10,240 members' slates."""
    found: list[list[Floats]] = [[] for _ in SURFACES]
    for block, places in blocks(len(world.members.occupation)):
        if block == BLOCKS:
            break
        rng = generator(world.seed, Stage.CEILING, block)
        for number, part in enumerate(play(world, block, places)):
            found[number].append(_figures(world, part, rng))
    return [_mean(surface.surface, np.concatenate(parts)) for surface, parts in zip(SURFACES, found, strict=True)]


def _mean(surface: str, figures_S4: Floats) -> Ceiling:
    means = figures_S4.mean(axis=0) if len(figures_S4) else np.zeros(len(_ORDERS))
    return Ceiling(surface, len(figures_S4), *(float(mean) for mean in means))


def _figures(world: World, played: Played, rng: np.random.Generator) -> Floats:
    """(slates with a positive action, 4) of NDCG@10, in the order of `Ceiling`."""
    slates, answers = played
    gains = answers.positive(slates.surface)
    some = gains.any(axis=1)
    noise = rng.random(gains.shape)
    scores = (answers.truth, _popularity(world, slates), -np.arange(gains.shape[1]) + 0 * noise, noise)
    shown = slates.shown[some]
    return np.stack([ndcg(gains[some], score[some], shown, noise[some]) for score in scores], axis=1)


def _popularity(world: World, slates: Slates) -> Floats:
    return world.shelves[slates.surface.kind].popularity(np.maximum(slates.items_SK, 0))


def ndcg(gains_SK: Bools, scores_SK: Floats, shown_SK: Bools, noise_SK: Floats) -> Floats:
    """(S) of NDCG@10 by descending score, ties by the noise; every row must have a gain.

    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20 (2002), discount log2.
    """
    order = np.lexsort((noise_SK, np.where(shown_SK, -scores_SK, np.inf)), axis=1)
    discounts = 1.0 / np.log2(2.0 + np.arange(gains_SK.shape[1])) * (np.arange(gains_SK.shape[1]) < 10)
    got = (np.take_along_axis(gains_SK, order, axis=1) * discounts).sum(axis=1)
    best = (-np.sort(-gains_SK.astype(np.int64), axis=1) * discounts).sum(axis=1)
    return np.asarray(got / best)
