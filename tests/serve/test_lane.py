"""Whose turn it is."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial

from serve.lag import Lag
from serve.lane import LIMIT_S, Lane

ORDER = {"patient": 10.0, "first": 0.0, "second": 0.0, "urgent": -10.0}


def until(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.001)


def test_one_at_a_time_in_the_order_of_coming() -> None:
    """Threads that wait for their turn, and jobs that are handed in, in one order."""
    lane, ran = Lane(), list[str]()

    def work(name: str, patience_s: float) -> None:
        mine = lane.acquire(patience_s)
        ran.append(name)
        if mine:
            lane.release()

    lane.acquire()
    threads = [threading.Thread(target=work, args=each) for each in ORDER.items()]
    for count, (thread, (name, patience_s)) in enumerate(zip(threads, ORDER.items(), strict=True)):
        thread.start()
        until(lambda count=count: len(lane._waiting) == 2 * count + 1)  # type: ignore[misc]
        lane.submit(partial(ran.append, f"the job, {name}"), patience_s)
    lane.release()
    for thread in threads:
        thread.join()
    until(lambda: len(ran) == 8)
    assert ran == [f"{job}{name}" for name in ("urgent", "first", "second", "patient") for job in ("", "the job, ")]
    until(lambda: not lane._busy)


def test_a_thread_in_haste_is_next() -> None:
    lane, ran = Lane(), list[str]()

    def patient() -> None:
        lane.acquire(10.0)
        ran.append("patient")
        lane.release()

    lane.acquire()
    lane.submit(partial(ran.append, "urgent"), -10.0)
    thread = threading.Thread(target=patient)
    thread.start()
    until(lambda: len(lane._waiting) == 2)
    lane.hasten()
    lane.release()
    thread.join()
    until(lambda: len(ran) == 2)
    assert ran == ["patient", "urgent"]


def test_jobs_that_follow_each_other_are_done_by_one_thread() -> None:
    lane, threads, inside = Lane(), list[int](), list[int]()

    def job() -> None:
        inside.append(1)
        threads.append(threading.get_ident())
        assert len(inside) == 1
        inside.pop()

    lane.acquire()
    for _ in range(50):
        lane.submit(job)
    lane.release()
    until(lambda: len(threads) == 50)
    assert len(set(threads)) == 1


def test_jobs_are_not_held_up_by_what_hangs() -> None:
    """Behind a job that hangs each waits for a moment, and is done beside it; so do those that come later."""
    lane, gate, done = Lane(), threading.Event(), list[float]()
    began = time.monotonic()

    def hang() -> None:
        gate.wait(10)

    for _ in range(3):
        lane.submit(hang)
    for _ in range(5):
        lane.submit(lambda: done.append(time.monotonic()))
    until(lambda: len(done) == 5)
    assert all(LIMIT_S <= at - began < LIMIT_S + 2 for at in done)
    lane.submit(lambda: done.append(0.0))
    until(lambda: len(done) == 6)
    gate.set()
    until(lambda: not lane._busy)
    assert lane.acquire(), "whoever went on without a turn has given none back"


def test_its_threads_end_when_it_is_closed() -> None:
    lane, ran = Lane(), list[str]()
    before = threading.active_count()
    lane.submit(partial(ran.append, "one"))
    until(lambda: len(ran) == 1 and not lane._busy)
    lane.close()
    until(lambda: threading.active_count() == before)
    lane.submit(partial(ran.append, "another"))
    until(lambda: len(ran) == 2)
    lane.close()


def test_the_lag_is_what_the_loop_was_held_up() -> None:
    async def main() -> tuple[float, float]:
        lag = Lag()
        async with lag.running():
            await asyncio.sleep(0.05)
            calm = lag.seconds
            for _ in range(12):
                time.sleep(0.1)  # holds the loop up
                await asyncio.sleep(0)
            return calm, lag.seconds

    calm, busy = asyncio.run(main())
    assert calm < 0.05 < busy


def test_a_turn_that_does_not_come_is_not_waited_for() -> None:
    """An engine that hangs in its turn is in nobody's way for longer than a moment."""
    lane = Lane()
    lane.acquire()
    began = time.monotonic()
    assert not lane.acquire()
    assert LIMIT_S <= time.monotonic() - began < LIMIT_S + 1
    lane.release()
    assert lane.acquire(), "whoever went on without a turn has taken none"
