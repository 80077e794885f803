"""The event loop's rest while many requests are turned away: those who compute have the interpreter meanwhile."""

from __future__ import annotations

import asyncio
import threading

REST_S, EACH_S = 0.008, 0.002
"""So long the loop rests at most, and so long for each request that was turned away: each time that it wakes, it takes
the interpreter, but who is not turned away waits for the rest's end, too."""
ROUNDS = 3
"""So many times everything that is ready has its turn before: a request begins, and a reply goes out, in that."""


class Rest:
    """What comes while the loop rests is read together, after it. `over` may be called from any thread."""

    def __init__(self) -> None:
        self._turned_away, self._over = 0, threading.Event()

    def soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """A request was turned away: lets the loop rest, after what is under way on it."""
        self._turned_away += 1
        if self._turned_away == 1:
            self._over.clear()
            loop.call_soon(self._breathe, loop, ROUNDS)

    def over(self) -> None:
        """Ends a rest: there is something to be done at once."""
        self._over.set()

    def _breathe(self, loop: asyncio.AbstractEventLoop, rounds: int) -> None:
        if rounds:
            loop.call_soon(self._breathe, loop, rounds - 1)
            return
        rest_s, self._turned_away = min(REST_S, self._turned_away * EACH_S), 0
        self._over.wait(rest_s)
