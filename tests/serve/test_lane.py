"""Whose turn it is."""

from __future__ import annotations

import asyncio
import threading
import time

from serve.lag import Lag
from serve.lane import LIMIT_S, Lane


def test_one_at_a_time_in_the_order_of_coming() -> None:
    lane, ran, inside = Lane(), list[str](), list[int]()

    def work(name: str, patience_s: float) -> None:
        with lane.held(patience_s):
            inside.append(1)
            ran.append(name)
            assert len(inside) == 1
            inside.pop()

    lane.acquire()
    threads = []
    for name, patience_s in (("patient", 10.0), ("first", 0.0), ("second", 0.0), ("urgent", -10.0)):
        threads.append(threading.Thread(target=work, args=(name, patience_s)))
        threads[-1].start()
        while len(lane._waiting) < len(threads):
            time.sleep(0.001)
    lane.release()
    for thread in threads:
        thread.join()
    assert ran == ["urgent", "first", "second", "patient"]
    lane.acquire()
    lane.release()


def test_a_failure_ends_its_turn() -> None:
    lane = Lane()
    try:
        with lane.held():
            raise RuntimeError
    except RuntimeError:
        pass
    with lane.held():
        pass


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
    with lane.held():
        assert LIMIT_S <= time.monotonic() - began < LIMIT_S + 1
    assert not lane.acquire()
    lane.release()
    assert lane.acquire(), "whoever went on without a turn has taken none"
