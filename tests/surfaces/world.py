"""A small real ledger: films in two camps, members who keep to theirs."""

from __future__ import annotations

import random

from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger

FILMS, MEMBERS, EVENTS = 40, 30, 12


def fill(ledger: Ledger, *, members: int = MEMBERS, events: int = EVENTS) -> None:
    """Even members watch even films, odd ones odd films; what they make of them depends on the film."""
    rng = random.Random(0)
    genres = (["Comedy", "Romance"], ["Action"])
    ledger.put_items(
        Item(f"f{n:02}", "movie", {"title": f"Film {n}", "year": 1960 + n, "genres": genres[n % 2]})
        for n in range(FILMS)
    )
    ledger.put_members(
        Member(f"m{n:02}", {"age": 20 + n, "gender": "FM"[n % 2], "occupation": "writer"}) for n in range(members)
    )
    ledger.add_events(
        Event(f"m{n:02}", f"f{film:02}", "movies", ("like", "watch", "dislike")[film % 3], 1000.0 * n + place)
        for n in range(members)
        for place, film in enumerate(rng.sample([film for film in range(FILMS) if film % 2 == n % 2], events))
    )


def chosen(member_id: str, *items: str) -> list[Event]:
    return [Event(member_id, item, "movies", "watch", float(place)) for place, item in enumerate(items, 1)]


def fill_few(ledger: Ledger) -> None:
    """Films a to f and a song; three members. Nobody chose f; ann was shown e and heard the song."""
    ledger.write(
        items=[*(Item(name, "movie", {"title": name.upper()}) for name in "fedcba"), Item("song", "song", {})],
        members=[Member(name, {}) for name in ("ann", "bob", "cy", "new")],
        events=[
            *chosen("ann", "a", "b", "c"),
            *chosen("bob", "b", "a", "d"),
            *chosen("cy", "a", "c"),
            Event("ann", "e", "movies", "show", 2.5),
            Event("ann", "song", "songs", "like", 1.5),
        ],
    )
