"""What was made lately, kept for the next time it is asked for."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lately(Generic[K, V]):
    """Values by key: the last `room` that were made or asked for, at least, and twice as many at most.

    It may be used from any thread, and takes no lock: what two threads do at once may be lost, and is made again.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def find(self, key: K) -> V | None:
        """The value, if it is kept."""
        found = self._young.get(key)
        if found is None and (found := self._old.get(key)) is not None:
            self.keep(key, found)
        return found

    def keep(self, key: K, value: V) -> None:
        """Keeps a value; those that were not asked for lately go, where there is no room."""
        young = self._young
        if len(young) >= self.room and key not in young:
            self._old, self._young = young, (young := {})
        young[key] = value

    def forget(self) -> None:
        """Drops all."""
        self._young, self._old = {}, {}
