"""One after the other: work that computes in Python has its turn.

Python runs one thread at a time. Threads that compute beside each other do not get more done, they take the interpreter
from each other: a forward of the engine, which gives it away at every product, then takes four times as long.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

LIMIT_S = 0.1
"""So long a turn is waited for: an engine that is slow, or hangs, is in nobody's way."""


class Lane:
    """Held by one at a time. Whoever waits is let in by when they came, as if it were `patience_s` later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = False
        self._waiting: list[tuple[float, int, threading.Event]] = []
        self._order = count()

    def acquire(self, patience_s: float = 0.0) -> bool:
        """Waits for the turn; False where it does not come, and the work is done beside whoever has it."""
        with self._lock:
            if not self._busy:
                self._busy = True
                return True
            waits = (time.monotonic() + patience_s, next(self._order), threading.Event())
            heapq.heappush(self._waiting, waits)
        if waits[2].wait(LIMIT_S):
            return True
        with self._lock:
            if waits[2].is_set():  # just now
                return True
            self._waiting.remove(waits)
            heapq.heapify(self._waiting)
            return False

    def release(self) -> None:
        """Lets the next one in. May be called from another thread than `acquire`."""
        with self._lock:
            if self._waiting:
                heapq.heappop(self._waiting)[2].set()
            else:
                self._busy = False

    @contextmanager
    def held(self, patience_s: float = 0.0) -> Iterator[None]:
        """A turn, for what happens inside."""
        mine = self.acquire(patience_s)
        try:
            yield
        finally:
            if mine:
                self.release()
