"""Experiments on the simulated network, again and again: are their intervals right, and what do they need?

Notable: the true values are known, so a design is judged twice. Its interval must hold the truth in 95% of the
repetitions, and at the number of members that is planned for 80% power, it must find the difference in 80% of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from rich.table import Table
from scipy.special import ndtri

from surfaces.evaluation.bootstrap import Interval
from surfaces.experiments.estimators import ALPHA, Estimate, difference, linearised, win_rate
from surfaces.experiments.interleave import team_drafts
from surfaces.experiments.population import LOGGED, STAGE, Arm, Drawn, Population, Taste, populations
from surfaces.worlds.network.arrays import Floats, Ints, generator

POWER = 0.8
REPETITIONS = 400
"""Of every design: a coverage of 0.95 is then known to within 0.02, a power of 0.8 to within 0.04."""
DRAFTS = 200_000
"""So many interleaved slates the truth is the mean of: the error of a win rate is then 0.001."""

_Z = float(ndtri(1 - ALPHA / 2) + ndtri(POWER))  # 2.80: the mean z-score of a test with that power
_PILOTS = 20
_FEWEST, _MOST = 50, 60_000  # members of one repetition

Trial: TypeAlias = Callable[[int, np.random.Generator], Estimate]
"""One experiment on so many members."""


class Design(NamedTuple):
    """One way to compare two arms, repeated."""

    impressions: float
    """That the design needs for 80% power at alpha 5%, by the mean z-score, which grows with their square root."""
    members: int
    """In each repetition: planned for 80% power by the true difference and the pilots' standard error."""
    z: float
    """The mean of difference / standard error."""
    z_error: float
    power: float
    """The share of the repetitions with p < 0.05."""
    coverage: float
    """The share of the 95% intervals that hold the true difference."""


class Row(NamedTuple):
    """Two arms on one surface."""

    surface: str
    first: str
    second: str
    first_value: float
    """Positive actions for each slate, the truth."""
    second_value: float
    win_rate: float
    """Of the first arm, interleaved, the truth."""
    ab: Design
    """By member, actions per slate, the delta method."""
    cuped: Design
    """The same, less what the members' actions in the first half of the period foretell."""
    interleaved: Design
    ratio: Interval
    """How many times the impressions of `interleaved` `cuped` needs. The interval is of the repetitions: another
    network gives another ratio."""


def compare(members: int, seed: int, surfaces: Sequence[str], *, repetitions: int = REPETITIONS) -> list[Row]:
    """Three pairs of arms on each surface: a large and a small loss of accuracy, and popularity against taste.

    Raises ConfigError for a surface that is not simulated, and whatever `Network` raises.
    """
    rows = []
    for number, population in enumerate(populations(members, seed, surfaces)):
        rng = generator(seed, STAGE + 1, number)
        rows += [compare_arms(population, *pair, rng, repetitions) for pair in pairs(population, rng)]
    return rows


def pairs(population: Population, rng: np.random.Generator) -> list[tuple[Arm, Arm]]:
    """The better arm first. Noise is added to the logit of the true probability, once for each slate and candidate."""
    fine, middle, coarse = (
        population.arm(f"truth, noise {noise}", population.noisy_truth(noise, rng)) for noise in (1.0, 1.5, 2.0)
    )
    taste = population.arm("logged taste", population.scores(LOGGED))
    popular = population.arm("popularity", population.scores(Taste(0.0, 1.0)))
    return [(fine, coarse), (fine, middle), (taste, popular)]


def compare_arms(
    population: Population, first: Arm, second: Arm, rng: np.random.Generator, repetitions: int = REPETITIONS
) -> Row:
    """All three designs for one pair of arms."""
    gap, rate = first.value - second.value, true_win_rate(population, first, second, rng)
    ab, cuped = (
        _design(population, ab_trial(population, first, second, cuped=cuped), gap, 0.0, rng, repetitions)
        for cuped in (False, True)
    )
    both = _design(population, interleaved_trial(population, first, second), rate, 0.5, rng, repetitions)
    named = (population.surface.surface, first.name, second.name, first.value, second.value)
    return Row(*named, rate, ab, cuped, both, _ratio(cuped, both))


def ab_trial(population: Population, first: Arm, second: Arm, *, cuped: bool) -> Trial:
    """Each member gets one arm by a coin; how much more actions per slate the first arm's members take."""

    chance_2SK = np.stack((second.chance_SK, first.chance_SK))

    def trial(size: int, rng: np.random.Generator) -> Estimate:
        drawn, has_first = population.draw(size, rng), rng.random(size) < 0.5
        chance_SK = chance_2SK[has_first[drawn.owner_S].astype(np.int64), drawn.rows_S]
        acted_S = (rng.random(chance_SK.shape) < chance_SK).sum(axis=1)
        acted_M, slates_M = np.bincount(drawn.owner_S, acted_S, minlength=size), np.bincount(drawn.owner_S)
        arms = (~has_first, has_first)
        control_M, treated_M = (linearised(acted_M[arm], slates_M[arm]) for arm in arms)
        history = population.history_M[drawn.members]
        before = (history[arms[0]], history[arms[1]]) if cuped else None
        return difference(control_M, treated_M, before=before)

    return trial


def interleaved_trial(population: Population, first: Arm, second: Arm) -> Trial:
    """Every member sees slates of both arms; the first one's win rate."""

    def trial(size: int, rng: np.random.Generator) -> Estimate:
        drawn = population.draw(size, rng)
        return win_rate(*interleaved_credits(population, first, second, drawn.rows_S, rng), drawn.owner_S).rate

    return trial


def interleaved_credits(
    population: Population, first: Arm, second: Arm, rows_S: Ints, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """(S) both teams' positive actions on newly drafted slates of those rows."""
    drafts = team_drafts(
        first.ranks_SP[rows_S], second.ranks_SP[rows_S], population.there_SP[rows_S], population.surface.slate, rng
    )
    acted_SK = rng.random(drafts.places_SK.shape) < population.chances(drafts.places_SK, rows_S)
    teams = (acted_SK & drafts.first_SK, acted_SK & ~drafts.first_SK)
    return teams[0].sum(axis=1).astype(np.float64), teams[1].sum(axis=1).astype(np.float64)


def true_win_rate(population: Population, first: Arm, second: Arm, rng: np.random.Generator) -> float:
    """The mean over many drafts of all slates."""
    rows_S = np.arange(len(population.truth_SP))
    rates = []
    for _ in range(math.ceil(DRAFTS / len(rows_S))):
        credits = interleaved_credits(population, first, second, rows_S, rng)
        rates.append(float(np.mean((1 + np.sign(credits[0] - credits[1])) / 2)))
    return float(np.mean(rates))


def per_member(values_S: Floats, drawn: Drawn) -> Floats:
    """(M) each drawn member's sum."""
    return np.bincount(drawn.owner_S, values_S, minlength=len(drawn.members)).astype(np.float64)


def planned(population: Population, trial: Trial, effect: float, rng: np.random.Generator) -> int:
    """The members that a design needs for 80% power, by the standard error of a few pilots."""
    size = len(population.first_M)
    error = float(np.mean([trial(size, rng).error for _ in range(_PILOTS)]))
    wanted = size * (_Z * error / max(abs(effect), 1e-9)) ** 2
    return int(np.clip(math.ceil(wanted), _FEWEST, _MOST))


def _design(
    population: Population, trial: Trial, truth: float, null: float, rng: np.random.Generator, repetitions: int
) -> Design:
    size = planned(population, trial, truth - null, rng)
    found = [trial(size, rng) for _ in range(repetitions)]
    z = np.array([(one.value - null) / one.error for one in found])
    shown = size * population.count_M.mean() * population.impressions
    return Design(
        impressions=float(shown * (_Z / z.mean()) ** 2),
        members=size,
        z=float(z.mean()),
        z_error=float(z.std(ddof=1) / repetitions**0.5),
        power=float(np.mean([one.p_value < ALPHA for one in found])),
        coverage=float(np.mean([one.low <= truth <= one.high for one in found])),
    )


def _ratio(many: Design, few: Design) -> Interval:
    """Of the impressions, with a 95% interval by the delta method on its logarithm."""
    ratio = many.impressions / few.impressions
    error = 2 * math.hypot(many.z_error / many.z, few.z_error / few.z)
    half = math.exp(float(ndtri(1 - ALPHA / 2)) * error)
    return Interval(ratio, ratio / half, ratio * half)


def table(rows: Sequence[Row]) -> Table:
    """The rows for a terminal."""
    made = Table(title="Impressions for 80% power at alpha 5%, on the simulated network")
    made.add_column("surface")
    made.add_column("arms")
    for name in (
        "actions per slate", "win rate", "A/B", "A/B, CUPED", "interleaved", "times fewer",
        "coverage: A/B, CUPED, interleaved", "power: A/B, CUPED, interleaved",
    ):  # fmt: skip
        made.add_column(name, justify="right")
    for row in rows:
        designs = (row.ab, row.cuped, row.interleaved)
        made.add_row(
            row.surface,
            f"{row.first} > {row.second}",
            f"{row.first_value:.3f}, {row.second_value:.3f}",
            f"{row.win_rate:.3f}",
            *(f"{design.impressions:,.0f}" for design in designs),
            f"{row.ratio.value:.1f} \\[{row.ratio.low:.1f}, {row.ratio.high:.1f}]",
            ", ".join(f"{design.coverage:.3f}" for design in designs),
            ", ".join(f"{design.power:.2f}" for design in designs),
        )
    return made
