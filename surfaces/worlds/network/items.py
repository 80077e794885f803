"""The simulated items: what companies, jobs, posts, ads and people are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from surfaces.worlds.network.arrays import Floats, Ints, Stage, cumulative, in_blocks, power_law
from surfaces.worlds.network.meaning import Meaning
from surfaces.worlds.network.members import FAME_EXPONENT, Members, city_shares, near_vectors, occupation_shares
from surfaces.worlds.network.shelf import ANYWHERE, COMPANY, DAY, DAYS, LAST, Shelf
from surfaces.worlds.network.words import LEVEL_SHARES

_EXPONENT, _CAP = 1.15, 300.0
_FRESH = 0.04
_ALWAYS = (-2, DAYS + 1)  # days
_REMOTE = 0.2
_OWN_FIELD = 0.7  # share of a member's posts about their own occupation
_BY_COMPANY = 0.2


def make_companies(seed: int, count: int, meaning: Meaning) -> Shelf:
    """Companies; every industry has one at least."""
    industries = len(meaning.groups)
    shares = cumulative(np.bincount(meaning.group_of, minlength=industries).astype(np.float64))

    def make(rng: np.random.Generator, size: int) -> Mapping[str, npt.NDArray[np.generic]]:
        return {
            "topic": np.searchsorted(shares, rng.random(size)).astype(np.int16),
            "city": np.searchsorted(city_shares(), rng.random(size)).astype(np.int8),
            "weight": power_law(rng.random(size), _EXPONENT, _CAP).astype(np.float32),
        }

    made = in_blocks(seed, Stage.COMPANIES, count, make)
    made["topic"][:industries] = np.arange(industries)
    unused = ("level", "company", "author", "start", "end")
    columns: dict[str, npt.NDArray[np.generic]] = dict.fromkeys(unused, np.zeros(count, np.int32))
    vectors = np.zeros((count, 0), np.float16)
    return _shelf("c", {**columns, **made, "vectors": vectors}, np.arange(industries))


def make_jobs(seed: int, count: int, meaning: Meaning, companies: Shelf) -> Shelf:
    """Jobs: of the company's industry, in its city or remote, open for 30 to 60 days."""
    shares = occupation_shares(len(meaning.occupations))
    firms = companies.by_topic

    def make(rng: np.random.Generator, size: int) -> Mapping[str, npt.NDArray[np.generic]]:
        topic = np.searchsorted(shares, rng.random(size))
        zero = np.zeros(size, np.int64)
        company = firms.draw(meaning.group_of[topic], zero, zero, rng.random(size))
        city = np.where(rng.random(size) < _REMOTE, ANYWHERE, companies.city[company])
        level = rng.choice(len(LEVEL_SHARES), size, p=LEVEL_SHARES)
        return {**_subject(rng, meaning, topic), **_times(rng, size, 30, (30, 60)), **_place(city, level, company)}

    return _shelf("j", in_blocks(seed, Stage.JOBS, count, make), meaning.group_of)


def make_posts(seed: int, count: int, meaning: Meaning, members: Members, companies: Shelf) -> Shelf:
    """Posts, shown for 14 days: mostly by members, the active ones more often, mostly about their occupation."""
    authors = np.cumsum(members.activity, dtype=np.float64)

    def make(rng: np.random.Generator, size: int) -> Mapping[str, npt.NDArray[np.generic]]:
        author = np.searchsorted(authors, rng.random(size) * authors[-1], side="right").clip(max=len(authors) - 1)
        own, other = members.occupation[author], meaning.near(members.occupation[author], rng.random(size))
        topic = np.where(rng.random(size) < _OWN_FIELD, own, other)
        company = members.company[author]
        official = rng.random(size) < _BY_COMPANY
        city = np.where(official, companies.city[company], members.city[author])
        author = np.where(official, COMPANY, author)
        place = _place(city, members.level[author], company, author)
        return {**_subject(rng, meaning, topic), **_times(rng, size, 14, (14, 14)), **place}

    return _shelf("p", in_blocks(seed, Stage.POSTS, count, make), meaning.group_of)


def make_ads(seed: int, count: int, meaning: Meaning, companies: Shelf) -> Shelf:
    """Ads, shown for 20 to 60 days; the weight is the bid."""
    shares = occupation_shares(len(meaning.occupations))

    def make(rng: np.random.Generator, size: int) -> Mapping[str, npt.NDArray[np.generic]]:
        topic = np.searchsorted(shares, rng.random(size))
        company = rng.integers(len(companies), size=size)
        place = _place(np.full(size, ANYWHERE), np.zeros(size), company)
        return {**_subject(rng, meaning, topic), **_times(rng, size, 20, (20, 60)), **place}

    return _shelf("a", in_blocks(seed, Stage.ADS, count, make), meaning.group_of)


def make_people(members: Members, meaning: Meaning) -> Shelf:
    """Every member as an item, at any time; the columns are the members' own."""
    count = len(members.occupation)
    start, end = (np.full(count, day * DAY, np.int32) for day in _ALWAYS)
    return Shelf(
        "u", FAME_EXPONENT, members.vectors, members.occupation, members.city, members.level, members.company,
        np.arange(count, dtype=np.int32), start, end, members.fame, meaning.group_of,
    )  # fmt: skip


def _subject(rng: np.random.Generator, meaning: Meaning, topic: Ints) -> dict[str, npt.NDArray[np.generic]]:
    weight = power_law(rng.random(len(topic)), _EXPONENT, _CAP).astype(np.float32)
    vectors = near_vectors(rng, meaning.vectors[topic])
    return {"topic": topic.astype(np.int16), "vectors": vectors, "weight": weight}


def _times(
    rng: np.random.Generator, size: int, before: int, life: tuple[int, int]
) -> dict[str, npt.NDArray[np.generic]]:
    """Starts from `before` days ahead of the period on, some after the last session; whole lives are in days."""
    start = rng.integers(-before * DAY, LAST, size)
    late = rng.integers(LAST + 1, DAYS * DAY, size)
    start = np.where(rng.random(size) < _FRESH, late, start)
    end = start + rng.integers(life[0] * DAY, life[1] * DAY + 1, size)
    return {"start": start.astype(np.int32), "end": end.astype(np.int32)}


def _place(
    city: Ints, level: Ints | Floats, company: Ints, author: Ints | None = None
) -> dict[str, npt.NDArray[np.generic]]:
    writers = np.full(len(city), COMPANY) if author is None else author
    return {
        "city": city.astype(np.int8),
        "level": level.astype(np.int8),
        "company": company.astype(np.int32),
        "author": writers.astype(np.int32),
    }


def _shelf(prefix: str, made: Mapping[str, npt.NDArray[np.generic]], industry_of: Ints) -> Shelf:
    build: Callable[..., Shelf] = Shelf
    return build(prefix=prefix, exponent=_EXPONENT, industry_of=industry_of, **made)
