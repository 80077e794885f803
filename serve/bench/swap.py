"""`swap`: the model is exchanged under load, again and again."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

from prompts.errors import ConfigError
from serve.bench.load import Sample, closed_loop
from serve.bench.process import Server
from serve.bench.reading import Bound, Found, Row, percentile, statuses
from serve.bench.stage import PATIENT_MS, Stage
from serve.bench.wire import encoded

SWAPS = 100
CLIENTS = 8
STRETCH_S = 0.2
"""The load goes on in stretches of this length while the models change."""


async def swap(stage: Stage) -> Found:
    """Two copies of the model take turns; every reply must name one of them, or the one that served first."""
    rounds = stage.rounds(SWAPS)
    shelf = stage.asked.folder / "models"
    models = [_copy(stage, shelf, number) for number in range(2)]
    async with stage.fresh("--models", str(shelf)) as server:
        await stage.warm(server)
        before = json.loads((await server.pool.ask(encoded("GET", "/readyz"))).body)["model"]
        versions, took, done = set[str](), list[float](), asyncio.Event()
        asking = asyncio.create_task(_asked(stage, server, done))
        try:
            for number in range(rounds):
                stage.tell("swap", number, rounds)
                version, seconds = await _exchange(server, models[(number + 1) % 2])
                versions.add(version)
                took.append(seconds)
        finally:
            done.set()
            samples = await asking
    return _found(samples, {*versions, before}, took)


def _copy(stage: Stage, shelf: Path, number: int) -> str:
    """The name of a copy of the model that the server may change to."""
    folder = Path(stage.asked.model)
    return Path(shutil.copytree(folder, shelf / f"{folder.name}-{number}", dirs_exist_ok=True)).name


async def _exchange(server: Server, model: str) -> tuple[str, float]:
    """The version that serves now, and how long that took. Raises ConfigError where the model cannot be exchanged."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    answer = await server.pool.ask(encoded("PUT", "/v1/model", {"model": model}))
    if answer.status != 200:
        raise ConfigError(f"PUT /v1/model was answered with {answer.status}: {answer.body.decode()[:200]}")
    return str(json.loads(answer.body)["version"]), loop.time() - began


async def _asked(stage: Stage, server: Server, done: asyncio.Event) -> list[Sample]:
    """Rankings by clients that wait for their replies, until all is done."""
    requests, samples = stage.workload.rankings(deadline_ms=PATIENT_MS), list[Sample]()
    while not (samples and done.is_set()):
        samples += (await closed_loop(server.pool, requests, CLIENTS, STRETCH_S)).samples
    return samples


def _found(samples: list[Sample], versions: set[str], took: list[float]) -> Found:
    failed = sum(sample.status != 200 for sample in samples)
    unknown = sum(sample.status == 200 and sample.model not in versions for sample in samples)
    row: Row = {"swaps": len(took), "swap_p50_s": percentile(took, 0.5), "swap_max_s": max(took)}
    row |= {"requests": len(samples), "failed": failed, "unknown_model": unknown, "models": ", ".join(sorted(versions))}
    row |= {"degraded": sum(bool(sample.reason) for sample in samples), "statuses": statuses(samples)}
    bounds = [Bound("failed requests", failed, 0), Bound("replies that name none of the models", unknown, 0)]
    return Found("the model is exchanged under load", [row], bounds)
