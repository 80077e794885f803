"""Where the time of one request goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from serve.schemas import Timing
from serve.traces import Traces

Part = Literal["retrieve", "compose", "queue", "score"]


class Stopwatch:
    """Adds up a request's parts, in seconds of the event loop's clock. It runs from the request's arrival.

    Each part is a span of the traces.
    """

    def __init__(self, arrived: float, traces: Traces) -> None:
        self.arrived, self.traces = arrived, traces
        self.parts: dict[Part, float] = {"retrieve": 0.0, "compose": 0.0, "queue": 0.0, "score": 0.0}

    @contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Times what happens inside, however it ends."""
        began = clock()
        try:
            with self.traces.part(name):
                yield
        finally:
            self.parts[name] += clock() - began

    def read(self) -> Timing:
        """The parts and the total, in milliseconds."""
        ms = {name: round(1000 * seconds, 3) for name, seconds in self.parts.items()}
        return Timing(**ms, total=round(1000 * (clock() - self.arrived), 3))


def clock() -> float:
    """Seconds of the event loop's clock. libuv's loop tells them as whole milliseconds, as they were when it woke."""
    return time.monotonic()
