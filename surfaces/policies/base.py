"""What a policy does: it takes a slate, best first, and returns one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class HasItem(Protocol):
    """An entry of a slate, or a candidate before it is scored."""

    @property
    def item_id(self) -> str:
        """The item."""
        ...


class Acted(Protocol):
    """An event of the member, as far as policies look at it."""

    @property
    def item_id(self) -> str:
        """The item."""
        ...

    @property
    def action(self) -> str:
        """What the member did."""
        ...


Entry = TypeVar("Entry", bound=HasItem)


class Policy(Protocol):
    """Reorders or drops entries; it never adds one, never changes one, and keeps the order where it has no say."""

    def apply(self, slate: Sequence[Entry], history: Sequence[Acted]) -> list[Entry]:
        """The slate after the policy."""
        ...
