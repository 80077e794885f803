"""`killed`: the engine fails under load and never comes back; everybody still gets a slate."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from serve.bench.failing import BREAK
from serve.bench.load import Load, Sample, arrivals, open_loop
from serve.bench.reading import Bound, Found, Row, degraded, parsed, read, statuses
from serve.bench.stage import Stage

REQUESTS = 5_000
"""So many come after the engine has failed, where no time is given."""
HEALTHY_S = 5.0
ALLOWED = 0.999


async def killed(stage: Stage) -> Found:
    """Arrivals at the server's capacity, for candidates that its sources retrieve; soon every forward fails.

    A request counts as answered when it got a degraded slate within the deadline, seen from here.
    """
    file, deadline_s = stage.asked.folder / "broken", stage.workload.deadline_s
    async with stage.fresh(module="serve.bench.failing", environment={BREAK: str(file)}) as server:
        await stage.warm(server)
        rate = await stage.capacity_of(server, candidates=0)
        seconds = stage.asked.seconds or REQUESTS * 1.05 / rate
        healthy = min(HEALTHY_S, seconds)
        stage.tell("the engine fails", 0, 1)
        due = arrivals(rate, healthy + seconds)
        load, _ = await asyncio.gather(
            open_loop(server.pool, stage.workload.rankings(0), due, healthy + seconds), _break(file, healthy)
        )
        failed = parsed(await server.metrics()).get("prismrank_forwards_failed_total", 0.0)
    after = Load(seconds, [_since(sample, healthy) for sample in load.samples if sample.due > healthy])
    answered = [each for each in after.samples if each.status == 200 and each.reason and each.took <= deadline_s]
    share = len(answered) / max(1, len(after.samples))
    row: Row = {
        "after": "the engine failed",
        **read(after, deadline_s),
        **degraded(after),
        "statuses": statuses(after.samples),
    }
    row |= {"answered_in_time": share, "forwards_failed": failed}
    bound = Bound("share answered in time by the fallback", share, ALLOWED, at_least=True)
    return Found(f"an engine that fails at {rate:.1f} rankings a second", [row], [bound])


async def _break(file: Path, after_s: float) -> None:
    await asyncio.sleep(after_s)
    file.touch()


def _since(sample: Sample, began: float) -> Sample:
    """The sample with times that count from later."""
    return replace(sample, due=sample.due - began, sent=sample.sent - began, done=sample.done - began)
