"""Threads for blocking work, with a bound on how much of it may wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore
from typing import ParamSpec, TypeVar

from prompts.errors import CapacityError

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """A few threads under one name. `room` bounds what runs and waits together."""

    def __init__(self, name: str, *, threads: int, room: int) -> None:
        self.name = name
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)
        self._room = Semaphore(room)

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns or raises. Raises CapacityError when there is no room.

        Work that its caller no longer waits for is taken off the queue, or runs to its end unheard.
        """
        if not self._room.acquire(blocking=False):
            raise CapacityError(f"too much work waits for {self.name}")
        try:
            future = self._threads.submit(work, *args, **kwargs)
        except BaseException:
            self._room.release()
            raise
        future.add_done_callback(lambda _: self._room.release())
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Takes no more work, and drops what waits."""
        self._threads.shutdown(wait=False, cancel_futures=True)
