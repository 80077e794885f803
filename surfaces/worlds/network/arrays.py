"""Small tools of numpy that every part of the simulation uses: seeded blocks, power laws, draws by weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]

BLOCK = 1024
"""Members or items that are made at once, from one generator."""

_HOUR = 3600
_SPAN = 4800  # hours: more than from the earliest start to the end of the period
_EARLY = 1200  # hours that a start may lie before the period


class Stage(IntEnum):
    """What a generator is for: each stage of each block has its own."""

    COMPANIES = 1
    MEMBERS = 2
    JOBS = 3
    POSTS = 4
    ADS = 5
    EVENTS = 6
    OCCUPATIONS = 7
    CEILING = 8
    TEXT = 100  # and the stage whose text it is


def generator(seed: int, stage: int, block: int = 0) -> np.random.Generator:
    """The random numbers of one block of one stage, the same whatever was made before it."""
    return np.random.default_rng((seed, stage, block))


def blocks(count: int) -> Iterator[tuple[int, range]]:
    """Every block's number and the places in it."""
    for number, first in enumerate(range(0, count, BLOCK)):
        yield number, range(first, min(first + BLOCK, count))


def in_blocks(
    seed: int,
    stage: Stage,
    count: int,
    make: Callable[[np.random.Generator, int], Mapping[str, npt.NDArray[np.generic]]],
) -> dict[str, npt.NDArray[np.generic]]:
    """The columns that `make` returns for each block, joined."""
    made = [make(generator(seed, stage, number), len(places)) for number, places in blocks(count)]
    return {name: np.concatenate([part[name] for part in made]) for name in made[0]}


def unit(rows: Floats) -> Floats:
    """The rows with length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-9))


def power_law(draws: Floats, exponent: float, cap: float) -> Floats:
    """Pareto variables from 1 to `cap`: P(X > x) = x ** -exponent below the cap."""
    return np.asarray(np.minimum((1.0 - draws) ** (-1.0 / exponent), cap))


def power_law_mean(exponent: float, cap: float) -> float:
    """The mean of `power_law`: the integral of its survival function from 0 to the cap."""
    return float((exponent - cap ** (1.0 - exponent)) / (exponent - 1.0))


def cumulative(weights: Floats) -> Floats:
    """Cumulative shares along the last axis; the last is 1."""
    sums = np.cumsum(weights, axis=-1)
    return np.asarray(sums / sums[..., -1:])


def pick(shares: Floats, draws: Floats) -> Ints:
    """The place that each draw falls on among its row's cumulative shares."""
    return np.asarray(np.minimum((shares <= draws[..., None]).sum(axis=-1), shares.shape[-1] - 1))


@dataclass(frozen=True, slots=True)
class Index:
    """Items by group and hour of start, to draw one of a group and a time window by weight, in logarithmic time."""

    keys: Ints
    sums: Floats
    order: Ints

    @classmethod
    def build(cls, groups: Ints, starts: Ints, weights: Floats) -> Index:
        """`starts` are seconds since the period began; weights are above 0."""
        keys = _keys(groups, starts)
        order = np.argsort(keys, kind="stable").astype(np.int32)
        sums = np.concatenate(([0.0], np.cumsum(weights[order], dtype=np.float64)))
        return cls(keys[order], sums, order)

    def draw(self, groups: Ints, since: Ints, until: Ints, draws: Floats, *, flat: bool = False) -> Ints:
        """One item each with a start from `since` to `until` (to the hour), -1 where there is none.

        By weight, or with `flat` all alike. The arguments broadcast.
        """
        low = np.searchsorted(self.keys, _keys(groups, since), side="left")
        high = np.searchsorted(self.keys, _keys(groups, until), side="right")
        if flat:
            place = low + (draws * (high - low)).astype(np.int64)
        else:
            point = self.sums[low] + draws * (self.sums[high] - self.sums[low])
            place = np.searchsorted(self.sums, point, side="right") - 1
        inside = np.clip(place, low, np.maximum(high - 1, low))
        return np.where(high > low, self.order[np.minimum(inside, len(self.order) - 1)], -1)


def _keys(groups: Ints, seconds: Ints) -> Ints:
    hours = np.clip(seconds // _HOUR + _EARLY, 0, _SPAN - 1)
    return np.asarray(groups.astype(np.int32) * _SPAN + hours, dtype=np.int32)
