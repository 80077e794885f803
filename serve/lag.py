"""How late the event loop is: so long a request has waited before anybody looks at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from serve.timing import clock

EVERY_S = 0.02
MEMORY = 0.8


class Lag:
    """A decayed mean of how much later than due a timer of the loop goes off. Use it inside `running()`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Measures until it is left."""
        task = asyncio.create_task(self._measure(), name="lag")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _measure(self) -> None:
        while True:
            due = clock() + EVERY_S
            await asyncio.sleep(EVERY_S)
            self.seconds = MEMORY * self.seconds + (1 - MEMORY) * max(0.0, clock() - due)
