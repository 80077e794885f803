"""What was made lately, kept for the next time it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

from prompts.tree import Piece
from surfaces.ledger.records import Item

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

PIECES, ITEM_CAP = 16_384, 1_000
"""So many pieces are kept, of items whose attributes take so many characters."""


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


class _Told(NamedTuple):
    """A piece, and what it was made of."""

    form: object
    item: Item
    piece: Piece


class Pieces:
    """Items as they were put into words. May be used from any thread."""

    def __init__(self) -> None:
        self._kept = Lately[tuple[str, Hashable], _Told](PIECES)

    def of(self, item: Item, how: Hashable, form: object, made: Callable[[], Piece]) -> Piece:
        """What is `made` of an item, told `how`; the very same item is told once by the very same form."""
        known = self._kept.find((item.item_id, how))
        if known is not None and known.item is item and known.form is form:
            return known.piece
        piece = made()
        if len(str(item.attributes)) <= ITEM_CAP:
            self._kept.keep((item.item_id, how), _Told(form, item, piece))
        return piece

    def forget(self) -> None:
        """Drops all."""
        self._kept.forget()
