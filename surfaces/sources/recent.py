"""The newest items."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from prompts.errors import ConfigError
from surfaces.moments import moment
from surfaces.sources.base import NOTHING, Indices, Interactions, Materials, Scores, SourceKind
from surfaces.visit import NOBODY, Visit


class Recent:
    """Scores an item by its time: one that was read from the items, or else that of the item's first event."""

    def __init__(self, times_I: Scores | None = None) -> None:
        """`times_I` holds seconds since 1970, `NOTHING` for an item without a time."""
        self._given_I = times_I
        self._times_I: Scores = np.zeros(0)

    def fit(self, data: Interactions) -> None:
        """Finds first events. Raises ConfigError where these are no times, and when times and items do not match."""
        if self._given_I is None and data.clock == "order" and data.item_ids:
            raise ConfigError("recent: this ledger's clock is 'order'; name an attribute that holds a time with 'by'")
        if self._given_I is not None and len(self._given_I) != len(data.item_ids):
            raise ConfigError(f"recent: {len(self._given_I)} times for {len(data.item_ids)} items")
        self._times_I = _first_events(data) if self._given_I is None else self._given_I

    def scores(self, history_H: Indices, visit: Visit = NOBODY) -> Scores:  # noqa: ARG002 - the same for every history
        """[items]: seconds since 1970; `NOTHING` for an item without a time, or with one that is yet to come."""
        if visit.now <= 0:
            return self._times_I
        return np.where(self._times_I <= visit.now, self._times_I, NOTHING)


def _first_events(data: Interactions) -> Scores:
    first_I = np.full(len(data.item_ids), np.inf)
    for items, times in zip(data.sequences, data.times, strict=True):
        np.minimum.at(first_I, items, times)
    return np.where(np.isinf(first_I), NOTHING, first_I)


class RecentSource(SourceKind):
    """The newest items first."""

    label: ClassVar[str] = "newness"
    where: ClassVar[tuple[str, ...]] = ("by",)
    type: Literal["recent"]
    by: str | None = Field(
        None,
        max_length=256,
        description="An attribute that holds a time, in seconds since 1970 or as ISO 8601; by default an item is as "
        "old as its first event.",
    )

    def build(self, materials: Materials) -> Recent:
        """A source that knows the items' times, or finds them in the events."""
        return Recent(None if self.by is None else _times(materials, self.by))


def _times(materials: Materials, name: str) -> Scores:
    found = (moment(item.attributes.get(name)) for item in materials.items)
    return np.array([NOTHING if time is None else time for time in found], dtype=np.float64)
