"""Ids of events that came without one, so that the same event twice is one."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable

from surfaces.ledger.records import Event


def identified(events: Iterable[Event]) -> dict[str, Event]:
    """The events by id, the first of each; those without an id get one from their content (see `Ledger.write`)."""
    seen: Counter[Event] = Counter()
    found: dict[str, Event] = {}
    for event in events:
        event_id = event.event_id
        if event_id is None:
            seen[event] += 1
            event_id = content_id(content(event), seen[event])
        found.setdefault(event_id, event._replace(event_id=event_id))
    return found


def content(event: Event) -> str:
    """What an event says, without its id, as a JSON list."""
    return json.dumps(event[:-1], separators=(",", ":"))


def content_id(content: str, occurrence: int) -> str:
    """The id of an event that came without one: a hash of its content, which came so many times by then."""
    return hashlib.blake2b(f"{content[:-1]},{occurrence}]".encode(), digest_size=16).hexdigest()
