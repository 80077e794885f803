"""Experiments on a small simulated network: the population, the designs, the log and the looks."""

from __future__ import annotations

import json
import math
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from prompts.errors import ConfigError
from surfaces.experiments import peeking, replay, simulate
from surfaces.experiments.bench import Measured
from surfaces.experiments.peeking import Stopping, stopping
from surfaces.experiments.population import LOGGED, Population, Taste, populations
from surfaces.experiments.replay import TARGETS, Recovered, propensities, recover, value
from surfaces.experiments.simulate import Row, ab_trial, compare, interleaved_trial, pairs, per_member, true_win_rate
from surfaces.worlds.network.behaviour import examination
from surfaces.worlds.network.policy import fill

MEMBERS, SEED = 300, 3


@pytest.fixture(scope="module")
def population() -> Population:
    (feed,) = populations(MEMBERS, SEED, ["feed"])
    return feed


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return compare(MEMBERS, SEED, ["feed"], repetitions=100)


@pytest.fixture(scope="module")
def recovered() -> list[Recovered]:
    return recover(MEMBERS, SEED, ["feed"], repetitions=60)


@pytest.fixture(scope="module")
def stopped() -> list[Stopping]:
    return stopping(MEMBERS, SEED, ["feed"], repetitions=60)


def test_members_slates_stand_together(population: Population) -> None:
    member_S = population.slates.member
    for first, count in zip(population.first_M, population.count_M, strict=True):
        assert len(set(member_S[first : first + count])) == 1
    assert population.count_M.sum() == len(member_S) == len(population.truth_SP)
    assert population.history_M.shape == population.first_M.shape
    assert ((population.truth_SP > 0) == population.there_SP).all()


def test_the_logged_taste_is_the_logging_policys(population: Population) -> None:
    """With it, the propensities that the simulator logged come out."""
    slate = population.surface.slate
    places_SK = np.where(population.there_SP, np.arange(population.there_SP.shape[1]), -1)[:, :slate]
    found_SK = propensities(population.scores(LOGGED), population.there_SP, places_SK)
    assert found_SK == pytest.approx(population.slates.propensity_SK[:, :slate], rel=1e-5)


@pytest.mark.parametrize("name", TARGETS)
def test_propensities_are_those_of_fill(population: Population, name: str) -> None:
    scores_SP = population.scores(TARGETS[name])
    places_SK, propensity_SK = fill(scores_SP, population.there_SP, 12, np.random.default_rng(0))
    assert (places_SK < 0).any()
    assert propensities(scores_SP, population.there_SP, places_SK) == pytest.approx(propensity_SK)


def test_an_arm_shows_its_best(population: Population) -> None:
    rng = np.random.default_rng(0)
    exact = population.arm("truth", population.noisy_truth(0.0, rng))
    random = population.arm("random", rng.random(population.truth_SP.shape))
    best_SK = -np.sort(-population.truth_SP, axis=1)[:, :10] * examination(10)
    assert exact.chance_SK == pytest.approx(best_SK)
    assert exact.value == pytest.approx(best_SK.sum(axis=1).mean())
    assert random.value < 0.8 * exact.value
    assert (np.sort(random.ranks_SP, axis=1) == np.arange(random.ranks_SP.shape[1])).all()


def test_drawn_members_bring_their_slates(population: Population) -> None:
    drawn = population.draw(500, np.random.default_rng(0))
    assert (population.slates.member[drawn.rows_S] == population.slates.member[population.first_M[drawn.members]][
        drawn.owner_S
    ]).all()  # fmt: skip
    assert (np.bincount(drawn.owner_S) == population.count_M[drawn.members]).all()
    assert per_member(np.ones(len(drawn.rows_S)), drawn).tolist() == population.count_M[drawn.members].tolist()


def test_without_a_difference_no_design_finds_one(population: Population) -> None:
    rng = np.random.default_rng(1)
    arm = pairs(population, rng)[0][0]
    assert true_win_rate(population, arm, arm, rng) == pytest.approx(0.5, abs=0.005)
    trials = (interleaved_trial(population, arm, arm), ab_trial(population, arm, arm, cuped=True))
    for trial in trials:
        p_values = np.array([trial(150, rng).p_value for _ in range(300)])
        assert np.mean(p_values < 0.05) == pytest.approx(0.05, abs=0.045)
        assert np.mean(p_values < 0.5) == pytest.approx(0.5, abs=0.1)


def test_a_surface_that_is_not_simulated() -> None:
    with pytest.raises(ConfigError, match="surface 'movies' is not simulated; feed, jobs, ads, people are"):
        compare(MEMBERS, SEED, ["movies"])


def test_the_designs_hold_what_they_promise(rows: list[Row]) -> None:
    """Over all pairs together: 300 repetitions of each design."""
    assert [row.second for row in rows] == ["truth, noise 2.0", "truth, noise 1.5", "popularity"]
    for name in ("ab", "cuped", "interleaved"):
        designs = [getattr(row, name) for row in rows]
        assert np.mean([one.coverage for one in designs]) == pytest.approx(0.95, abs=0.035)
        exact = [one for one in designs if one.members > simulate._FEWEST]
        assert np.mean([one.power for one in exact]) == pytest.approx(0.8, abs=0.09)


def test_interleaving_needs_far_fewer_impressions(rows: list[Row]) -> None:
    for row in rows:
        assert row.first_value > row.second_value
        assert row.win_rate > 0.5
        assert row.ratio.low > 4
        assert row.ratio.low < row.ratio.value < row.ratio.high
        assert row.ratio.value == pytest.approx(row.cuped.impressions / row.interleaved.impressions)


def test_a_log_tells_another_policys_value(recovered: list[Recovered]) -> None:
    assert [(row.target, row.places) for row in recovered] == [(name, places) for name in TARGETS for places in (1, 3)]
    for row in recovered:
        for found in (row.ips, row.snips):
            assert abs(found.mean - row.truth) < 3.5 * found.error
            assert found.coverage >= 0.83
        assert 0 < row.effective < 1


def test_the_targets_differ_from_the_log(population: Population) -> None:
    """Else recovering them would show nothing."""
    rng = np.random.default_rng(2)
    values = [value(population, taste, 1, rng) for taste in (LOGGED, Taste(0.0, 1.2))]
    assert values[0] > values[1] + 0.02


def test_peeking_is_safe_with_the_sequential_test_alone(stopped: list[Stopping]) -> None:
    none, planned, _, twice = stopped
    assert none.sequential <= 0.1
    assert none.peeked > 0.12
    assert planned.fixed == pytest.approx(0.8, abs=0.16)
    assert twice.sequential > 0.9
    assert twice.members < 0.6 * twice.horizon
    for row in stopped:
        assert row.held >= 0.9


def test_everything_can_be_shown(rows: list[Row], recovered: list[Recovered], stopped: list[Stopping]) -> None:
    found = Measured(rows, recovered, stopped)
    console = Console(width=220, record=True, file=StringIO())
    for table in found.to_tables():
        console.print(table)
    text = console.export_text()
    for word in ("times fewer", "SNIPS", "sequential", "popularity alone", f"{rows[0].ratio.value:.1f} ["):
        assert word in text
    told = json.loads(json.dumps(found.to_json()))
    assert told["designs"][0]["ratio"]["value"] == rows[0].ratio.value
    assert told["off_policy"][0]["ips"]["coverage"] == recovered[0].ips.coverage
    assert [len(told[name]) for name in ("designs", "off_policy", "peeking")] == [3, 4, 4]
    assert all(math.isfinite(row["ab"]["impressions"]) for row in told["designs"])


def test_the_seed_gives_the_slates(population: Population) -> None:
    (again,), (other,) = (populations(MEMBERS, seed, ["feed"]) for seed in (SEED, SEED + 1))
    assert np.array_equal(again.truth_SP, population.truth_SP)
    assert np.array_equal(again.history_M, population.history_M)
    assert not np.array_equal(other.truth_SP, population.truth_SP)


def test_tables_of_nothing() -> None:
    for table in (simulate.table([]), replay.table([]), peeking.table([])):
        assert table.row_count == 0
