"""Off-policy estimates on the simulated network: does a log of one policy tell what another one is worth?

The logging policy of the simulator fills slates again and again, with its exact propensities; the other policies choose
in the same way, with another taste. The truth is what the other policy gets when it fills the slates itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from rich.table import Table

from surfaces.experiments.estimators import OffPolicy, ips, snips
from surfaces.experiments.population import LOGGED, STAGE, Population, Taste, populations
from surfaces.worlds.network.arrays import Bools, Floats, Ints, generator
from surfaces.worlds.network.policy import fill
from surfaces.worlds.network.settings import EXPLORATION

REPETITIONS = 200
PLACES = (1, 3)
"""So many places of each slate are valued."""
TARGETS: Mapping[str, Taste] = {"taste alone": Taste(3.0, 0.0), "popularity alone": Taste(0.0, 1.2)}

_SLATES = 200_000  # that the truth is the mean of


class Found(NamedTuple):
    """What one estimator gave in all repetitions."""

    mean: float
    error: float
    """Of the mean: it should lie within two of these of the truth."""
    half: float
    """Half of the mean interval."""
    coverage: float


class Recovered(NamedTuple):
    """The value of one policy, from logs of another."""

    surface: str
    target: str
    places: int
    logged: float
    """Positive actions for each impression, under the logging policy."""
    truth: float
    """Under the target."""
    ips: Found
    snips: Found
    effective: float
    """Kish's effective rows as a share of all rows."""


def recover(members: int, seed: int, surfaces: Sequence[str], *, repetitions: int = REPETITIONS) -> list[Recovered]:
    """Every target at every number of places; each repetition's log has as many members as the surface.

    Raises ConfigError for a surface that is not simulated, and whatever `Network` raises.
    """
    rows = []
    for number, population in enumerate(populations(members, seed, surfaces)):
        rng = generator(seed, STAGE + 2, number)
        for name, taste in TARGETS.items():
            rows += [_recovered(population, name, taste, places, rng, repetitions) for places in PLACES]
    return rows


def propensities(scores_SP: Floats, there_SP: Bools, places_SK: Ints) -> Floats:
    """(S, K) the probability with which `policy.fill` puts those candidates at those places, given those above.

    1 where the place is -1. Softmax of the scores over what is left, mixed with EXPLORATION of an even draw.
    """
    weights_SP, left_SP = np.exp(scores_SP.astype(np.float64)) * there_SP, there_SP.astype(np.float64)
    rows, chances_SK = np.arange(len(scores_SP)), np.ones(places_SK.shape)
    for place, chosen in enumerate(places_SK.T):
        some = chosen >= 0
        soft = weights_SP[rows, chosen] / np.maximum(weights_SP.sum(axis=1), 1e-300)
        even = 1.0 / np.maximum(left_SP.sum(axis=1), 1.0)
        chances_SK[some, place] = ((1 - EXPLORATION) * soft + EXPLORATION * even)[some]
        weights_SP[rows, chosen] = left_SP[rows, chosen] = 0.0
    return chances_SK


def value(population: Population, taste: Taste, places: int, rng: np.random.Generator) -> float:
    """Positive actions for each impression that the policy of that taste gets at the first places."""
    scores_SP, there_SP = population.scores(taste), population.there_SP
    got, shown = 0.0, 0
    for _ in range(math.ceil(_SLATES / len(scores_SP))):
        places_SK, _ = fill(scores_SP, there_SP, places, rng)
        got += float(population.chances(places_SK).sum())
        shown += int((places_SK >= 0).sum())
    return got / shown


def _recovered(
    population: Population, name: str, taste: Taste, places: int, rng: np.random.Generator, repetitions: int
) -> Recovered:
    scores = (population.scores(LOGGED), population.scores(taste))
    pairs = [_log(population, *scores, places, rng) for _ in range(repetitions)]
    logged, truth = (value(population, one, places, rng) for one in (LOGGED, taste))
    plain, normal = ([pair[number] for pair in pairs] for number in (0, 1))
    effective = float(np.mean([one.effective for one in plain])) / (len(scores[0]) * places)
    surface = population.surface.surface
    return Recovered(surface, name, places, logged, truth, _found(plain, truth), _found(normal, truth), effective)


def _log(
    population: Population, logged_SP: Floats, target_SP: Floats, places: int, rng: np.random.Generator
) -> tuple[OffPolicy, OffPolicy]:
    """IPS and SNIPS of one log; the weight of a place is the product over the places down to it."""
    drawn = population.draw(len(population.first_M), rng)
    there_SP = population.there_SP[drawn.rows_S]
    places_SK, logged_SK = fill(logged_SP[drawn.rows_S], there_SP, places, rng)
    target_SK = propensities(target_SP[drawn.rows_S], there_SP, places_SK)
    chance_SK = population.chances(places_SK, drawn.rows_S)
    acted_SK, shown = rng.random(chance_SK.shape) < chance_SK, places_SK >= 0
    member_N = np.broadcast_to(drawn.owner_S[:, None], shown.shape)[shown]
    rows = (acted_SK[shown].astype(np.float64), logged_SK.cumprod(axis=1)[shown], target_SK.cumprod(axis=1)[shown])
    return ips(*rows, member_N=member_N), snips(*rows, member_N=member_N)


def _found(estimates: Sequence[OffPolicy], truth: float) -> Found:
    values = np.array([one.value for one in estimates])
    return Found(
        mean=float(values.mean()),
        error=float(values.std(ddof=1) / len(values) ** 0.5),
        half=float(np.mean([(one.high - one.low) / 2 for one in estimates])),
        coverage=float(np.mean([one.low <= truth <= one.high for one in estimates])),
    )


def table(rows: Sequence[Recovered]) -> Table:
    """The rows for a terminal."""
    made = Table(title="Another policy's actions per impression from the log, on the simulated network")
    made.add_column("surface")
    made.add_column("policy")
    for name in ("places", "logged", "truth", "IPS (coverage)", "SNIPS (coverage)", "effective rows"):
        made.add_column(name, justify="right")
    for row in rows:
        figures = (f"{one.mean:.4f} ± {one.half:.4f} ({one.coverage:.3f})" for one in (row.ips, row.snips))
        told = (str(row.places), f"{row.logged:.4f}", f"{row.truth:.4f}", *figures, f"{row.effective:.0%}")
        made.add_row(row.surface, row.target, *told)
    return made
