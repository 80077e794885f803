"""The simulated members as columns of numbers, one row a member.

An occupation is drawn by a power law, and everything else hangs on it: the company is one of its industry, the city is
often the company's, the latent vector is the occupation's with some noise. A second occupation is what the member's
interest turns to in the course of the period.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from surfaces.worlds.network.arrays import (
    Floats,
    Index,
    Ints,
    Stage,
    cumulative,
    generator,
    in_blocks,
    power_law,
    unit,
)
from surfaces.worlds.network.meaning import SIZE, Meaning
from surfaces.worlds.network.shelf import Shelf
from surfaces.worlds.network.words import CITIES, LEVEL_SHARES

ACTIVITY_EXPONENT, ACTIVITY_CAP = 1.4, 40.0
FAME_EXPONENT, FAME_CAP = 1.2, 300.0
COLD, COOL = 0.08, 0.04
"""Shares of the members without any session, and with hardly one."""

_NOISE = 0.1  # of each of the 16 numbers: a length of 0.4 beside the occupation's 1
_OWN_INDUSTRY = 0.85
_COMPANY_CITY = 0.6
_DRIFT = (0.2, 1.0)  # how much of a quarter turn the interest makes over the period


@dataclass(frozen=True, slots=True)
class Members:
    """Columns, one row a member. `vectors` are in half precision: a million members take 32 MB."""

    occupation: Ints
    second: Ints
    city: Ints
    level: Ints
    company: Ints
    vectors: Floats
    angle: Floats
    """Radians that the interest turns by over the whole period."""
    activity: Floats
    """Relative number of sessions; 0 for cold members."""
    fame: Floats
    """Relative weight as somebody to be shown."""
    mood: Floats
    """Added to every logit of the member's."""


def some_occupations(seed: int, total: int, members: int) -> Ints:
    """The occupations of a network: all from 4,064 members on, fewer in a small network, the commonest first."""
    count = min(total, max(64, members // 4))
    return np.asarray(generator(seed, Stage.OCCUPATIONS).permutation(total)[:count])


def occupation_shares(count: int) -> Floats:
    """Cumulative shares of occupations: Zipf's law with exponent 0.6."""
    return cumulative(np.arange(1, count + 1) ** -0.6)


def make_members(seed: int, count: int, meaning: Meaning, companies: Shelf) -> Members:
    """The members of a network. `companies` must stand by industry in their `topic`."""
    firms = Index.build(companies.topic, companies.start, companies.weight)
    shares = occupation_shares(len(meaning.occupations))

    def make(rng: np.random.Generator, size: int) -> Mapping[str, npt.NDArray[np.generic]]:
        occupation, second = (np.searchsorted(shares, rng.random(size)).astype(np.int16) for _ in range(2))
        company = _companies(rng, meaning.group_of[occupation], firms)
        home = np.searchsorted(city_shares(), rng.random(size))
        here = (rng.random(size) < _COMPANY_CITY) & (companies.city[company] >= 0)
        return {
            "occupation": occupation,
            "second": second,
            "company": company.astype(np.int32),
            "city": np.where(here, companies.city[company], home).astype(np.int8),
            "level": rng.choice(len(LEVEL_SHARES), size, p=LEVEL_SHARES).astype(np.int8),
            "vectors": near_vectors(rng, meaning.vectors[occupation]),
            **_traits(rng, size),
        }

    made = in_blocks(seed, Stage.MEMBERS, count, make)
    return Members(**{field.name: made[field.name] for field in fields(Members)})  # type: ignore[arg-type]


def city_shares() -> Floats:
    """Cumulative shares of the cities: Zipf's law with exponent 0.8."""
    return cumulative(np.arange(1, len(CITIES) + 1) ** -0.8)


def near_vectors(rng: np.random.Generator, vectors: Floats) -> Floats:
    """The vectors with noise, of length 1, in half precision."""
    noise = rng.standard_normal((len(vectors), SIZE), dtype=np.float32)
    return unit(vectors + np.float32(_NOISE) * noise).astype(np.float16)


def _companies(rng: np.random.Generator, industries: Ints, firms: Index) -> Ints:
    """Mostly one of the same industry, the large ones more often."""
    own, draws = rng.random(len(industries)) < _OWN_INDUSTRY, rng.random(len(industries))
    zero = np.zeros(len(industries), np.int64)
    anywhere = firms.order[rng.integers(len(firms.order), size=len(industries))]
    found = firms.draw(industries, zero, zero, draws)
    return np.where(own & (found >= 0), found, anywhere)


def _traits(rng: np.random.Generator, size: int) -> dict[str, Floats]:
    warmth = rng.random(size)
    activity = power_law(rng.random(size), ACTIVITY_EXPONENT, ACTIVITY_CAP)
    activity[warmth < COLD + COOL] = 0.05
    activity[warmth < COLD] = 0.0
    traits = {
        "angle": rng.uniform(*_DRIFT, size) * np.pi / 2,
        "activity": activity,
        "fame": power_law(rng.random(size), FAME_EXPONENT, FAME_CAP),
        "mood": 0.4 * rng.standard_normal(size),
    }
    return {name: column.astype(np.float32) for name, column in traits.items()}
