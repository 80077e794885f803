"""What went which way, and what experiments showed: counted, and written to the ledger beside the requests.

No reply waits for the ledger, or fails with it. One thread writes; what comes faster than it writes is dropped, and
counted.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from serve.schemas import Experiment, RankedItem
from serve.shortlist import Shortlist
from surfaces.ledger.exposures import Exposure, Placement
from surfaces.ledger.store import Ledger
from surfaces.routing import Way

logger = logging.getLogger(__name__)

ROOM = 10_000
"""Slates that may wait to be written."""
AT_ONCE = 256
"""Slates that are written in one transaction."""
LAST_S = 5.0
"""How long the end waits for what is not written yet."""

INTERLEAVED = "interleaved"
"""What slates are counted as that two ways share."""


def experiment_of(way: Way) -> Experiment | None:
    """What a reply tells of the experiment."""
    running = way.experiment
    return Experiment(name=running.name, kind=running.kind, arm=way.arm) if running else None


class ExposureLog:
    """Slates on their way to the ledger. `put` may be called from any thread, and never waits."""

    def __init__(self, ledger: Ledger, room: int = ROOM) -> None:
        self.ledger, self.room = ledger, room
        self.written = self.dropped = 0
        self._waiting: deque[Exposure] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def put(self, exposure: Exposure) -> None:
        """Takes the exposure, or drops it where too many wait, or the end has come."""
        with self._changed:
            if self._closed or len(self._waiting) >= self.room:
                self.dropped += 1
            else:
                self._waiting.append(exposure)
                self._changed.notify()

    def start(self) -> None:
        """Begins to write."""
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="exposures", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Writes what waits, within a few seconds, and ends."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(LAST_S)
            if self._thread.is_alive():
                logger.warning("the ledger is slow: %d exposures or more are not written", len(self._waiting))

    def _work(self) -> None:
        while batch := self._take():
            try:
                self.ledger.add_exposures(batch)
            except Exception:  # whatever is wrong with the ledger, later slates may still be written
                logger.exception("exposures could not be written together")
                self._one_by_one(batch)
            else:
                self.written += len(batch)

    def _one_by_one(self, batch: Sequence[Exposure]) -> None:
        """Writes those of a batch that can be; one that cannot takes no other with it."""
        for exposure in batch:
            try:
                self.ledger.add_exposures([exposure])
                self.written += 1
            except Exception:
                logger.exception("an exposure could not be written")
                with self._changed:
                    self.dropped += 1

    def _take(self) -> list[Exposure]:
        """Some that wait; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]


class Traffic:
    """Counts the ways of requests by surface and route, and logs what experiments show."""

    def __init__(self, ledger: Ledger) -> None:
        self.routed: Counter[tuple[str, str]] = Counter()
        self.log = ExposureLog(ledger)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Writes exposures until it is left."""
        self.log.start()
        try:
            yield
        finally:
            await asyncio.to_thread(self.log.close)

    def record(self, surface: str, shortlist: Shortlist, slate: Sequence[RankedItem], *, degraded: bool) -> None:
        """A request was answered with this slate."""
        way = shortlist.way
        self.routed[surface, way.route or INTERLEAVED] += 1
        if way.experiment is not None:
            places = [Placement(entry.item_id, entry.rank - 1, entry.team, entry.propensity) for entry in slate]
            name, kind, visit = way.experiment.name, way.experiment.kind, shortlist.visit
            about = (uuid.uuid4().hex, visit.member_id, surface, name, kind, way.arm, degraded, visit.now)
            self.log.put(Exposure(*about, slate=places))
