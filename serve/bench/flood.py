"""`flood`: what a flood on one surface does to the callers of another."""

from __future__ import annotations

import asyncio

from serve.bench.load import Load, arrivals, open_loop
from serve.bench.process import Server
from serve.bench.reading import Bound, Found, Row, between, degraded, parsed, read
from serve.bench.stage import COPY, Stage

SECONDS = 36.0
LIGHT = 0.25
"""The load on the surface that is looked at, in multiples of the capacity."""
FLOODS = {"alone": 0.0, "beside 10 times its load": 10 * LIGHT, "beside 10 times the capacity": 10.0}
"""The load on the other one."""
BATCHES = 2
"""So many batches longer the slowest may take beside the first of the floods."""


async def flood(stage: Stage) -> Found:
    """A surface under a light load, alone and beside a flood on its copy; both ask for the same kind of ranking."""
    server, capacity = await stage.server(), await stage.capacity()
    seconds = stage.seconds(SECONDS) / len(FLOODS)
    rows = list[Row]()
    for number, (name, load) in enumerate(FLOODS.items()):
        stage.tell("flood", number, len(FLOODS))
        before = parsed(await server.metrics())
        light, other = await _beside(stage, server, LIGHT * capacity, load * capacity, seconds)
        told = between(before, parsed(await server.metrics()))
        deadline_s = stage.workload.deadline_s
        row: Row = {"flood": name, **read(light, deadline_s), **degraded(light), **told}
        rows.append({**row, "flood_requests": len(other.samples), "flood_degraded": degraded(other)["degraded"]})
    alone, *beside = rows
    bounds = [
        Bound(
            f"p99 {row['flood']}, ms", float(row["p99_ms"]), float(alone["p99_ms"]) + BATCHES * float(row["batch_ms"])
        )
        for row in beside
    ]
    return Found(f"a surface at {LIGHT:g} of the capacity", rows, bounds)


async def _beside(stage: Stage, server: Server, light: float, other: float, seconds: float) -> tuple[Load, Load]:
    """The loads of both surfaces at once."""
    asked = [
        (arrivals(rate, seconds, seed) if rate else [], stage.workload.rankings(on=name))
        for seed, (rate, name) in enumerate([(light, ""), (other, COPY)])
    ]
    loads = (open_loop(server.pool, requests, due, seconds) for due, requests in asked)
    first, second = await asyncio.gather(*loads)
    return first, second
