"""Threads for blocking work, with a bound on how much of it may wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import ParamSpec, TypeVar

from prompts.errors import CapacityError

P = ParamSpec("P")
T = TypeVar("T")

MEMORY = 0.9
"""How much of what is known of the time that work takes is kept when one more was done."""


class Workers:
    """A few threads under one name. `room` bounds what runs and waits together."""

    def __init__(self, name: str, *, threads: int, room: int) -> None:
        self.name, self.threads, self.room = name, threads, room
        self.inside = 0
        self._seconds = 0.0
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns or raises. Raises CapacityError when there is no room.

        Work that its caller no longer waits for is taken off the queue, or runs to its end unheard.
        """
        with self._lock:
            if self.inside >= self.room:
                raise CapacityError(f"too much work waits for {self.name}")
            self.inside += 1
        try:
            future = self._pool.submit(self._timed, partial(work, *args, **kwargs))
        except RuntimeError as error:
            self._leave()
            raise CapacityError(f"{self.name} is closed") from error
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def expects(self) -> float:
        """Seconds that work given now would wait for its turn, by what work took lately."""
        return max(0, self.inside + 1 - self.threads) / self.threads * self._seconds

    def close(self) -> None:
        """Takes no more work, and drops what waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _timed(self, work: Callable[[], T]) -> T:
        began = time.monotonic()
        try:
            return work()
        finally:
            took = time.monotonic() - began
            with self._lock:
                self._seconds = MEMORY * self._seconds + (1 - MEMORY) * took if self._seconds else took

    def _leave(self, _: Future[T] | None = None) -> None:
        with self._lock:
            self.inside -= 1
