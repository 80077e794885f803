"""The items with most events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from prompts.errors import ConfigError
from surfaces.fields import Duration
from surfaces.sources.base import Indices, Interactions, Materials, Scores, SourceKind
from surfaces.visit import NOBODY, Visit

Profiles = Mapping[str, Mapping[str, object]]
"""Members' profiles, by id."""

FEWEST = 10
"""A segment with fewer events than that is too small to say what is popular in it."""


class Popular:
    """Counts each item's events; with a half-life (seconds), an event that much older counts half as much.

    With a `window` (seconds), events older than that before the latest do not count.
    With `segment`, a key of the members' `profiles`, only the events of members like the visitor in it count; where
    there are too few of these, everyone's do.
    """

    def __init__(
        self,
        half_life: float | None = None,
        segment: str | None = None,
        profiles: Profiles | None = None,
        *,
        window: float | None = None,
    ) -> None:
        self.half_life, self.segment, self.window = half_life, segment, window
        self._profiles = profiles or {}
        self._scores_I: Scores = np.zeros(0)
        self._by_segment: dict[str, Scores] = {}

    def fit(self, data: Interactions) -> None:
        """Counts. Raises ConfigError for a half-life or a window where timestamps are no times."""
        for name, seconds in (("half_life", self.half_life), ("window", self.window)):
            if seconds is not None and data.clock == "order" and data.item_ids:
                raise ConfigError(f"popular: {name} needs times, but this ledger's clock is 'order'; leave {name} out")
        members = range(len(data.member_ids))
        latest = max((times.max() for times in data.times if len(times)), default=0.0)
        self._scores_I = self._count(data, list(members), latest)
        grouped: dict[str, list[int]] = {}
        for member in members if self.segment else ():
            grouped.setdefault(self._value(self._profiles.get(data.member_ids[member], {})), []).append(member)
        self._by_segment = {
            value: self._count(data, inside, latest)
            for value, inside in grouped.items()
            if value and sum(len(data.sequences[member]) for member in inside) >= FEWEST
        }

    def _count(self, data: Interactions, members: list[int], latest: float) -> Scores:
        items = np.concatenate([np.zeros(0, dtype=np.int64), *(data.sequences[member] for member in members)])
        times = np.concatenate([np.zeros(0), *(data.times[member] for member in members)])
        weights = np.ones(len(items)) if self.half_life is None else 0.5 ** ((latest - times) / self.half_life)
        if self.window is not None:
            weights[times < latest - self.window] = 0.0
        return np.bincount(items, weights=weights, minlength=len(data.item_ids)).astype(np.float64)

    def _value(self, profile: Mapping[str, object]) -> str:
        value = profile.get(self.segment or "")
        return str(value) if isinstance(value, str | int | float) else ""

    def scores(self, history_H: Indices, visit: Visit = NOBODY) -> Scores:  # noqa: ARG002 - the same for every history
        """[items]: the (decayed) count of events, of the visitor's segment where there is one."""
        return self._by_segment.get(self._value(visit.profile), self._scores_I)

    def basis(self, history_H: Indices, visit: Visit) -> str:  # noqa: ARG002 - the same for every history
        """What the scores depend on beside the history."""
        return self._value(visit.profile)


class PopularSource(SourceKind):
    """The items with most events: with a half-life, recent ones count for more; with a segment, those of one's own."""

    label: ClassVar[str] = "popularity"
    of_new: ClassVar[float | None] = 0.0
    type: Literal["popular"]
    half_life: Duration | None = Field(None, description="An event that much older counts half as much.")
    segment: str | None = Field(
        None, max_length=256, description="A key of the profile: what is popular among members who are alike in it."
    )

    def build(self, materials: Materials) -> Popular:
        """A source that is to be fitted; it reads every profile where it has a segment."""
        members = materials.ledger.all_members() if self.segment else []
        return Popular(self.half_life, self.segment, {member.member_id: member.profile for member in members})
