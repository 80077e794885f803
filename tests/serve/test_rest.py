"""The event loop rests while many are turned away, and a reply ends the rest."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve import rest
from serve.rest import ROUNDS, Rest
from serve.services import Services
from tests.serve.conftest import Controlled, served

LONG = 20_000
ENDLESS_S = 600.0


@pytest.fixture(autouse=True)
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sleeps longer than until somebody calls."""
    monkeypatch.setattr(rest, "REST_S", ENDLESS_S)
    monkeypatch.setattr(rest, "EACH_S", ENDLESS_S)


def test_what_is_under_way_comes_first_and_a_call_ends_the_rest() -> None:
    resting, done = Rest(), list[int]()

    async def main() -> None:
        resting.soon(asyncio.get_running_loop())
        resting.soon(asyncio.get_running_loop())  # they share a rest
        for step in range(ROUNDS):
            done.append(step)
            await asyncio.sleep(0)
        threading.Timer(0.05, resting.over).start()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert done == list(range(ROUNDS))


def test_who_is_called_before_does_not_rest_at_all() -> None:
    resting = Rest()

    async def main() -> None:
        resting.soon(asyncio.get_running_loop())
        resting.over()
        for _ in range(2 * ROUNDS):
            await asyncio.sleep(0)

    asyncio.run(main())


def test_the_loop_rests_longer_the_more_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "EACH_S", 0.05)
    resting, rested = Rest(), list[float]()

    async def main() -> None:
        for count in (1, 4):
            for _ in range(count):
                resting.soon(asyncio.get_running_loop())
            began = time.monotonic()
            for _ in range(2 * ROUNDS):
                await asyncio.sleep(0)
            rested.append(time.monotonic() - began)

    asyncio.run(main())
    assert rested[0] >= 0.05, "and it ended by itself, long before the most that there is"
    assert rested[1] >= 4 * 0.05


def test_a_reply_goes_out_while_others_are_turned_away(services: Services, engine: Controlled) -> None:
    gate, end = threading.Event(), time.monotonic() + 20
    with served(services) as client, ThreadPoolExecutor(1) as pool:
        client.until_ready()
        engine.gate.clear()
        under_way = pool.submit(client.rank, member_id="m1", k=3, deadline_ms=LONG)
        while services.batcher.waiting or not services.batcher._forward:
            assert time.monotonic() < end
            time.sleep(0.005)
        services.retrieval._seconds = 1.0
        for _ in range(8):
            services.retrieval.put("movies", gate.wait, 20)
        threading.Timer(0.2, engine.gate.set).start()
        try:
            assert client.rank(member_id="m2").status == 503
            assert not under_way.result().json["degraded"]
        finally:
            gate.set()
            services.rest.over()
