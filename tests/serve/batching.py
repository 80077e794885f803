"""What tests of the batcher share: a batcher that runs, and waiting for what it does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from serve.batcher import Batcher, Scored
from serve.degraded import DegradedError


def run(batcher: Batcher, work: Callable[[Batcher], Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        with batcher.running():
            result = await work(batcher)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, "a task was left behind"
        return result

    return asyncio.run(main())


async def reason_of(work: Awaitable[Scored]) -> str:
    with pytest.raises(DegradedError) as caught:
        await work
    return caught.value.reason


def now() -> float:
    return asyncio.get_running_loop().time()


async def until(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    end = now() + limit_s
    while not condition():
        assert now() < end, "it never came to be"
        await asyncio.sleep(0.001)
