"""One after the other: work that computes in Python has its turn.

Python runs one thread at a time. Threads that compute beside each other do not get more done, they take the interpreter
from each other: a forward of the engine, which gives it away at every product, then takes four times as long. Passing
the turn from thread to thread costs time, too, so what is handed in here as a job is done by whichever thread has
just ended another.
"""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

LIMIT_S = 0.1
"""So long a turn is waited for: an engine that is slow, or hangs, is in nobody's way."""
IDLE_S = 5.0
"""A thread without a job for so long ends."""

Job = Callable[[], None]
"""Work for the lane's own threads. It raises nothing."""


class _Waits(NamedTuple):
    """Who waits: in the order of `at`; with no job it is a thread, which hears of its turn by an event."""

    at: float
    number: int
    since: float
    job: Job | None
    turn: threading.Event | None


class Lane:
    """Held by one at a time. Whoever waits is let in by when they came, as if it were `patience_s` later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = self._closed = False
        self._waiting: list[_Waits] = []
        self._handed: deque[Job] = deque()
        self._resting: list[threading.Event] = []
        self._watcher: threading.Event | None = None
        self._order = count()

    def acquire(self, patience_s: float = 0.0) -> bool:
        """Waits for the turn; False where it does not come, and the work is done beside whoever has it."""
        with self._lock:
            if not self._busy:
                self._busy = True
                return True
            turn = threading.Event()
            waits = self._push(patience_s, None, turn)
        if turn.wait(LIMIT_S):
            return True
        with self._lock:
            if turn.is_set():  # just now
                return True
            self._take(waits.number)
            return False

    def hasten(self) -> None:
        """Lets a thread that waits in next, as if it had come first."""
        with self._lock:
            self._waiting = [each if each.turn is None else each._replace(at=-math.inf) for each in self._waiting]
            heapq.heapify(self._waiting)

    def release(self) -> None:
        """Lets the next one in. May be called from another thread than `acquire`."""
        if job := self._pass_on():
            with self._lock:
                self._hand(job)

    def submit(self, job: Job, patience_s: float = 0.0) -> None:
        """Has a job done in its turn, by a thread of the lane's own; beside the others where its turn does not come."""
        with self._lock:
            if not self._busy:
                self._busy = True
                self._hand(job)
                return
            self._push(patience_s, job, None)
            if self._watcher is None:
                self._call()

    def close(self) -> None:
        """Lets its threads go; what is handed in later has new ones."""
        with self._lock:
            self._closed = True
            for called in (*self._resting, *([self._watcher] if self._watcher else [])):
                called.set()
            self._resting.clear()

    def _push(self, patience_s: float, job: Job | None, turn: threading.Event | None) -> _Waits:
        now = time.monotonic()
        waits = _Waits(now + patience_s, next(self._order), now, job, turn)
        heapq.heappush(self._waiting, waits)
        return waits

    def _take(self, number: int) -> None:
        self._waiting = [each for each in self._waiting if each.number != number]
        heapq.heapify(self._waiting)

    def _pass_on(self) -> Job | None:
        """Ends a turn. The next one's job, for the caller to do in the lane; None: it is a thread's, or nobody's."""
        with self._lock:
            if not self._waiting:
                self._busy = False
                return None
            following = heapq.heappop(self._waiting)
            if following.turn is not None:
                following.turn.set()
            return following.job

    def _hand(self, job: Job) -> None:
        """Gives a job, with the lane, to a thread that rests."""
        self._handed.append(job)
        self._call()

    def _call(self) -> None:
        """Wakes the thread that has rested shortest, or begins one."""
        self._closed = False
        if self._resting:
            self._resting.pop().set()
        else:
            threading.Thread(target=self._work, name="lane", daemon=True).start()

    def _work(self) -> None:
        while found := self._next():
            job, mine = found
            job()
            while mine and (following := self._pass_on()):
                following()

    def _next(self) -> tuple[Job, bool] | None:
        """A job to do, and whether the lane comes with it; None where there was none for long."""
        while True:
            with self._lock:
                found, first = self._found(), self._first()
                if found:
                    if first and self._watcher is None:
                        self._call()
                    return found
                if self._closed:
                    return None
                watches, called = first is not None and self._watcher is None, threading.Event()
                if watches:
                    self._watcher = called
                else:
                    self._resting.append(called)
            called.wait(first.since + LIMIT_S - time.monotonic() if first and watches else IDLE_S)
            with self._lock:
                if watches:
                    self._watcher = None
                elif called in self._resting:  # nobody called
                    self._resting.remove(called)
                    return None

    def _found(self) -> tuple[Job, bool] | None:
        """A job that was handed over with the lane, or one that has waited for too long."""
        if self._handed:
            return self._handed.popleft(), True
        first = self._first()
        if first is None or first.job is None or first.since + LIMIT_S > time.monotonic():
            return None
        self._take(first.number)
        return first.job, False

    def _first(self) -> _Waits | None:
        """The job that has waited longest."""
        return min((waits for waits in self._waiting if waits.job), key=lambda waits: waits.since, default=None)
