"""Threads for blocking work, with a bound on how much of it may wait.

Work waits in flows, one a surface, which share the turns: the one is next that had least of them lately. Who asks for
little does not wait, though it asks for several at once, and a flood is its own surface's trouble.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, ParamSpec, TypeVar
from weakref import ref

from prompts.errors import CapacityError
from serve.lane import Lane
from serve.shares import Shares

P = ParamSpec("P")
T = TypeVar("T")

LATELY_S = 0.1
"""Turns that flows had are remembered for about so long."""
LEAST = 0.01
"""Of a turn: less than that is forgotten."""
MEMORY = 0.9
"""How much of what is known of the time that work takes is kept when one more was done."""
PRESSING_S = 10_000.0
"""So much sooner than it came the work of those who ask for little has its turn in a lane: before all other."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class _Job:
    """Work in a flow, and what comes of it."""

    flow: str
    work: Callable[[], Any]
    future: Future[Any]


class Workers:
    """A few threads under one name. `room` bounds what runs and waits together.

    Work that computes is done by the threads of a `lane`, as much at once as there would be threads here; less
    `patience_s` lets it in before other work there. `cost_s`: seconds of a processor that a piece of work took lately.
    """

    def __init__(
        self, name: str, *, threads: int, room: int, lane: Lane | None = None, patience_s: float = 0.0
    ) -> None:
        self.name, self.threads, self.room, self.lane, self.patience_s = name, threads, room, lane, patience_s
        self.inside = 0
        self.cost_s = 0.0
        self._seconds = 0.0
        self._flows: dict[str, dict[_Job, None]] = {}
        self._lock = Lock()
        self._had = Shares(LEAST)
        self._at = 0.0
        self._turns, self._closed = 0, False
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)  # begins none before it is used

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns or raises. Raises CapacityError when there is no room; see `put`."""
        return await asyncio.wrap_future(self.put("", work, *args, **kwargs))

    def put(self, flow: str, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """What `work` will return or raise, in the turn of its flow. May be called from any thread.

        Raises CapacityError where there is no room, and so may the future: where others have more than their share of
        it, the last of theirs that waits makes room. Cancelled work is taken off the queue, or runs to its end unheard.
        """
        if self._closed:
            raise CapacityError(f"{self.name} is closed")
        job = _Job(flow, partial(work, *args, **kwargs), Future())
        pressing = self._enter(job)
        job.future.add_done_callback(partial(self._leave, ref(job)))  # else they hold each other
        self._begin(pressing=pressing)
        return job.future

    def expects(self, flow: str = "", more: int = 0) -> float:
        """Seconds that work given now, behind so many `more` of its flow, would wait for its turn, as lately."""
        with self._lock:
            waiting = {name: len(jobs) for name, jobs in self._flows.items()}
            running = self.inside - sum(waiting.values())
        own = waiting.pop(flow, 0) + more
        ahead = running + own + sum(min(count, own + 1) for count in waiting.values())
        return max(0, ahead + 1 - self.threads) / self.threads * self._seconds

    def close(self) -> None:
        """Takes no more work, and drops what waits."""
        self._closed = True
        self._pool.shutdown(wait=False)
        with self._lock:
            waiting = [job for jobs in self._flows.values() for job in jobs]
        for job in waiting:
            job.future.cancel()

    def _enter(self, job: _Job) -> bool:
        """Puts a job into its flow; says whether that asks for little. Raises CapacityError where there is no room."""
        giving = None
        with self._lock:
            if self.inside >= self.room:
                giving = self._who_gives(job.flow)
                self._off(giving)
            self.inside += 1
            self._flows.setdefault(job.flow, {})[job] = None
            pressing = self._had.asks_little(job.flow)
        if giving is not None:
            with suppress(InvalidStateError):  # its caller has just gone
                giving.future.set_exception(CapacityError(f"too much work waits for {self.name}"))
        return pressing

    def _who_gives(self, flow: str) -> _Job:
        """The last job of the longest flow. Raises CapacityError where that is about as short as this one."""
        longest = max(self._flows, key=lambda name: len(self._flows[name]), default=flow)
        if longest == flow or len(self._flows[longest]) <= len(self._flows.get(flow, ())) + 1:
            raise CapacityError(f"too much work waits for {self.name}")
        return next(reversed(self._flows[longest]))

    def _leave(self, left: ref[_Job], _: Future[Any]) -> None:
        """A job is done, or nobody waits for it any longer."""
        with self._lock:
            self.inside -= 1
            if job := left():
                self._off(job)

    def _off(self, job: _Job) -> None:
        jobs = self._flows.get(job.flow, {})
        jobs.pop(job, None)  # or its turn had come
        if not jobs:
            self._flows.pop(job.flow, None)

    def _take(self) -> _Job | None:
        """The job whose turn it is, the first one of its flow."""
        with self._lock:
            if not self._flows:
                return None
            flow = min(self._flows, key=self._had.of)
            job = next(iter(self._flows[flow]))
            self._off(job)
            before, self._at = self._at, time.monotonic()
            self._had.fade(math.exp((before - self._at) / LATELY_S))
            self._had.add(flow, 1)
            return job

    def _begin(self, *, pressing: bool = False) -> None:
        """Asks for a turn, where more work waits than turns that are to come, or the lane shall have it soon."""
        pressing = pressing and self.lane is not None
        with self._lock:
            if self._closed or (self._turns >= min(self.threads, self.inside) and not pressing):
                return
            self._turns += 1
        if self.lane is None:
            self._pool.submit(self._turn, time.monotonic())
        else:
            sooner_s = PRESSING_S if pressing else 0.0
            self.lane.submit(partial(self._turn, time.monotonic()), self.patience_s - sooner_s)

    def _turn(self, since: float) -> None:
        """Does the work whose turn it is; it waited for the turn `since` then."""
        job = self._take()
        if job is not None and job.future.set_running_or_notify_cancel():
            self._do(job, since)
        with self._lock:
            self._turns -= 1
            more = bool(self._flows)
        if more:
            self._begin()

    def _do(self, job: _Job, since: float) -> None:
        computed = time.thread_time()
        try:
            told = partial(job.future.set_result, job.work())
        except BaseException as error:
            told = partial(job.future.set_exception, error)
        self._learn(time.monotonic() - since, time.thread_time() - computed)
        told()

    def _learn(self, took: float, cost_s: float) -> None:
        with self._lock:
            self._seconds = MEMORY * self._seconds + (1 - MEMORY) * took if self._seconds else took
            self.cost_s = MEMORY * self.cost_s + (1 - MEMORY) * cost_s if self.cost_s else cost_s
