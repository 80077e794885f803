"""The biases that give each simulated surface its rate of actions, whatever the size of the network.

A larger network has better candidates for everybody. So the bias of a surface is found on what the first block of
members would be shown: the one at which the expected positive actions for each impression are the surface's rate.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from surfaces.worlds.network.arrays import BLOCK, Stage, generator
from surfaces.worlds.network.behaviour import examination, likelihood, logits
from surfaces.worlds.network.policy import Slates
from surfaces.worlds.network.sessions import show
from surfaces.worlds.network.world import World

_WIDEST = 30.0
_STEPS = 40


def calibrated(world: World) -> World:
    """The world with its biases."""
    places = range(min(BLOCK, len(world.members.occupation)))
    pilot = show(world, places, generator(world.seed, Stage.EVENTS))
    return replace(world, bias={slates.surface.surface: _bias(world, slates) for slates in pilot})


def _bias(world: World, slates: Slates) -> float:
    """By bisection: the expected rate grows with the bias."""
    sides = logits(world, slates.surface, slates.member, slates.seconds, slates.items_SK)
    examined = examination(slates.surface.slate) * slates.shown
    wanted = slates.surface.rate * float(slates.shown.sum())
    low, high = -_WIDEST, _WIDEST
    for _ in range(_STEPS):
        middle = (low + high) / 2
        enough = float(np.sum(likelihood(middle, sides) * examined)) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return (low + high) / 2
