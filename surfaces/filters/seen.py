"""Nothing twice."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prompts.errors import ConfigError
from surfaces.fields import Duration, Word, listed
from surfaces.filters.base import FilterKind
from surfaces.ledger.records import Clock
from surfaces.visit import Visit


class SeenFilter(FilterKind):
    """Drops items that the member has acted on; an item that was only shown stays."""

    single: ClassVar[bool] = True
    type: Literal["seen"]
    actions: Annotated[tuple[Word, ...], listed(max_length=32)] = Field(
        (), description="Only these actions count; by default every one."
    )
    within: Duration | None = Field(None, description="Only what was done so lately counts; by default everything.")

    def check(self, clock: Clock) -> None:
        """Raises ConfigError for `within` where timestamps are no times."""
        if self.within is not None and clock == "order":
            raise ConfigError("seen: within needs times, but this ledger's clock is 'order'; leave within out")

    def excludes(self, visit: Visit) -> set[str]:
        """The items that the member has acted on."""
        since = float("-inf") if self.within is None else visit.now - self.within
        acts = (event for event in visit.acts if event.timestamp >= since)
        return {event.item_id for event in acts if not self.actions or event.action in self.actions}
