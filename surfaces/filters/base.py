"""What a filter does: it says which candidates may be ranked at all."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import ClassVar, TypeAlias

from surfaces.fields import Strict
from surfaces.ledger.records import Clock, Item
from surfaces.visit import Visit

Test: TypeAlias = Callable[[Item], bool]
"""Whether an item may be a candidate. It never raises, whatever the item's attributes hold."""


class FilterKind(Strict):
    """An entry of `filters`."""

    single: ClassVar[bool] = False
    """Whether a surface has it at most once, because twice would say the same."""
    type: str

    def check(self, clock: Clock) -> None:
        """Raises ConfigError for what a ledger of that clock cannot tell."""

    def excludes(self, visit: Visit) -> Collection[str]:  # noqa: ARG002 - most filters look at the items
        """Ids of items that are known to be dropped, before any source is asked."""
        return ()

    def test(self, visit: Visit) -> Test:  # noqa: ARG002 - some filters need only name ids
        """The test for one visit: made once, asked of every candidate that is not excluded."""
        return lambda _: True
