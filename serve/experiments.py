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
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager

from prompts.errors import LedgerError
from serve.schemas import Experiment, RankedItem
from serve.shortlist import Shortlist
from surfaces.ledger.exposures import Exposure, Placement, row_of
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
        self._in_hand = 0
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
                self._changed.notify_all()

    def forget(self, member_id: str) -> None:
        """Drops what waits of a member, and waits a few seconds for what is being written."""
        with self._changed:
            self._waiting = deque(exposure for exposure in self._waiting if exposure.member_id != member_id)
            self._changed.wait_for(lambda: not self._in_hand, LAST_S)

    def start(self) -> None:
        """Begins to write."""
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="exposures", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Writes what waits, within a few seconds, and ends."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(LAST_S)
            if self._thread.is_alive():
                left = len(self._waiting) + self._in_hand
                logger.warning("the ledger is slow: %d exposures may not be written", left)

    def _work(self) -> None:
        while batch := self._take():
            fit = list(self._fit(batch))
            try:
                self.ledger.add_exposures(fit)
            except Exception:  # whatever is wrong with the ledger, later slates may still be written
                logger.exception("%d exposures could not be written", len(fit))
                self._drop(len(fit))
            else:
                self.written += len(fit)
            with self._changed:
                self._in_hand = 0
                self._changed.notify_all()

    def _fit(self, batch: Iterable[Exposure]) -> Iterator[Exposure]:
        """Those that a ledger can hold: one that cannot be written takes no other with it."""
        for exposure in batch:
            try:
                row_of(exposure)
            except LedgerError:
                logger.exception("an exposure could not be written")
                self._drop(1)
            else:
                yield exposure

    def _drop(self, number: int) -> None:
        with self._changed:
            self.dropped += number

    def _take(self) -> list[Exposure]:
        """Some that wait; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._in_hand = min(AT_ONCE, len(self._waiting))
            return [self._waiting.popleft() for _ in range(self._in_hand)]


class Traffic:
    """Counts the ways of requests by surface and route, and logs what experiments show."""

    def __init__(self, ledger: Ledger) -> None:
        self.routed: Counter[tuple[str, str]] = Counter()
        self.log = ExposureLog(ledger)
        self._lock = threading.Lock()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Writes exposures until it is left."""
        self.log.start()
        try:
            yield
        finally:
            await asyncio.to_thread(self.log.close)

    def record(self, surface: str, shortlist: Shortlist, slate: Sequence[RankedItem], *, degraded: bool) -> None:
        """A request was answered with this slate. May be called from any thread."""
        way = shortlist.way
        with self._lock:
            self.routed[surface, way.route or INTERLEAVED] += 1
        if way.experiment is not None:
            places = [Placement(entry.item_id, entry.rank - 1, entry.team, entry.propensity) for entry in slate]
            name, kind, visit = way.experiment.name, way.experiment.kind, shortlist.visit
            about = (uuid.uuid4().hex, visit.member_id, surface, name, kind, way.arm, degraded, visit.now)
            self.log.put(Exposure(*about, slate=places))
