"""`soak`: everything at once for a long while, the good and the bad; memory and file descriptors must not grow."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from serve.bench.load import NONE, Sample, arrivals, one
from serve.bench.process import Server
from serve.bench.reading import Bound, Found, Row, percentile, slope
from serve.bench.stage import Stage, Workload
from serve.bench.wire import NoAnswerError, Pool, encoded

SECONDS = 600.0
LOAD = 0.5
"""In multiples of the capacity; a request of the mix is worth about one ranking."""
CACHE_MB = 64
"""Of trunks: so little that the cache is full before memory is looked at."""
LOOKS = 200
"""So often memory is read."""
FIRST = 0.2
"""This share of the time is not looked at: there, caches fill."""
ALLOWED_MB = 1.0
"""Growth a minute."""
ALLOWED_FILES = 4
QUIET_S = 1.0
"""So soon a server has closed what its clients have."""
MIX = {
    "rank": 0.60, "batch": 0.08, "events": 0.15, "preview": 0.05, "bad body": 0.04, "unknown member": 0.03,
    "leaves": 0.05,
}  # fmt: skip
"""Shares of the requests, by their kind; one that `leaves` does not wait for its reply."""
EXPECTED = {"bad body": (400, 422), "unknown member": (404,)}
"""Statuses, where they are not 200; any kind may get 503, which says that there is no room."""
TOGETHER = 4
"""Rankings in a batch, and events in a write."""


class Look(NamedTuple):
    """A moment: minutes since the beginning, megabytes resident, files open (connections apart)."""

    minutes: float
    memory_mb: float
    files: int


async def soak(stage: Stage) -> Found:
    """A mix of requests at about half the capacity, and what the process holds from time to time."""
    seconds = stage.seconds(SECONDS)
    async with stage.fresh("--cache-mb", str(CACHE_MB)) as server:
        await stage.warm(server)
        rate = LOAD * await stage.capacity_of(server)
        kinds = drawn(len(due := arrivals(rate, seconds)))
        bodies = {kind: _bodies(stage.workload, kind) for kind in MIX}
        stage.tell("soaking", 0, 1)
        before = await _sockets(server)
        mixed = _mixed(server.pool, [(kind, next(bodies[kind])) for kind in kinds], due)
        samples, looks = await asyncio.gather(mixed, _looked(stage, server, seconds))
        left = await _sockets(server) - before
    later = [look for look in looks if look.minutes * 60 >= FIRST * seconds]
    growth = slope([look.minutes for look in later], [look.memory_mb for look in later])
    first, last = later[0], later[-1]
    row: Row = {"growth_mb_per_min": growth, "first_mb": first.memory_mb, "last_mb": last.memory_mb}
    row |= {"first_files": first.files, "last_files": last.files, "connections_left": left}
    row |= _row(kinds, samples, seconds)
    bounds = [
        Bound("memory grown, MB a minute", growth, ALLOWED_MB),
        Bound("files more than before", last.files - first.files, ALLOWED_FILES),
        Bound("connections left", left, 0),
        Bound("unexpected replies", float(row["unexpected"]), 0),
    ]
    return Found(f"mixed requests for {seconds:g} s, a cache of {CACHE_MB} MB", [row], bounds)


def drawn(count: int) -> list[str]:
    """So many kinds of requests, as the mix has them."""
    return random.Random(0).choices(list(MIX), weights=list(MIX.values()), k=count)


def _bodies(workload: Workload, kind: str) -> Iterator[bytes]:
    """Requests of a kind, without end."""
    rng, number = random.Random(kind), 0
    at = f"/v1/surfaces/{workload.surface}"
    while True:
        number += 1
        ranking = workload.ranking(rng, workload.candidates, None, number)
        if kind == "batch":
            several = [workload.ranking(rng, workload.candidates, None, number + more) for more in range(TOGETHER)]
            yield encoded("POST", f"{at}/rank:batch", {"requests": several})
        elif kind == "events":
            yield encoded("POST", "/v1/events", {"events": [workload.event(rng) for _ in range(TOGETHER)]})
        elif kind == "preview":
            yield encoded("POST", f"{at}/preview", ranking)
        elif kind == "bad body":
            yield encoded("POST", f"{at}/rank", rng.choice([b"{", b'{"k": NaN}', b"[]", b'{"member_id": 7}']))
        else:
            changed = {"member_id": f"nobody-{number}"} if kind == "unknown member" else {}
            yield encoded("POST", f"{at}/rank", {**ranking, **changed})


async def _mixed(pool: Pool, requests: Sequence[tuple[str, bytes]], due: Sequence[float]) -> list[Sample]:
    """Sends each when it is due."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    asked = list[asyncio.Task[Sample]]()
    for (kind, request), at in zip(requests, due, strict=True):
        await asyncio.sleep(max(0.0, began + at - loop.time()))
        sends = _leaves(pool, request, at) if kind == "leaves" else one(pool, request, began, at)
        asked.append(asyncio.create_task(sends))
    return await asyncio.gather(*asked)


async def _leaves(pool: Pool, request: bytes, due: float) -> Sample:
    try:
        await pool.leave(request)
    except NoAnswerError:
        return Sample(due, due, due, NONE)
    return Sample(due, due, due, 200)


async def _looked(stage: Stage, server: Server, seconds: float) -> list[Look]:
    loop = asyncio.get_running_loop()
    began, looks = loop.time(), list[Look]()
    for number in range(LOOKS + 1):
        await asyncio.sleep(max(0.0, began + number * seconds / LOOKS - loop.time()))
        looks.append(Look((loop.time() - began) / 60, server.memory_mb(), server.files_open().files))
        stage.tell("soaking", number, LOOKS)
    return looks


async def _sockets(server: Server) -> int:
    """How many it holds when every connection of ours has ended."""
    server.pool.close()
    await asyncio.sleep(QUIET_S)
    return server.files_open().sockets


def _row(kinds: Sequence[str], samples: Sequence[Sample], seconds: float) -> Row:
    pairs = list(zip(kinds, samples, strict=True))
    wrong = Counter((kind, each.status) for kind, each in pairs if not _expected(kind, each.status))
    took = [1000 * each.took for kind, each in pairs if kind == "rank"]
    told = ", ".join(f"{kind} {status or 'none'}: {count}" for (kind, status), count in sorted(wrong.items()))
    ranked = [each for kind, each in pairs if kind == "rank" and each.status == 200]
    return {
        "requests": len(samples),
        "requests_per_s": len(samples) / seconds,
        "p99_ms": percentile(took, 0.99),
        "degraded": sum(bool(each.reason) for each in ranked) / max(1, len(ranked)),
        "unexpected": wrong.total(),
        "unexpected_told": told or "nothing",
    }


def _expected(kind: str, status: int) -> bool:
    return status in (*EXPECTED.get(kind, (200,)), 503)
