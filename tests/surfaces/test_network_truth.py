"""The simulated network's inside: draws, meaning, the logging policy, behaviour, and the ceiling of its truth."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from surfaces.worlds.network import Ceiling, Network
from surfaces.worlds.network.arrays import (
    BLOCK,
    Floats,
    Index,
    Ints,
    blocks,
    cumulative,
    pick,
    power_law,
    power_law_mean,
    unit,
)
from surfaces.worlds.network.behaviour import examination, probability
from surfaces.worlds.network.ceiling import ndcg
from surfaces.worlds.network.meaning import SIZE, Meaning
from surfaces.worlds.network.onet import load_occupations
from surfaces.worlds.network.policy import fill
from surfaces.worlds.network.sessions import Played, all_events, play
from surfaces.worlds.network.settings import EXPLORATION, SURFACES
from surfaces.worlds.network.world import World

MEMBERS = 1_200
"""Two blocks."""


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(MEMBERS, seed=1)


@pytest.fixture(scope="module")
def world(network: Network) -> World:
    return network.world()


@pytest.fixture(scope="module")
def played(world: World) -> list[list[Played]]:
    """By block and surface."""
    return [play(world, block, places) for block, places in blocks(MEMBERS)]


@pytest.fixture(scope="module")
def ceilings(network: Network) -> list[Ceiling]:
    return network.ceiling()


@pytest.fixture(scope="module")
def meaning() -> Meaning:
    return Meaning(load_occupations())


def test_blocks_cover_everything() -> None:
    assert [places for _, places in blocks(2 * BLOCK + 5)] == [
        range(BLOCK), range(BLOCK, 2 * BLOCK), range(2 * BLOCK, 2 * BLOCK + 5),
    ]  # fmt: skip
    assert list(blocks(0)) == []


def test_power_law() -> None:
    drawn = power_law(np.random.default_rng(0).random(400_000), 1.4, 40.0)
    assert drawn.min() >= 1
    assert drawn.max() == 40.0
    assert np.mean(drawn > 4) == pytest.approx(4**-1.4, rel=0.03)
    assert drawn.mean() == pytest.approx(power_law_mean(1.4, 40.0), rel=0.01)


def test_pick_follows_the_shares() -> None:
    shares = cumulative(np.array([1.0, 0.0, 3.0]))
    draws = np.array([0.0, 0.2, 0.25, 0.6, 0.999999])
    assert pick(np.broadcast_to(shares, (5, 3)), draws).tolist() == [0, 0, 2, 2, 2]


def test_unit_leaves_zeros() -> None:
    assert unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[0.6, 0.8], [0.0, 0.0]]


@pytest.fixture
def index() -> Index:
    """Group 0: items 0 to 3 in the hours 0, 1, 2, 3; group 2: item 4."""
    starts = np.array([0, 3600, 7200, 10_800, 0])
    return Index.build(np.array([0, 0, 0, 0, 2]), starts, np.array([1.0, 2.0, 6.0, 1.0, 5.0]))


def drawn(index: Index, group: int, since: int, until: int, *, flat: bool = False) -> dict[int, float]:
    """Shares of the items that come."""
    draws = np.linspace(0, 1, 2000, endpoint=False)
    found = index.draw(np.array(group), np.array(since), np.array(until), draws, flat=flat)
    values, counts = np.unique(found, return_counts=True)
    return dict(zip(values.tolist(), (counts / 2000).tolist(), strict=True))


def test_an_index_draws_by_weight(index: Index) -> None:
    assert drawn(index, 0, 0, 10_800) == pytest.approx({0: 0.1, 1: 0.2, 2: 0.6, 3: 0.1}, abs=0.002)
    assert drawn(index, 0, 3600, 7200) == pytest.approx({1: 0.25, 2: 0.75}, abs=0.002)
    assert drawn(index, 0, 3600, 10_800, flat=True) == pytest.approx({1: 1 / 3, 2: 1 / 3, 3: 1 / 3}, abs=0.002)
    assert drawn(index, 2, -9999, 9999) == {4: 1.0}


def test_an_index_without_such_an_item_says_so(index: Index) -> None:
    assert drawn(index, 1, 0, 99_999) == {-1: 1.0}
    assert drawn(index, 3, 0, 99_999) == {-1: 1.0}
    assert drawn(index, 2, 7200, 99_999, flat=True) == {-1: 1.0}


def test_skills_are_the_texts_own_phrases(meaning: Meaning) -> None:
    texts = {occupation.title: occupation.description.lower() for occupation in meaning.occupations}
    skills = dict(zip(texts, meaning.skills, strict=True))
    assert "data mining" in texts["Data Scientists"]
    assert all(len(terms) == len(set(terms)) == 10 for terms in skills.values())
    own = [term in texts[title] for title, terms in skills.items() for term in terms[:3]]
    assert np.mean(own) > 0.9
    assert len({term for terms in skills.values() for term in terms}) > 3000


def test_alike_occupations_are_near(meaning: Meaning) -> None:
    titles = [occupation.title for occupation in meaning.occupations]
    vectors = meaning.vectors
    assert vectors.shape == (1016, SIZE)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    nurses, doctors, drillers = (titles.index(name) for name in (
        "Registered Nurses", "Nurse Practitioners", "Earth Drillers, Except Oil and Gas",
    ))  # fmt: skip
    assert vectors[nurses] @ vectors[doctors] > vectors[nurses] @ vectors[drillers] + 0.4


def test_near_keeps_mostly_to_the_industry(meaning: Meaning) -> None:
    occupations = np.repeat(np.arange(1016), 40)
    near = meaning.near(occupations, np.random.default_rng(0).random(len(occupations)))
    assert np.mean(meaning.group_of[near] == meaning.group_of[occupations]) > 0.6
    shares = np.bincount(near[:40] == occupations[:40], minlength=2)
    assert shares.min() > 0


def test_a_block_can_be_made_alone(world: World, played: list[list[Played]]) -> None:
    alone = play(Network(MEMBERS, seed=1).world(), 1, range(BLOCK, MEMBERS))
    for one, other in zip(alone, played[1], strict=True):
        assert np.array_equal(one.slates.items_SK, other.slates.items_SK)
        assert np.array_equal(one.answers.action, other.answers.action)


def test_the_first_blocks_need_no_others() -> None:
    """The events of the first block of a large network come without those of the others."""
    (first,) = islice(all_events(Network(20_000).world()), 1)
    assert first.member.max() < BLOCK
    assert len(first.member) > 50_000


def test_members_without_sessions_leave_no_events(world: World) -> None:
    (cold, *_) = np.flatnonzero(world.members.activity == 0)
    for part in play(world, 0, range(cold, cold + 1)):
        assert part.slates.items_SK.shape == part.answers.action.shape == (0, part.slates.surface.slate)


def test_items_are_shown_in_their_time(world: World, played: list[list[Played]]) -> None:
    for slates, _ in played[0]:
        shelf = world.shelves[slates.surface.kind]
        row, place = np.nonzero(slates.shown)
        items, seconds = slates.items_SK[row, place], slates.seconds[row]
        assert (shelf.start[items] <= seconds).all()
        assert (seconds < shelf.end[items]).all()


def test_the_rate_of_actions_is_the_surfaces_own_at_every_size(played: list[list[Played]]) -> None:
    world = Network(50_000).world()
    for one, other in zip(played[0], play(world, 3, range(3 * BLOCK, 4 * BLOCK)), strict=True):
        surface = one.slates.surface
        for slates, answers in (one, other):
            rate = answers.positive(surface).sum() / slates.shown.sum()
            assert rate == pytest.approx(surface.rate, rel=0.35)


def fill_many(scores: list[float], slate: int, times: int = 40_000) -> tuple[Ints, Floats]:
    scores_SP = np.broadcast_to(np.array(scores), (times, len(scores)))
    return fill(scores_SP, np.isfinite(scores_SP), slate, np.random.default_rng(5))


def test_propensities_are_the_frequencies() -> None:
    """Of each first item, and of each second one after each first."""
    places, propensity = fill_many([0.0, 1.0, 2.0, -1.0], 2)
    for first in range(4):
        led = places[:, 0] == first
        assert np.unique(propensity[led, 0]) == pytest.approx(led.mean(), abs=0.01)
        for second in set(range(4)) - {first}:
            followed = led & (places[:, 1] == second)
            assert np.unique(propensity[followed, 1]) == pytest.approx(followed.sum() / led.sum(), abs=0.03)


def test_exploration_gives_every_candidate_a_chance() -> None:
    places, propensity = fill_many([50.0, 0.0, 0.0, 0.0], 1)
    assert propensity[places[:, 0] == 1, 0] == pytest.approx(EXPLORATION / 4)
    assert np.mean(places[:, 0] == 0) == pytest.approx(1 - 0.75 * EXPLORATION, abs=0.01)


def test_a_slate_ends_where_no_candidate_is_left() -> None:
    places, propensity = fill_many([0.0, -np.inf, 1.0], 3, times=500)
    assert set(np.unique(places[:, :2])) == {0, 2}
    assert (places[:, 2] == -1).all()
    assert propensity[:, 1] == pytest.approx(1.0)
    assert (places[:, 0] != places[:, 1]).all()


@pytest.mark.parametrize("number", range(4))
def test_places_are_examined_less_and_less(played: list[list[Played]], number: int) -> None:
    """Given the truth, the rate of actions at a place is its examination probability."""
    surface = SURFACES[number]
    acted = sum(part[number].answers.positive(surface).sum(axis=0) for part in played)
    wanted = sum(part[number].answers.truth.sum(axis=0) for part in played)
    examined = examination(surface.slate)
    assert examined[0] == 1
    assert (np.diff(examined) < 0).all()
    assert np.abs(acted / wanted - examined).max() < 4 * (1 / np.sqrt(np.asarray(wanted).min()))
    assert acted[0] / wanted[0] > 1.5 * acted[-1] / wanted[-1]


@pytest.mark.parametrize("number", range(4))
def test_truth_is_what_happens(played: list[list[Played]], number: int) -> None:
    """Among impressions of like truth, the first place's actions come as often as the truth says."""
    surface = SURFACES[number]
    truth = np.concatenate([part[number].answers.truth[:, 0] for part in played])
    acted = np.concatenate([part[number].answers.positive(surface)[:, 0] for part in played])
    assert (truth >= 0).all()
    assert (truth < 1).all()
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 1.0)):
        some = (truth >= low) & (truth < high)
        assert acted[some].mean() == pytest.approx(truth[some].mean(), abs=4 * 0.5 / np.sqrt(some.sum()))


def test_connections_need_both_sides(world: World) -> None:
    """The chance of a connection is the same from either side, and hangs on what the other side wants."""
    people = SURFACES[3]
    rng = np.random.default_rng(0)
    asking, asked = rng.integers(MEMBERS, size=(2, 500))
    now = np.full(500, 3_000_000)
    chance = probability(world, people, asking, now, asked[:, None])[:, 0]
    assert chance == pytest.approx(probability(world, people, asked, now, asking[:, None])[:, 0], rel=1e-4)


def test_interests_turn(world: World) -> None:
    members = np.arange(MEMBERS)
    early, late = (world.interest(members, np.full(MEMBERS, day * 86_400)) for day in (0, 119))
    own, second = world.members.vectors.astype(np.float32), world.meaning.vectors[world.members.second]
    assert np.sum(early * own, axis=1).min() > 0.99
    assert np.mean(np.sum(late * second, axis=1)) > np.mean(np.sum(early * second, axis=1)) + 0.3
    assert np.allclose(np.linalg.norm(late, axis=1), 1, atol=1e-3)


def test_ceiling(ceilings: list[Ceiling]) -> None:
    assert [line.surface for line in ceilings] == ["feed", "jobs", "ads", "people"]
    for line in ceilings:
        assert line.lists > 100
        assert 1 > line.truth > line.shown > line.random
        assert line.truth > line.popular + 0.05
        assert line.truth > line.random + 0.1


def test_the_ceiling_is_the_same_again(ceilings: list[Ceiling]) -> None:
    assert Network(MEMBERS, seed=1).ceiling() == ceilings


def test_ndcg_of_known_orders() -> None:
    gains = np.array([[True, False, True, False], [False, False, True, False]])
    shown = np.array([[True, True, True, True], [True, True, True, False]])
    noise = np.zeros((2, 4))
    best = ndcg(gains, gains.astype(float), shown, noise)
    assert best.tolist() == [1.0, 1.0]
    worst = ndcg(gains, -gains.astype(float), shown, noise)
    ideal = 1 + 1 / np.log2(3)
    assert worst.tolist() == pytest.approx([(1 / np.log2(4) + 1 / np.log2(5)) / ideal, 1 / np.log2(4)])


def test_ndcg_breaks_ties_by_the_noise_and_puts_empty_places_last() -> None:
    gains = np.array([[True, False, False]])
    level, shown = np.zeros((1, 3)), np.array([[True, True, False]])
    assert ndcg(gains, level, shown, np.array([[0.9, 0.1, 0.0]])).tolist() == pytest.approx([1 / np.log2(3)])
    assert ndcg(gains, level, shown, np.array([[0.1, 0.9, 0.0]])).tolist() == [1.0]
