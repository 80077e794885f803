"""`curve` and `overload`: what comes back as more is asked than there is room for."""

from __future__ import annotations

from collections.abc import Sequence

from serve.bench.load import Load, arrivals, open_loop
from serve.bench.process import Server
from serve.bench.reading import WAY_S, Bound, Found, Row, between, degraded, errors, parsed, read, statuses
from serve.bench.stage import Stage

LOADS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0)
"""Offered, in multiples of the capacity."""
AROUND = (0.75, 1.0, 1.5)
"""Loads among which goodput has its peak."""
SEEN_S = 10.0
"""How long goodput is looked at for its peak, at each load."""
CURVE_S, OVERLOAD_S = 56.0, 120.0
FLOOD = 5.0
GROWTH_MB = 100.0


async def curve(stage: Stage) -> Found:
    """Rates, times, batches, cache and degraded slates against the offered load; arrivals wait for nobody."""
    seconds = stage.seconds(CURVE_S) / len(LOADS)
    rows = await _rows(stage, LOADS, seconds)
    return Found(f"offered load, {await _about(stage)}", rows)


async def overload(stage: Stage) -> Found:
    """Five times the capacity for a while: goodput against its peak, the slowest replies, statuses, memory.

    The peak is looked for before and after it, for a machine has quicker and slower minutes: the highest mean of both.
    """
    seconds = stage.seconds(OVERLOAD_S)
    early = await _rows(stage, AROUND, min(SEEN_S, seconds))
    server, rate = await stage.server(), FLOOD * await stage.capacity()
    before = server.memory_mb()
    stage.tell("overload", 0, 1)
    load = await offered(stage, server, rate, seconds)
    deadline_s = stage.workload.deadline_s
    row: Row = {"load": FLOOD, **read(load, deadline_s), **degraded(load), "statuses": statuses(load.samples)}
    row["grown_mb"] = server.memory_mb() - before
    late = await _rows(stage, AROUND, min(SEEN_S, seconds))
    pairs = zip(early, late, strict=True)
    peak = max(0.5 * sum(float(each["goodput_per_s"]) for each in pair) for pair in pairs)
    row["goodput_of_peak"] = float(row["goodput_per_s"]) / max(peak, 1e-9)
    bounds = [
        Bound("goodput, share of its peak", float(row["goodput_of_peak"]), 0.9, at_least=True),
        Bound("p99 of all replies, ms", float(row["p99_ms"]), 1000 * (deadline_s + WAY_S)),
        Bound("requests without a reply, or with 5xx but 503", errors(load), 0),
        Bound("memory grown, MB", float(row["grown_mb"]), GROWTH_MB),
    ]
    title = f"{FLOOD:g} times the capacity for {seconds:g} s, {await _about(stage)}"
    return Found(title, [*early, row, *late], bounds)


async def _about(stage: Stage) -> str:
    return f"{stage.workload.candidates} candidates, warm trunks (1 = {await stage.capacity():.1f}/s)"


async def _rows(stage: Stage, loads: Sequence[float], seconds: float) -> list[Row]:
    server, capacity = await stage.server(), await stage.capacity()
    rows = list[Row]()
    for number, load in enumerate(loads):
        stage.tell("offered load", number, len(loads))
        before = parsed(await server.metrics())
        found = await offered(stage, server, load * capacity, seconds, seed=number)
        told = between(before, parsed(await server.metrics()))
        rows.append({"load": load, **read(found, stage.workload.deadline_s), **degraded(found), **told})
    return rows


async def offered(stage: Stage, server: Server, rate: float, seconds: float, seed: int = 0) -> Load:
    """So many rankings a second, under the surface's own deadline."""
    due = arrivals(rate, seconds, seed)
    return await open_loop(server.pool, stage.workload.rankings(), due, seconds)
