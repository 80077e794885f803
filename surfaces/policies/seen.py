"""Nothing twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from surfaces.policies.base import Acted, Entry

IMPRESSION = "show"
"""The action of an item that was only shown."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Drops items that the member has acted on; an item that was only shown stays."""

    def apply(self, slate: Sequence[Entry], history: Sequence[Acted]) -> list[Entry]:
        """The entries that are new to the member, in their order."""
        seen = {event.item_id for event in history if event.action != IMPRESSION}
        return [entry for entry in slate if entry.item_id not in seen]
