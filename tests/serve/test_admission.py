"""Who gets the model, who a slate without it, and who is turned away."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from prompts.errors import CapacityError
from serve.admission import SAVED_S, Admission
from serve.doors import RANK
from serve.lag import Lag
from serve.protocol import TOLD_S
from serve.services import Services
from serve.workers import Workers
from tests.serve.conftest import Client, served
from tests.serve.hostile import first_reply, head


@asynccontextmanager
async def busy(count: int, each_s: float = 0.1) -> AsyncIterator[Workers]:
    """Workers that took so long for a piece of work lately, of which so many are under way now."""
    workers, gate = Workers("reading", threads=1, room=99), threading.Event()
    await workers.run(time.sleep, each_s)
    tasks = [asyncio.wrap_future(workers.put("a", gate.wait, 10)) for _ in range(count)]
    while workers.inside < count:
        await asyncio.sleep(0.001)
    workers.cost_s = 0.1
    try:
        yield workers
    finally:
        gate.set()
        await asyncio.gather(*tasks)


def decisions(waiting: int, room_s: float, share: float, *, model: bool, seconds: float = 0.0) -> list[str]:
    """What becomes of ten requests after each other, when so many pieces of work of 0.1 s are waited for."""

    async def main() -> list[str]:
        now = [0.0]
        async with busy(waiting) as workers:
            admission = Admission(workers, Lag(), share, clock=lambda: now[0])
            found, waits = list[str](), list[float]()
            for _ in range(10):
                now[0] += seconds
                try:
                    ticket = admission.let_in("a", room_s, model=model)
                except CapacityError as away:
                    found.append("away")
                    waits.append(away.wait_s)
                else:
                    ticket.use()
                    found.append("spared" if ticket.spared else "model")
            assert waits == [pytest.approx(0.1 * waiting, rel=0.3)] * found.count("away")
            return found

    return asyncio.run(main())


def test_without_a_wait_everybody_gets_the_model() -> None:
    assert decisions(2, 1.0, 0.0, model=True) == ["model"] * 10


def test_while_requests_wait_what_was_saved_up_goes_to_slates_without_the_model() -> None:
    saved = round(SAVED_S / 0.1)
    assert decisions(4, 1.0, 0.0, model=True) == ["spared"] * saved + ["away"] * (10 - saved)


def test_as_long_as_all_can_have_a_slate_they_get_one() -> None:
    """Three in a second, of 0.1 s each, take less than half of the time."""
    assert decisions(4, 1.0, 0.5, model=True, seconds=0.33) == ["spared"] * 10


def test_where_not_all_can_have_one_the_time_is_the_models() -> None:
    """Ten in a second take all of the time, and so they get next to none."""
    found = decisions(4, 1.0, 0.5, model=True, seconds=0.1)
    assert found[:5] == ["spared"] * 5, "what was saved up"
    assert found[-3:] == ["away"] * 3


def test_who_finds_no_room_at_all_is_among_those_who_want_a_slate() -> None:
    """Of thirty in a second three find room for a slate. The three would take less than half of the time."""

    async def main() -> list[bool]:
        now, spared = [0.0], list[bool]()
        async with busy(1) as workers:
            admission = Admission(workers, Lag(), 0.5, clock=lambda: now[0])
            for number in range(100):
                now[0] += 0.033
                workers._seconds = 0.6 if number % 10 else 0.4
                try:
                    ticket = admission.let_in("a", 1.0, model=True)
                except CapacityError:
                    spared.append(False)
                else:
                    ticket.use()
                    spared.append(ticket.spared)
        assert not any(each for number, each in enumerate(spared) if number % 10)
        return spared[::10]

    found = asyncio.run(main())
    assert found[:5] == [True] * 5, "what was saved up"
    assert found[-4:] == [False] * 4


def test_who_needs_no_model_has_all_the_time_there_is() -> None:
    assert decisions(6, 1.0, 0.0, model=False) == ["model"] * 10
    assert decisions(9, 1.0, 1.0, model=False) == ["away"] * 10


def test_a_longer_deadline_waits_longer() -> None:
    assert decisions(8, 10.0, 0.0, model=True) == ["model"] * 10


def test_who_is_on_the_way_is_counted_among_those_who_wait() -> None:
    async def main() -> None:
        async with busy(1) as workers:
            admission = Admission(workers, Lag(), 0.0)
            tickets = [admission.let_in("a", 0.9, model=True) for _ in range(4)]
            assert [ticket.spared for ticket in tickets] == [False, False, True, True]
            with pytest.raises(CapacityError):
                admission.let_in("a", 0.9, model=True)
            assert not admission.let_in("another", 1.0, model=True).spared, "each flow waits for its own"
            for ticket in (*tickets, *tickets):
                ticket.use()
            assert not admission.let_in("a", 0.9, model=True).spared

    asyncio.run(main())


@pytest.fixture
def full(services: Services) -> Iterator[Client]:
    """A server whose requests wait for their candidates longer than anybody may."""
    gate = threading.Event()
    with served(services) as client:
        client.until_ready()
        services.retrieval._seconds = 1.0
        for _ in range(8):
            services.retrieval.put("movies", gate.wait, 20)
        yield client
        gate.set()


def test_where_there_is_no_room_the_answer_is_503_before_the_body(
    full: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    body = b'{"member_id": "m1"}'
    asked = head("POST /v1/surfaces/movies/rank", f"Content-Length: {len(body)}")
    with socket.create_connection(("127.0.0.1", full.port), timeout=10) as connection:
        for _ in range(3):  # one connection serves on
            connection.sendall(asked)
            reply = first_reply(connection)
            assert (reply.status, reply.headers["content-type"]) == (503, "application/problem+json")
            assert reply.json["detail"] == "more is asked than this server can compute just now; try again in a moment"
            assert int(reply.headers["retry-after"]) >= 1
            assert len(reply.headers["x-request-id"]) == 32
            connection.sendall(body)
        connection.sendall(head("GET /livez"))
        assert first_reply(connection).status == 200
    assert full.ask("GET", "/v1/surfaces").status == 200
    counted = f'prismrank_http_requests_total{{method="POST",route="{RANK}",status="503"}} 3.0'
    assert counted in full.ask("GET", "/metrics").text
    end = time.monotonic() + 5 * TOLD_S
    while not (told := [vars(each)["fields"] for each in caplog.records if each.message == "turned away"]):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert [each["requests"] for each in told] == [3], json.dumps(told)


def test_who_is_turned_away_while_the_server_leaves_is_told_to_connect_anew(full: Client) -> None:
    full.services.leaving = True
    reply = full.rank(member_id="m1")
    assert (reply.status, reply.headers["connection"]) == (503, "close")
