"""Load on a server: arrivals that wait for nobody (open loop), or clients that wait for their replies (closed loop).

In an open loop a request's time counts from when it was meant to be sent, whenever it was: a generator that waits for a
slow server would not see how slow it is (coordinated omission, G. Tene, "How NOT to Measure Latency", 2013).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from serve.bench.wire import Answer, NoAnswerError, Pool

NONE = 0
"""The status of a request that got no reply."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. Times are seconds from the load's beginning: meant to be sent, sent, and answered.

    `status` is `NONE` without a reply; `reason` is why its slate is degraded, if it is; `model` made the slate.
    """

    due: float
    sent: float
    done: float
    status: int
    reason: str = ""
    model: str = ""

    @property
    def took(self) -> float:
        """Seconds from when it was meant to be sent to its reply."""
        return self.done - self.due

    @property
    def good(self) -> bool:
        """Whether the model ranked it."""
        return self.status == 200 and not self.reason


@dataclass(frozen=True, slots=True)
class Load:
    """The requests of a stretch of `seconds`, in the order in which they were meant to be sent."""

    seconds: float
    samples: Sequence[Sample]


def arrivals(rate: float, seconds: float, seed: int = 0) -> list[float]:
    """When the requests of a Poisson process of `rate` a second are due, within so many seconds; at least one is."""
    rng, at = random.Random(seed), 0.0
    due = list[float]()
    while (at := at + rng.expovariate(rate)) < seconds:
        due.append(at)
    return due or [0.0]


async def open_loop(pool: Pool, requests: Iterator[bytes], due: Sequence[float], seconds: float) -> Load:
    """Sends a request whenever one is due, and waits for all the replies in the end."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    asked = list[asyncio.Task[Sample]]()
    for at in due:
        await asyncio.sleep(max(0.0, began + at - loop.time()))
        asked.append(asyncio.create_task(one(pool, next(requests), began, at)))
    samples = await asyncio.gather(*asked)
    await asyncio.sleep(max(0.0, began + seconds - loop.time()))
    return Load(seconds, samples)


async def closed_loop(pool: Pool, requests: Iterator[bytes], clients: int, seconds: float) -> Load:
    """So many clients, each of which sends its next request when it has its reply."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    samples = list[Sample]()

    async def client() -> None:
        while (now := loop.time() - began) < seconds:
            samples.append(await one(pool, next(requests), began, now))
            if samples[-1].status == NONE:
                await asyncio.sleep(0.05)

    await asyncio.gather(*(client() for _ in range(clients)))
    return Load(seconds, sorted(samples, key=lambda sample: sample.due))


async def one(pool: Pool, request: bytes, began: float, due: float) -> Sample:
    """One request, and what came of it."""
    loop = asyncio.get_running_loop()
    sent = loop.time() - began
    try:
        answer = await pool.ask(request)
    except NoAnswerError:
        return Sample(due, sent, loop.time() - began, NONE)
    return sample_of(answer, due, sent, loop.time() - began)


def sample_of(answer: Answer, due: float, sent: float, done: float) -> Sample:
    """What a reply says."""
    told = json.loads(answer.body) if answer.status == 200 and answer.body.startswith(b'{"surface"') else {}
    return Sample(due, sent, done, answer.status, told.get("reason") or "", told.get("model", ""))
