"""A small ledger by hand, for what is held out to be seen at a glance."""

from __future__ import annotations

from collections.abc import Sequence

from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from surfaces.spec import SurfaceSpec
from surfaces.spec_file import read_spec

FILMS = "abcdefghij"
DAY = 86_400.0


def event(member_id: str, item_id: str, timestamp: float, action: str = "watch", surface: str = "movies") -> Event:
    return Event(member_id, item_id, surface, action, timestamp, event_id=f"{member_id}{item_id}{timestamp}{action}")


ANN = [event("ann", "a", 1.0), event("ann", "song", 2.0), event("ann", "b", 3.0), event("ann", "c", 4.0)]
BOB = [event("bob", "b", 1.0), event("bob", "a", 2.0), event("bob", "d", 3.0, "show"), event("bob", "song", 4.0)]
CY = [event("cy", "a", 1.0), event("cy", "e", 2.0, "show")]
DAN = [event("dan", "c", 1.0), event("dan", "b", 2.0), event("dan", "c", 3.0)]


def fill(ledger: Ledger, events: Sequence[Event] = (*ANN, *BOB, *CY, *DAN)) -> None:
    ledger.write(
        items=[*(Item(name, "movie", {"title": name.upper()}) for name in FILMS), Item("song", "song", {})],
        members=[Member(name, {}) for name in ("ann", "bob", "cy", "dan", "new")],
        events=events,
    )


def movies() -> SurfaceSpec:
    return Registry.shipped().surface("movies")


def surface(text: str) -> SurfaceSpec:
    """A surface over films whose heads (and more) are given as YAML."""
    head = "surface: films\ndescription: Films\nitem_kind: movie\nprompt: {instruction: Films., item: '{{ title }}'}\n"
    found = read_spec(f"{head}sources: [{{type: popular, k: 5}}]\n{text}\n", "films.yaml").spec
    assert isinstance(found, SurfaceSpec)
    return found
