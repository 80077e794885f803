"""What advisers said of every item, kept for the next visit with the same history: another surface, the next page."""

from __future__ import annotations

import mmap
from collections import OrderedDict
from threading import Lock
from typing import NamedTuple

import numpy as np

from surfaces.sources.base import Scores

ROOM_BYTES = 32 << 20
"""So much is kept of one surface; what was not asked for longest goes first."""

LARGE_BYTES = 16 << 10
"""An opinion of so many bytes lies in pages of its own."""

Key = tuple[str, bytes, str]
"""An adviser's name, a history by a hash of it, and what else the opinion depends on."""


class Opinion(NamedTuple):
    """[items] of one adviser: its scores, and what it adds to what all say together, where that is told.

    `top_T` are its highest scores of what the member has not acted on, rising.
    """

    scores_I: Scores
    top_T: Scores
    part_I: Scores | None


class Opinions:
    """Opinions by adviser and history. May be used from any thread."""

    def __init__(self, room_bytes: int = ROOM_BYTES) -> None:
        self.room_bytes, self.bytes = room_bytes, 0
        self._kept: OrderedDict[Key, Opinion] = OrderedDict()
        self._lock = Lock()

    def find(self, key: Key) -> Opinion | None:
        """The opinion, if it is kept."""
        with self._lock:
            if found := self._kept.get(key):
                self._kept.move_to_end(key)
            return found

    def keep(self, key: Key, opinion: Opinion) -> None:
        """Keeps an opinion, and drops others where there is no room."""
        with self._lock:
            if key not in self._kept:
                self._kept[key] = opinion if _size(key, opinion) < LARGE_BYTES else _apart(opinion)
                self.bytes += _size(key, opinion)
            while self.bytes > self.room_bytes:
                self.bytes -= _size(*self._kept.popitem(last=False))

    def forget(self) -> None:
        """Drops all."""
        with self._lock:
            self._kept.clear()
            self.bytes = 0


def _apart(opinion: Opinion) -> Opinion:
    """The same in pages that go back to the system with it.

    What is kept for long between what is soon freed keeps that from being given back: the memory of a server whose
    members act grew by 5 MB a minute.
    """
    arrays = [array_N for array_N in opinion if array_N is not None]
    room = np.frombuffer(mmap.mmap(-1, sum(array_N.nbytes for array_N in arrays)), dtype=np.float64)
    np.concatenate(arrays, out=room)
    scores_I, top_T, *part = np.split(room, np.cumsum([len(array_N) for array_N in arrays])[:-1])
    return Opinion(scores_I, top_T, part[0] if part else None)


def _size(key: Key, opinion: Opinion) -> int:
    part = 0 if opinion.part_I is None else opinion.part_I.nbytes
    return len(key[1]) + len(key[2]) + opinion.scores_I.nbytes + opinion.top_T.nbytes + part
