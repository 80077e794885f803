"""A way through threads: who goes on, what a deadline ends, and what is left when nobody waits any longer."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from serve.degraded import DegradedError
from serve.passage import Passage, done, gone, in_time
from serve.timing import clock


def soon() -> float:
    return clock() + 10


def test_it_goes_on_in_the_thread_that_has_done_the_work() -> None:
    def name() -> str:
        return threading.current_thread().name

    async def way(first: ThreadPoolExecutor, second: ThreadPoolExecutor) -> list[str]:
        told = [name()]
        told += [await done(first.submit(name)), name()]
        return [*told, await in_time(second.submit(name)), name()]

    with ThreadPoolExecutor(1, "first") as first, ThreadPoolExecutor(1, "second") as second:
        main, *others = asyncio.run(gone(way(first, second), soon()))
    assert main == name()
    assert others[::2] == ["first_0", "second_0"]
    assert set(others[1::2]) <= {"first_0", "second_0", main}, "or here, where it was done before it was waited for"


def test_errors_come_through() -> None:
    async def way(pool: ThreadPoolExecutor) -> int:
        try:
            await done(pool.submit(int, "x"))
        except ValueError:
            quotient, _ = await in_time(pool.submit(divmod, 1, 0))
            return quotient
        return 0

    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        asyncio.run(gone(way(pool), soon()))


def test_a_deadline_ends_what_is_waited_for_in_time() -> None:
    late, patient, closed = Future[int](), Future[str](), list[str]()

    async def way() -> tuple[str, str]:
        try:
            await in_time(late)
        except DegradedError as error:
            closed.append(threading.current_thread().name)
            return error.reason, await done(patient)
        return "", ""

    async def main() -> tuple[str, str]:
        asked = asyncio.create_task(gone(way(), clock() + 0.05))
        await asyncio.sleep(0.1)
        assert late.cancelled()
        assert not asked.done(), "a patient step is waited for beyond the deadline"
        patient.set_result("there")
        return await asked

    assert asyncio.run(main()) == ("deadline", "there")
    assert closed == [threading.current_thread().name]


def test_past_the_deadline_nothing_is_waited_for_in_time() -> None:
    patient, never = Future[int](), Future[int]()

    async def way() -> int:
        await done(patient)
        return await in_time(never)

    passage = Passage(way())
    passage.go()
    passage.hurry()
    assert not passage.ended.done()
    patient.set_result(1)
    with pytest.raises(DegradedError, match="deadline"):
        passage.ended.result(timeout=5)
    assert never.cancelled()


def test_work_that_runs_is_left_to_itself() -> None:
    """A thread that hangs keeps nobody past the deadline, and its answer is dropped."""
    gate = threading.Event()

    async def way(pool: ThreadPoolExecutor) -> str:
        try:
            await in_time(pool.submit(gate.wait, 10))
        except DegradedError as error:
            return error.reason
        return "in time"

    with ThreadPoolExecutor(1) as pool:
        assert asyncio.run(gone(way(pool), clock() + 0.05)) == "deadline"
        gate.set()


def test_who_leaves_takes_what_waits_along() -> None:
    waiting, ended = Future[int](), list[str]()

    async def way() -> None:
        try:
            await done(waiting)
            ended.append("went on")
        finally:
            ended.append("closed")

    async def main() -> None:
        asked = asyncio.create_task(gone(way(), soon()))
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(main())
    assert waiting.cancelled()
    assert ended == ["closed"]


def test_who_leaves_while_a_thread_goes_on_ends_the_way_at_its_next_step() -> None:
    before, behind, there, gate = Future[int](), Future[int](), threading.Event(), threading.Event()
    ended = list[str]()

    async def way() -> None:
        try:
            await done(before)
            there.set()
            gate.wait(10)
            await done(behind)
            ended.append("went on")
        finally:
            ended.append("closed")

    passage = Passage(way())
    passage.go()
    thread = threading.Thread(target=before.set_result, args=(1,))
    thread.start()
    there.wait(10)
    passage.leave()
    gate.set()
    thread.join()
    assert behind.cancelled()
    assert ended == ["closed"]


def test_only_one_goes_on() -> None:
    """The work is done, the deadline passes and the caller leaves, all at once, many times."""
    outcomes = list[str]()

    async def way(work: Future[str]) -> str:
        try:
            return await in_time(work)
        except DegradedError as error:
            return error.reason

    with ThreadPoolExecutor(3) as pool:
        for _ in range(500):
            work, barrier = Future[str](), threading.Barrier(3)
            passage = Passage(way(work))
            passage.go()

            def finish(work: Future[str] = work, barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                if work.set_running_or_notify_cancel():
                    work.set_result("done")

            def hurry(passage: Passage[str] = passage, barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                passage.hurry()

            tasks = [pool.submit(finish), pool.submit(hurry)]
            barrier.wait()
            outcomes.append(passage.ended.result(timeout=5))
            for task in tasks:
                task.result(timeout=5)
    assert set(outcomes) <= {"done", "deadline"}
    assert len(outcomes) == 500
