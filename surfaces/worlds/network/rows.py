"""Rows of the simulated network's three tables, made while they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from surfaces.ledger.records import IMPRESSION
from surfaces.ledger.tables import Row
from surfaces.worlds.network.arrays import Ints, Stage, blocks, generator
from surfaces.worlds.network.behaviour import NOTHING
from surfaces.worlds.network.members import Members
from surfaces.worlds.network.sessions import Events, action_names, all_events
from surfaces.worlds.network.settings import SURFACES
from surfaces.worlds.network.shelf import START, Shelf
from surfaces.worlds.network.texts import Texts
from surfaces.worlds.network.words import SIZES
from surfaces.worlds.network.world import World

MEMBER_COLUMNS = ("member_id", "name", "occupation", "skills", "location", "seniority", "industry", "company")
ITEM_COLUMNS = (
    "item_id", "kind", "member_id", "name", "occupation", "title", "text", "description", "industry", "company",
    "location", "seniority", "skills", "size", "remote", "author", "author_id", "topics", "advertiser", "topic", "bid",
    "budget", "posted_at", "starts_at", "expires_at",
)  # fmt: skip
EVENT_COLUMNS = (
    "event_id", "member_id", "item_id", "surface", "action", "timestamp", "position", "propensity",
)  # fmt: skip

_DRAWS = 8


@dataclass(frozen=True, slots=True)
class Stream:
    """Rows that are made anew, and the same, every time they are read."""

    make: Callable[[], Iterator[Row]]

    def __iter__(self) -> Iterator[Row]:
        return self.make()


def member_rows(world: World) -> Iterator[Row]:
    """One for each member, with the columns MEMBER_COLUMNS."""
    for place, profile in _profiles(world):
        yield {"member_id": f"m{place}", **profile}


def item_rows(world: World) -> Iterator[Row]:
    """Companies, jobs, posts, ads and people; every row has those of ITEM_COLUMNS that its kind has."""
    makers = {"company": _company, "job": _job, "post": _post, "ad": _ad}
    stages = {"company": Stage.COMPANIES, "job": Stage.JOBS, "post": Stage.POSTS, "ad": Stage.ADS}
    texts = Texts(world)
    for kind, make in makers.items():
        shelf = world.shelves[kind]
        for place, draws in _draws(world.seed, stages[kind], len(shelf)):
            yield {"item_id": f"{shelf.prefix}{place}", "kind": kind, **make(texts, shelf, place, draws)}
    for place, profile in _profiles(world):
        yield {"item_id": f"u{place}", "kind": "person", "member_id": f"m{place}", **profile}


def event_rows(world: World) -> Iterator[Row]:
    """Impressions and actions, with the columns EVENT_COLUMNS; every member's stand together, in the order of time."""
    for block, events in enumerate(all_events(world)):
        yield from _event_rows(world, block, events)


def _event_rows(world: World, block: int, events: Events) -> Iterator[Row]:
    names = [{NOTHING: IMPRESSION, **dict(enumerate(actions))} for actions in action_names()]
    surfaces = [surface.surface for surface in SURFACES]
    prefixes = [world.shelves[surface.kind].prefix for surface in SURFACES]
    columns = (events.member, events.item, events.surface, events.action, events.seconds + START, events.place)
    lists = (*(column.tolist() for column in columns), events.propensity.round(6).tolist())
    for number, row in enumerate(zip(*lists, strict=True)):
        member, item, surface, action, timestamp, place, propensity = row
        yield {
            "event_id": f"{block}-{number}",
            "member_id": f"m{member}",
            "item_id": f"{prefixes[surface]}{item}",
            "surface": surfaces[surface],
            "action": names[surface][action],
            "timestamp": timestamp,
            "position": place,
            "propensity": propensity,
        }


def _draws(seed: int, stage: Stage, count: int) -> Iterator[tuple[int, list[int]]]:
    """Every place with 8 whole numbers that choose its words."""
    for block, places in blocks(count):
        drawn: Ints = generator(seed, Stage.TEXT + stage, block).integers(2**31, size=(len(places), _DRAWS))
        yield from zip(places, drawn.tolist(), strict=True)


def _profiles(world: World) -> Iterator[tuple[int, dict[str, object]]]:
    texts = Texts(world)
    for place, draws in _draws(world.seed, Stage.MEMBERS, len(world.members.occupation)):
        yield place, _profile(texts, world.members, place, draws)


def _profile(texts: Texts, people: Members, place: int, draws: list[int]) -> dict[str, object]:
    occupation, company = int(people.occupation[place]), int(people.company[place])
    return {
        "name": texts.member(place),
        "occupation": texts.title(occupation),
        "skills": texts.skills(occupation, draws, second=int(people.second[place])),
        "location": texts.city(int(people.city[place])),
        "seniority": texts.level(int(people.level[place])),
        "industry": texts.industry(int(texts.companies.topic[company])),
        "company": texts.company(company),
    }


def _company(texts: Texts, shelf: Shelf, place: int, draws: list[int]) -> dict[str, object]:
    return {
        "name": texts.company(place),
        "industry": texts.industry(int(shelf.topic[place])),
        "location": texts.city(int(shelf.city[place])),
        "size": SIZES[min(int(float(shelf.weight[place]) ** 0.7) + draws[0] % 2, len(SIZES)) - 1],
    }


def _job(texts: Texts, shelf: Shelf, place: int, draws: list[int]) -> dict[str, object]:
    topic, city = int(shelf.topic[place]), int(shelf.city[place])
    return {
        "title": texts.title(topic),
        "company": texts.company(int(shelf.company[place])),
        "location": texts.city(city if city >= 0 else int(texts.companies.city[shelf.company[place]])),
        "seniority": texts.level(int(shelf.level[place])),
        "skills": texts.skills(topic, draws),
        "remote": city < 0,
        "description": texts.sentence(topic, draws[4]),
        "posted_at": START + int(shelf.start[place]),
        "expires_at": START + int(shelf.end[place]),
    }


def _post(texts: Texts, shelf: Shelf, place: int, draws: list[int]) -> dict[str, object]:
    topic, author, company = int(shelf.topic[place]), int(shelf.author[place]), int(shelf.company[place])
    terms = texts.terms(topic, draws)
    return {
        "text": f"{texts.opening(draws[4], terms[0])} {texts.sentence(topic, draws[5])}",
        "author": texts.member(author) if author >= 0 else texts.company(company),
        "author_id": f"u{author}" if author >= 0 else f"c{company}",
        "topics": terms,
        "posted_at": START + int(shelf.start[place]),
    }


def _ad(texts: Texts, shelf: Shelf, place: int, draws: list[int]) -> dict[str, object]:
    topic = int(shelf.topic[place])
    (term,) = texts.terms(topic, draws, count=1)
    bid = round(0.5 * min(float(shelf.weight[place]), 60.0), 2)
    return {
        "title": texts.slogan(draws[4], term),
        "text": texts.sentence(topic, draws[5]),
        "advertiser": texts.company(int(shelf.company[place])),
        "topic": term,
        "bid": bid,
        "budget": round(bid * (20 + draws[6] % 2000), 2),
        "starts_at": START + int(shelf.start[place]),
        "expires_at": START + int(shelf.end[place]),
    }
