"""Who gets the model, who a slate without it, and who is sent away, while more is asked than can be computed.

A slate without the model is cheap, but not free: it takes from the model time in which others would be served. As long
as everybody can have a slate, everybody gets one. Where that would take more than a share of the computing, and many
have to be sent away whatever is done, the time goes to the model, but for a little.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable

from prompts.errors import CapacityError
from serve.lag import Lag
from serve.workers import Workers

QUIET_S = 0.05
"""Waits up to this are those of a server that is not busy."""
BUSY, FULL, LAST = 0.25, 0.5, 0.8
"""Parts of the time up to the deadline. A wait for candidates beyond the first leaves none for the model; beyond the
second there is no room, or beyond the third where nothing else is waited for."""
LEAST = 0.01
"""The share of slates without the model where not everybody can have one."""
LATELY_S = 1.0
"""Over so long a time it is looked at how many want one."""
SAVED_S = 0.5
"""So much computing for slates without the model may be saved up in quiet times: a short rush sends nobody away."""


class Ticket:
    """Lets one request in; `spared`: without the model. It is on its way to its candidates until it is `used`."""

    def __init__(self, coming: Counter[str], flow: str, *, spared: bool) -> None:
        self._coming, self._flow, self.spared = coming, flow, spared
        coming[flow] += 1

    def use(self) -> None:
        """Says that the request waits for its candidates now, or comes no longer. May be said again."""
        if self._flow:
            self._coming[self._flow] -= 1
            self._flow = ""


class Admission:
    """Decides by how long requests wait for their candidates. Times are in seconds. For the event loop's thread.

    Up to `share` of the time goes to slates without the model while it has no time for more.
    """

    def __init__(self, retrieval: Workers, lag: Lag, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.retrieval, self.lag, self.share, self.clock = retrieval, lag, share, clock
        self._coming = Counter[str]()
        self._saved_s, self._at, self._wanted = SAVED_S, clock(), 0.0

    def wait(self, flow: str) -> float:
        """Seconds until a request that comes now has its candidates, by what they took lately; 0 for hardly any."""
        wait_s = self.retrieval.expects(flow, self._coming[flow]) + self.lag.seconds
        return wait_s if wait_s > QUIET_S else 0.0

    def let_in(self, flow: str, room_s: float, *, model: bool) -> Ticket:
        """Lets in a request that has `room_s` up to its deadline. Raises CapacityError, which says for how long not.

        `model`: the model is what it asks for, and it is there.
        """
        wait_s = self.wait(flow)
        spared = model and wait_s > BUSY * room_s
        affords = not spared or self._affords()  # who finds no room at all wants such a slate, too
        if wait_s > (FULL if model else LAST) * room_s or not affords:
            raise CapacityError("more is asked than this server can compute just now", wait_s)
        if spared:
            self._saved_s -= self.retrieval.cost_s
        return Ticket(self._coming, flow, spared=spared)

    def _affords(self) -> bool:
        """Whether there is time for a slate without the model, one more of which is wanted."""
        now, cost_s = self.clock(), self.retrieval.cost_s
        passed, self._at = now - self._at, now
        self._wanted = self._wanted * math.exp(-passed / LATELY_S) + 1
        share = self.share if self._wanted / LATELY_S * cost_s <= self.share else min(LEAST, self.share)
        self._saved_s = min(SAVED_S, self._saved_s + share * passed)
        return self._saved_s >= cost_s
