"""What is new comes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from surfaces.fields import Duration
from surfaces.moments import moment
from surfaces.policies.base import Attribute, Entry, PolicyKind, Share, best_first
from surfaces.visit import Visit


class FreshnessPolicy(PolicyKind):
    """Mixes how new an entry is into its relevance: `(1 - strength) * relevance + strength * freshness`.

    The freshness is 1 for what is posted now and halves with every `half_life`. What lies in the future is fresh; what
    tells no time is old.
    """

    type: Literal["freshness"]
    by: Attribute = Field(
        "posted_at", description="The attribute that tells the time: seconds since 1970, or ISO 8601 text."
    )
    half_life: Duration = Field(description="An entry that much older is half as fresh, like 2d.")
    strength: Share = Field(description="0 changes nothing; 1 looks at nothing but the age.")

    def apply(self, slate: Sequence[Entry], visit: Visit, k: int) -> list[Entry]:  # noqa: ARG002 - of any length
        """The entries by the mixed relevance."""
        return best_first([replace(entry, relevance=self._mixed(entry, visit.now)) for entry in slate])

    def _mixed(self, entry: Entry, now: float) -> float:
        posted = moment(entry.attributes.get(self.by))
        fresh = 0.0 if posted is None else 0.5 ** (max(now - posted, 0.0) / self.half_life)
        return (1 - self.strength) * entry.relevance + self.strength * fresh
