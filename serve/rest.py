"""The event loop's rest while many requests are turned away: those who compute have the interpreter meanwhile."""

from __future__ import annotations

import asyncio
import threading

REST_S = 0.008
"""So long the loop rests at most after requests were turned away: each time that it wakes, it takes the interpreter."""
ROUNDS = 3
"""So many times everything that is ready has its turn before: a request begins, and a reply goes out, in that."""


class Rest:
    """What comes while the loop rests is read together, after it. `over` may be called from any thread."""

    def __init__(self) -> None:
        self._coming, self._over = False, threading.Event()

    def soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Lets the loop rest, after what is under way on it."""
        if not self._coming:
            self._coming = True
            self._over.clear()
            loop.call_soon(self._breathe, loop, ROUNDS)

    def over(self) -> None:
        """Ends a rest: there is something to be done at once."""
        self._over.set()

    def _breathe(self, loop: asyncio.AbstractEventLoop, rounds: int) -> None:
        if rounds:
            loop.call_soon(self._breathe, loop, rounds - 1)
            return
        self._coming = False
        self._over.wait(REST_S)
