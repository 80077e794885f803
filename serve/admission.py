"""Who gets the model, who a slate without it, and who is sent away, while more is asked than can be computed.

A slate without the model is cheap, but not free: many of them would take from the model the time in which it serves
those whom it still can. So while requests wait long, slates without it have a share of the computing, and no more.
"""

from __future__ import annotations

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

    `share` of the time goes to slates without the model while it has no time for more.
    """

    def __init__(self, retrieval: Workers, lag: Lag, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.retrieval, self.lag, self.share, self.clock = retrieval, lag, share, clock
        self._coming = Counter[str]()
        self._saved_s, self._at = SAVED_S, clock()

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
        if wait_s > (FULL if model else LAST) * room_s or (spared and not self._affords()):
            raise CapacityError("more is asked than this server can compute just now", wait_s)
        if spared:
            self._saved_s -= self.retrieval.cost_s
        return Ticket(self._coming, flow, spared=spared)

    def _affords(self) -> bool:
        """Whether there is time for one more slate without the model."""
        now = self.clock()
        self._saved_s = min(SAVED_S, self._saved_s + self.share * (now - self._at))
        self._at = now
        return self._saved_s >= self.retrieval.cost_s
