"""Who asks for a slate, and with what, as sources, filters and policies see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from surfaces.ledger.records import IMPRESSION, Event, Item

Lookup = Callable[[Iterable[str]], Mapping[str, Item]]
"""Items by id; those that nobody knows are left out."""


def _nothing(_: Iterable[str]) -> Mapping[str, Item]:
    return {}


@dataclass(frozen=True, slots=True)
class Visit:
    """One request for a slate.

    `member_id` is empty for a member that the ledger does not know. `timeline` is in the order of time. `context` is
    what the request said; `now` is when it came, in seconds since 1970. `lookup` reads items of the ledger. `given` are
    the candidates that the request brought itself, as ids.
    """

    timeline: Sequence[Event] = ()
    member_id: str = ""
    profile: Mapping[str, object] = field(default_factory=dict)
    context: Mapping[str, object] = field(default_factory=dict)
    now: float = 0.0
    lookup: Lookup = _nothing
    given: Sequence[str] = ()

    @property
    def query(self) -> str:
        """What the member searches for; empty without a query."""
        said = self.context.get("query")
        return said if isinstance(said, str) else ""

    @property
    def acts(self) -> list[Event]:
        """What the member did: the timeline without impressions."""
        return [event for event in self.timeline if event.action != IMPRESSION]


NOBODY = Visit()
"""A visit of which nothing is known."""
