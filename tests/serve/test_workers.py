"""Threads with a bound: what runs, what waits, what is refused."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from prompts.errors import CapacityError, LedgerError
from serve.lane import Lane
from serve.workers import LATELY_S, Workers


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


async def until_inside(workers: Workers, count: int) -> None:
    while workers.inside != count:
        await asyncio.sleep(0.001)


def test_work_runs_elsewhere_and_returns() -> None:
    workers = Workers("reading", threads=1, room=4)
    name = run(workers.run(lambda: threading.current_thread().name))
    assert name.startswith("reading")
    assert run(workers.run(divmod, 7, 2)) == (3, 1)
    assert run(workers.run(int, "11", base=2)) == 3
    assert workers.inside == 0


def test_errors_come_through() -> None:
    def fail() -> None:
        raise LedgerError("gone")

    workers = Workers("reading", threads=1, room=4)
    with pytest.raises(LedgerError, match="gone"):
        run(workers.run(fail))
    assert workers.inside == 0


def test_past_its_room_work_is_refused(gate: threading.Event) -> None:
    workers = Workers("reading", threads=1, room=2)

    async def main() -> None:
        waiting = [asyncio.create_task(workers.run(gate.wait, 10)) for _ in range(2)]
        await until_inside(workers, 2)
        with pytest.raises(CapacityError, match="reading"):
            await workers.run(gate.wait)
        gate.set()
        assert await asyncio.gather(*waiting) == [True, True]
        assert await workers.run(lambda: "room again") == "room again"

    run(main())


def test_work_that_nobody_waits_for_makes_room(gate: threading.Event) -> None:
    workers = Workers("reading", threads=1, room=8)
    ran: list[int] = []

    async def main() -> None:
        first = asyncio.create_task(workers.run(gate.wait, 10))
        others = [asyncio.create_task(workers.run(ran.append, n)) for n in range(5)]
        await until_inside(workers, 6)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        assert workers.inside == 1, "what waited has left at once"
        gate.set()
        await first
        await until_inside(workers, 0)

    run(main())
    assert ran == []


def test_it_expects_what_it_learned(gate: threading.Event) -> None:
    workers = Workers("reading", threads=2, room=99)
    assert workers.expects() == 0.0

    async def main() -> None:
        await workers.run(threading.Event().wait, 0.1)
        assert workers.expects() == 0.0, "there is a thread that is free"
        tasks = [asyncio.create_task(workers.run(gate.wait, 10)) for _ in range(5)]
        await until_inside(workers, 5)
        assert 0.1 <= 0.5 * workers.expects() <= 0.2, "4 more turns of 0.1 s on 2 threads"
        gate.set()
        await asyncio.gather(*tasks)

    run(main())


def test_closed_it_refuses() -> None:
    workers = Workers("reading", threads=1, room=4)
    workers.close()
    with pytest.raises(CapacityError, match="closed"):
        run(workers.run(int))
    assert workers.inside == 0


def test_flows_have_their_turns(gate: threading.Event) -> None:
    """Four of one flow came before two of another: the second flow's first is next but one."""
    workers = Workers("reading", threads=1, room=99)
    ran: list[str] = []

    async def main() -> None:
        first = asyncio.wrap_future(workers.put("flood", gate.wait, 10))
        await until_inside(workers, 1)
        tasks = []
        for name in ("flood 1", "flood 2", "flood 3", "other 1", "other 2"):
            tasks.append(asyncio.wrap_future(workers.put(name.split()[0], ran.append, name)))
            await until_inside(workers, 1 + len(tasks))
        gate.set()
        await asyncio.gather(first, *tasks)

    run(main())
    assert ran == ["other 1", "flood 1", "other 2", "flood 2", "flood 3"], "the flood had the first turn of all"


def test_who_asks_for_little_is_next(gate: threading.Event) -> None:
    """A flood has had four turns in the meantime: who comes now has as many before it has the next."""
    workers, ran = Workers("reading", threads=1, room=99), list[str]()

    def note(name: str) -> None:
        ran.append(name)
        if name == "flood 3":
            workers.put("other", note, "other 1")
            workers.put("other", note, "other 2")
            workers.put("other", note, "other 3")

    async def main() -> None:
        waiting = [workers.put("flood", gate.wait, 10)]
        waiting += [workers.put("flood", note, f"flood {number}") for number in range(1, 7)]
        gate.set()
        await asyncio.gather(*map(asyncio.wrap_future, waiting))

    run(main())
    assert ran[:7] == ["flood 1", "flood 2", "flood 3", "other 1", "other 2", "other 3", "flood 4"]


def test_turns_of_long_ago_count_no_more(gate: threading.Event) -> None:
    workers, ran = Workers("reading", threads=1, room=99), list[str]()

    async def main() -> None:
        await asyncio.gather(*(asyncio.wrap_future(workers.put("old", time.sleep, 0.0)) for _ in range(20)))
        await asyncio.sleep(20 * LATELY_S)
        waiting = [asyncio.wrap_future(workers.put("new", gate.wait, 10))]
        await until_inside(workers, 1)
        names = ("new", "old", "old", "old")
        waiting += [asyncio.wrap_future(workers.put(name, ran.append, name)) for name in names]
        gate.set()
        await asyncio.gather(*waiting)

    run(main())
    assert ran == ["old", "new", "old", "old"]


def test_where_it_is_full_the_flood_makes_room(gate: threading.Event) -> None:
    workers = Workers("reading", threads=1, room=5)

    async def main() -> None:
        flood = [asyncio.wrap_future(workers.put("flood", gate.wait, 10)) for _ in range(5)]
        await until_inside(workers, 5)
        with pytest.raises(CapacityError, match="reading"):
            workers.put("flood", gate.wait)
        other = asyncio.wrap_future(workers.put("other", str, 7))
        with pytest.raises(CapacityError, match="reading"):
            await flood[-1]
        assert workers.inside == 5
        gate.set()
        assert await other == "7"
        assert await asyncio.gather(*flood[:-1]) == [True] * 4

    run(main())
    assert workers.inside == 0


def test_a_flow_waits_for_its_own_turns_alone(gate: threading.Event) -> None:
    workers = Workers("reading", threads=1, room=99)

    async def main() -> None:
        await workers.run(threading.Event().wait, 0.1)
        running, *waiting = [workers.put("flood", gate.wait, 10) for _ in range(11)]
        while not running.running():
            await asyncio.sleep(0.001)
        assert workers.expects("flood") == pytest.approx(1.1, rel=0.3)
        assert workers.expects("other") == pytest.approx(0.2, rel=0.3), "what runs, and one of the flood's"
        gate.set()
        await asyncio.gather(*map(asyncio.wrap_future, [running, *waiting]))

    run(main())


def test_who_asks_for_little_comes_before_what_others_have_begun() -> None:
    lane, ran = Lane(), list[str]()
    gathering = Workers("gathering", threads=2, room=99, lane=lane)
    writing = Workers("writing", threads=1, room=99, lane=lane, patience_s=-1000.0)

    async def main() -> None:
        for _ in range(9):
            await asyncio.wrap_future(gathering.put("flood", str, 7))
        lane.acquire()
        waiting = [writing.put("flood", ran.append, "written")]
        waiting += [gathering.put("flood", ran.append, f"flood {number}") for number in range(4)]
        waiting += [gathering.put("little", ran.append, "little")]
        lane.release()
        await asyncio.gather(*map(asyncio.wrap_future, waiting))

    run(main())
    assert ran == ["little", "written", "flood 0", "flood 1", "flood 2", "flood 3"]
