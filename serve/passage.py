"""A request's way through threads, without the event loop.

A ranking is passed on from those who look for candidates to those who write, to the engine, to those who judge. Were
the event loop told of each step, it would wake each time, and take the interpreter from whoever computes; and a next
step that is given a little late waits for another forward. So the way is a coroutine that goes on in the thread that
has just done what it waited for. It may await nothing but `done` and `in_time`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from threading import Lock
from typing import Any, Generic, TypeVar
from weakref import ref

from serve.degraded import DegradedError

T = TypeVar("T")


class _Step(Generic[T]):
    """Work elsewhere that a way waits for; `patient`: beyond its deadline, too."""

    def __init__(self, work: Future[T], *, patient: bool) -> None:
        self.work, self.patient = work, patient

    def __await__(self) -> Generator[_Step[T], None, T]:
        yield self
        return self.work.result()


Way = Coroutine[_Step[Any], None, T]


def done(work: Future[T]) -> _Step[T]:
    """What comes of `work`, whenever that is."""
    return _Step(work, patient=True)


def in_time(work: Future[T]) -> _Step[T]:
    """What comes of `work`. Raises DegradedError when that is not there by the deadline of the way."""
    return _Step(work, patient=False)


class Passage(Generic[T]):
    """A way that is being gone. `hurry` and `leave` may be called from any thread."""

    def __init__(self, way: Way[T]) -> None:
        self.ended: Future[T] = Future()
        self._way, self._context, self._lock = way, copy_context(), Lock()
        self._step: _Step[Any] | None = None
        self._late = self._left = False

    def go(self) -> None:
        """Begins, in this thread."""
        self._go(partial(self._way.send, None))

    def hurry(self) -> None:
        """The deadline has passed: what is waited for in time is waited for no longer."""
        with self._lock:
            self._late = True
            step = self._step
        if step is not None and not step.patient and self._claim(step):
            self._give_up(step)

    def leave(self) -> None:
        """Nobody waits for the end any longer."""
        with self._lock:
            self._left = True
            step = self._step
        if step is not None and self._claim(step):
            step.work.cancel()
            self._way.close()

    def _go(self, on: Callable[[], _Step[Any]]) -> None:
        """Goes on, up to the next step that is not done yet."""
        try:
            step = self._context.run(on)
        except StopIteration as end:
            with suppress(InvalidStateError):  # whoever waited has gone
                self.ended.set_result(end.value)
        except BaseException as error:
            with suppress(InvalidStateError):
                self.ended.set_exception(error)
        else:
            self._wait(step)

    def _wait(self, step: _Step[Any]) -> None:
        with self._lock:
            left, late = self._left, self._late and not step.patient
            if not left and not late:
                self._step = step
        if left:
            step.work.cancel()
            self._way.close()
        elif late:
            self._give_up(step)
        else:
            waits = ref(step)  # the work holds what hears of its end, which must not hold the work
            step.work.add_done_callback(lambda _: self._go_on(waits()))

    def _go_on(self, step: _Step[Any] | None) -> None:
        if step is not None and self._claim(step):
            self._go(partial(self._way.send, None))

    def _give_up(self, step: _Step[Any]) -> None:
        step.work.cancel()
        self._go(partial(self._way.throw, DegradedError("deadline")))

    def _claim(self, step: _Step[Any]) -> bool:
        """Whether it is the caller who goes on from this step: only one does."""
        with self._lock:
            if self._step is not step:
                return False
            self._step = None
            return True


async def gone(way: Way[T], deadline: float) -> T:
    """What a way comes to. It is told when its `deadline`, by the event loop's clock, has passed.

    A caller who goes away takes what waits off its queue.
    """
    passage = Passage(way)
    hurries = asyncio.get_running_loop().call_at(deadline, passage.hurry)
    passage.go()
    try:
        return await asyncio.wrap_future(passage.ended)
    except asyncio.CancelledError:
        passage.leave()
        raise
    finally:
        hurries.cancel()
