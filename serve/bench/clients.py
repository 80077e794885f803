"""`clients`: what company brings, sixteen clients against one, and batches against one tree at a time."""

from __future__ import annotations

from collections import defaultdict
from statistics import median

from serve.bench.load import closed_loop
from serve.bench.process import Server
from serve.bench.reading import Bound, Found, Row, between, parsed, read
from serve.bench.stage import ALONE, CLIENTS, PATIENT_MS, Stage

SECONDS, ROUNDS = 54.0, 3
FEW, MANY = 5, 100
"""Candidates of a ranking."""
WAYS = (("one client", 1, ""), ("sixteen clients", CLIENTS, ""), ("sixteen, no batching", CLIENTS, ALONE))
"""Name, clients, settings."""
ALLOWED = {FEW: (1.5, 1.3), MANY: (0.95, 0.95)}
"""What sixteen clients bring at least over one, and batching over none."""


async def clients(stage: Stage) -> Found:
    """Medians of rounds in which the ways take turns."""
    servers = {settings: await stage.server(settings) for _, _, settings in WAYS}
    rounds = stage.rounds(ROUNDS)
    turns = [(candidates, way) for candidates in ALLOWED for way in WAYS]
    seconds = stage.seconds(SECONDS) / rounds / len(turns)
    found: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for number in range(rounds):
        for place, (candidates, (name, count, settings)) in enumerate(turns):
            stage.tell("clients", number * len(turns) + place, rounds * len(turns))
            row = await _turn(stage, servers[settings], candidates, count, seconds)
            found[candidates, name].append(row)
    rows = [_median(candidates, name, each) for (candidates, name), each in found.items()]
    return Found("clients that wait for their replies, warm trunks", rows, _bounds(rows))


async def _turn(stage: Stage, server: Server, candidates: int, count: int, seconds: float) -> Row:
    before = parsed(await server.metrics())
    load = await closed_loop(server.pool, stage.workload.rankings(candidates, PATIENT_MS), count, seconds)
    return {**read(load, PATIENT_MS / 1000), **between(before, parsed(await server.metrics()))}


def _median(candidates: int, name: str, rows: list[Row]) -> Row:
    names = ("replies_per_s", "p50_ms", "p99_ms", "batch_trees", "batch_ms", "cache_hit")
    return {"candidates": candidates, "way": name, **{key: median(float(row[key]) for row in rows) for key in names}}


def _bounds(rows: list[Row]) -> list[Bound]:
    rates = {(row["candidates"], row["way"]): float(row["replies_per_s"]) for row in rows}
    bounds = []
    for candidates, (company, batching) in ALLOWED.items():
        one, sixteen, alone = (max(rates[candidates, name], 1e-9) for name, _, _ in WAYS)
        told = f"{candidates} candidates"
        bounds.append(Bound(f"sixteen clients over one, {told}", sixteen / one, company, at_least=True))
        bounds.append(Bound(f"batching over none, {told}", sixteen / alone, batching, at_least=True))
    return bounds
