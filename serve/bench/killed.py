"""`killed`: the engine's process is killed under load, and so is each that takes its place; all still get a slate."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import replace

from serve.bench.load import Load, Sample, arrivals, open_loop
from serve.bench.process import Server
from serve.bench.reading import Bound, Found, Row, degraded, read, statuses
from serve.bench.stage import Stage

REQUESTS = 5_000
"""So many come after the engine has failed, where no time is given."""
HEALTHY_S = 5.0
ALLOWED = 0.999
LOOK_S = 0.1
"""So often it is looked for another process: it has not read its model by then."""


async def killed(stage: Stage) -> Found:
    """Arrivals at the server's capacity, for candidates that its sources retrieve; soon there is no engine any longer.

    A request counts as answered when it got a degraded slate within the deadline, seen from here.
    """
    deadline_s = stage.workload.deadline_s
    async with stage.fresh() as server:
        await stage.warm(server)
        rate = await stage.capacity_of(server, candidates=0)
        seconds = stage.asked.seconds or REQUESTS * 1.05 / rate
        healthy = min(HEALTHY_S, seconds)
        stage.tell("the engine is killed", 0, 1)
        due = arrivals(rate, healthy + seconds)
        load, kills = await asyncio.gather(
            open_loop(server.pool, stage.workload.rankings(0), due, healthy + seconds), _kill(server, healthy, seconds)
        )
    after = Load(seconds, [_since(sample, healthy) for sample in load.samples if sample.due > healthy])
    answered = [each for each in after.samples if each.status == 200 and each.reason and each.took <= deadline_s]
    share = len(answered) / max(1, len(after.samples))
    row: Row = {
        "after": "the engine was killed",
        **read(after, deadline_s),
        **degraded(after),
        "statuses": statuses(after.samples),
    }
    row |= {"answered_in_time": share, "processes_killed": kills}
    bound = Bound("share answered in time by the fallback", share, ALLOWED, at_least=True)
    return Found(f"an engine that is killed at {rate:.1f} rankings a second", [row], [bound])


async def _kill(server: Server, after_s: float, for_s: float) -> int:
    """Kills the server's processes but itself, and those that come; says how many that were."""
    await asyncio.sleep(after_s)
    loop, killed = asyncio.get_running_loop(), set[int]()
    end = loop.time() + for_s
    while loop.time() < end:
        for number in set(server.children()) - killed:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
            killed.add(number)
        await asyncio.sleep(LOOK_S)
    return len(killed)


def _since(sample: Sample, began: float) -> Sample:
    """The sample with times that count from later."""
    return replace(sample, due=sample.due - began, sent=sample.sent - began, done=sample.done - began)
