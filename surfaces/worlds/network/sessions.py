"""Sessions of the simulated members, block by block, and the events that they leave.

All impressions of one session have the same second, so (member, surface, timestamp) names a slate. Sessions of one
member are at least two minutes apart, and every action falls before the next session.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from surfaces.worlds.network.arrays import (
    Floats,
    Ints,
    Stage,
    blocks,
    cumulative,
    generator,
    power_law_mean,
)
from surfaces.worlds.network.behaviour import NOTHING, Answers, actions, answer
from surfaces.worlds.network.members import ACTIVITY_CAP, ACTIVITY_EXPONENT, COLD, COOL
from surfaces.worlds.network.policy import Slates, make_slates
from surfaces.worlds.network.settings import SESSIONS, SURFACES
from surfaces.worlds.network.shelf import DAY, DAYS, LAST
from surfaces.worlds.network.world import World

_GAP = 120
_WEEKEND = 0.5
_THURSDAY = 3  # 2026-01-01, counted from Monday
_MORNING, _AWAKE = 7 * 3600, 16 * 3600
_PAUSE, _PER_PLACE = 4, 6  # seconds to the first item, and from one item to the next


class Played(NamedTuple):
    """One block's slates of one surface, and what the members did."""

    slates: Slates
    answers: Answers


class Sessions(NamedTuple):
    """Columns, by member and time."""

    member: Ints
    seconds: Ints
    surface: Ints


@dataclass(frozen=True, slots=True)
class Events:
    """One block's events as columns, every member's in the order of time."""

    member: Ints
    item: Ints
    surface: Ints
    action: Ints
    """NOTHING for an impression."""
    seconds: Ints
    place: Ints
    propensity: Floats


def play(world: World, block: int, places: range) -> list[Played]:
    """What happens to one block of members over the whole period, for each surface."""
    rng = generator(world.seed, Stage.EVENTS, block)
    return [Played(slates, answer(world, slates, rng)) for slates in show(world, places, rng)]


def show(world: World, places: range, rng: np.random.Generator) -> list[Slates]:
    """What those members are shown over the whole period, for each surface; it does not hang on what they do."""
    sessions = _sessions(world, places, rng)
    chosen = [np.flatnonzero(sessions.surface == number) for number in range(len(SURFACES))]
    return [
        make_slates(world, surface, rows, sessions.member[rows], sessions.seconds[rows], rng)
        for surface, rows in zip(SURFACES, chosen, strict=True)
    ]


def all_events(world: World) -> Iterator[Events]:
    """The events of every block of members."""
    for block, places in blocks(len(world.members.occupation)):
        yield _events(play(world, block, places), generator(world.seed, Stage.TEXT + Stage.EVENTS, block))


def _sessions(world: World, places: range, rng: np.random.Generator) -> Sessions:
    mean = (1 - COLD - COOL) * power_law_mean(ACTIVITY_EXPONENT, ACTIVITY_CAP)
    activity = world.members.activity[places.start : places.stop].astype(np.float64)
    member = np.repeat(np.arange(places.start, places.stop), rng.poisson(SESSIONS / mean * activity))
    seconds = _times(len(member), rng)
    order = np.lexsort((seconds, member))
    shares = cumulative(np.array([surface.share for surface in SURFACES]))
    surface = np.searchsorted(shares, rng.random(len(member)))
    return Sessions(member, _apart(member, seconds[order]), surface)


def _times(count: int, rng: np.random.Generator) -> Ints:
    """Seconds into the period: fewer at the weekend, none at night, none after the last session's time."""
    weekend = (np.arange(DAYS) + _THURSDAY) % 7 >= 5
    days = np.searchsorted(cumulative(np.where(weekend, _WEEKEND, 1.0)), rng.random(count))
    seconds = days * DAY + _MORNING + (_AWAKE * rng.beta(2, 2, count)).astype(np.int64)
    return np.where(seconds > LAST - DAY // 4, seconds - DAY, seconds)


def _apart(member: Ints, seconds: Ints) -> Ints:
    """The ascending times of each member, later where that is needed for a gap between any two."""
    if not len(member):
        return seconds
    rank = np.arange(len(member)) * _GAP
    far = member.astype(np.int64) * (4 * DAY * DAYS)
    return np.asarray(np.maximum.accumulate(seconds - rank + far) + rank - far)


def _events(played: list[Played], rng: np.random.Generator) -> Events:
    """Impressions and actions of all surfaces, by session and time."""
    parts = [_columns(number, *part, rng) for number, part in enumerate(played)]
    session, *columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    seconds, place = columns[4], columns[5]
    order = np.lexsort((place, seconds, session))
    return Events(*(column[order] for column in columns))


def _columns(surface: int, slates: Slates, answers: Answers, rng: np.random.Generator) -> tuple[Ints | Floats, ...]:
    """The session and the columns of `Events`, the impressions first."""
    shown, acted = np.nonzero(slates.shown), np.nonzero(answers.action != NOTHING)
    row, place = (np.concatenate(pair) for pair in zip(shown, acted, strict=True))
    action = np.concatenate((np.full(len(shown[0]), NOTHING), answers.action[acted]))
    delay = _PAUSE + _PER_PLACE * place + rng.integers(_PER_PLACE, size=len(place))
    seconds = slates.seconds[row] + np.where(action == NOTHING, 0, delay)
    return (
        slates.session[row], slates.member[row], slates.items_SK[row, place], np.full(len(row), surface), action,
        seconds, place, slates.propensity_SK[row, place],
    )  # fmt: skip


def action_names() -> list[tuple[str, ...]]:
    """For each surface, the names of its actions."""
    return [actions(surface) for surface in SURFACES]
