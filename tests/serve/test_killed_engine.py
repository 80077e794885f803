"""`prismrank serve` outlives its engine: slates without the model until there is another one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from serve.bench.process import Server
from serve.bench.wire import encoded

RANKING = {"member_id": "m1", "k": 3, "deadline_ms": 5_000}


async def asked(server: Server, path: str, body: object) -> tuple[int, Any]:
    answer = await server.pool.ask(encoded("POST", path, body))
    return answer.status, json.loads(answer.body)


async def ranked(server: Server) -> tuple[int, bool, str | None]:
    status, told = await asked(server, "/v1/surfaces/movies/rank", RANKING)
    return status, told["degraded"], told.get("reason")


def test_an_engine_that_was_killed_is_started_anew(model: str, url: str, tmp_path: Path) -> None:
    async def main() -> None:
        server = Server(["serve", "--ledger", url, "--model", model, "--port", "0"], tmp_path / "log")
        try:
            await server.until_it_answers()
            assert await ranked(server) == (200, False, None)
            (engine,) = server.children()
            assert server.memory_mb() > 200, "of both"
            os.kill(engine, signal.SIGKILL)
            assert await ranked(server) == (200, True, "engine")
            status, told = await asked(server, "/v1/embeddings", {"input": "x", "model": "tiny"})
            assert (status, told["title"]) == (503, "Service Unavailable")
            end = time.monotonic() + 60
            while await ranked(server) != (200, False, None):
                assert time.monotonic() < end
                await asyncio.sleep(0.1)
            (other,) = server.children()
            assert other != engine
            server.send(signal.SIGINT)
            await server.ended()
            assert not Path(f"/proc/{other}").exists()
        finally:
            await server.stop()
        said = (tmp_path / "log").read_text("utf-8")
        assert "started anew" in said
        assert "m1" not in said

    asyncio.run(main())
