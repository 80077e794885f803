"""Never empty-handed: a slate in time, whatever the engine does."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from prompts.tree import PromptTree
from serve.batcher import Batcher, Limits
from serve.services import Services
from surfaces.visit import Visit
from tests.serve.conftest import Client, Controlled, Reply, served

LONG = 20_000


def assert_degraded(reply: Reply, reason: str) -> None:
    assert reply.status == 200, reply.json
    assert (reply.json["degraded"], reply.json["reason"]) == (True, reason)
    assert reply.json["slate"], "never empty-handed"
    for place, entry in enumerate(reply.json["slate"], 1):
        assert (entry["rank"], entry["utility"], entry["heads"]) == (place, None, {})
        assert entry["sources"]


def timed(ask: Callable[[], Reply]) -> tuple[Reply, float]:
    began = time.monotonic()
    return ask(), time.monotonic() - began


def eventually(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.005)


def test_an_impossible_deadline_gets_the_retrieval_order(client: Client, services: Services) -> None:
    reply = client.rank(member_id="m1", k=20, deadline_ms=1)
    assert_degraded(reply, "deadline")
    surface = services.surface("movies")
    visit = Visit(services.ledger.timeline("m1"), "m1", lookup=services.ledger.items)
    first = surface.spec.fallback.order[0]
    brought = surface.retrieval.gather(visit)
    by_first = sorted((c.sources[first], c.item_id) for c in brought if first in c.sources)
    assert reply.item_ids[: len(by_first)] == [item_id for _, item_id in by_first][:20]


def test_the_fallback_has_the_same_candidates_as_the_model(client: Client) -> None:
    ranked = client.rank(member_id="m1", k=1000, deadline_ms=LONG)
    fallen = client.rank(member_id="m1", k=1000, deadline_ms=1)
    assert set(ranked.item_ids) == set(fallen.item_ids)
    assert_degraded(fallen, "deadline")


def test_given_candidates_fall_back_in_the_order_of_the_sources(client: Client) -> None:
    names = [f"f{n}" for n in range(20)]
    reply = client.rank(
        member_id="m1", candidates=["f39", *names, {"item_id": "x", "title": "New"}], k=30, deadline_ms=1
    )
    assert_degraded(reply, "deadline")
    assert set(reply.item_ids) == {"f39", *names, "x"}
    assert reply.item_ids[-1] == "x", "what no source knows comes last"
    assert all(entry["sources"] == ["request"] for entry in reply.json["slate"])


def test_a_slow_engine_is_left_at_the_deadline(client: Client, engine: Controlled) -> None:
    engine.delay_s = 1.0
    reply, took = timed(lambda: client.rank(member_id="m1", deadline_ms=250))
    assert_degraded(reply, "deadline")
    assert 0.25 <= took < 0.33
    assert 250 <= reply.json["timing_ms"]["total"] < 330
    assert reply.json["timing_ms"]["queue"] > 100


def test_while_the_engine_is_busy_a_caller_is_answered_by_its_deadline(client: Client, engine: Controlled) -> None:
    engine.gate.clear()  # one forward that does not end
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(client.rank, member_id="m0", deadline_ms=LONG)
        eventually(lambda: len(engine.batches) > 1)
        for ms in (100, 200, 400):
            reply, took = timed(lambda ms=ms: client.rank(member_id="m1", deadline_ms=ms))
            assert_degraded(reply, "deadline")
            assert took < ms / 1000 + 0.05
        engine.gate.set()
        assert not busy.result().json["degraded"]


def test_when_it_is_clear_that_the_engine_is_late_nobody_waits_for_the_deadline(
    client: Client, engine: Controlled
) -> None:
    engine.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(client.rank, member_id="m0", deadline_ms=LONG)
        eventually(lambda: len(engine.batches) > 1)
        time.sleep(1.0)  # this forward is late: it is not expected soon
        reply, took = timed(lambda: client.rank(member_id="m1", deadline_ms=600))
        engine.gate.set()
        busy.result()
    assert_degraded(reply, "deadline")
    assert took < 0.4


def test_the_surface_says_the_deadline_when_the_request_does_not(client: Client, engine: Controlled) -> None:
    text = """\
surface: hasty
description: Films at once
item_kind: movie
prompt: {instruction: Which film?, item: "{{ title }}"}
sources: [{type: popular, k: 10}]
heads: [{name: watch, type: pointwise, weight: 1.0}]
fallback: {deadline_ms: 120}
"""
    client.services.add(text, "hasty.yaml")
    engine.delay_s = 1.0
    reply, took = timed(lambda: client.rank("hasty", member_id="m1"))
    assert_degraded(reply, "deadline")
    assert 0.12 <= took < 0.25


def test_a_failing_engine_is_told_apart_from_a_slow_one(client: Client, engine: Controlled) -> None:
    engine.error = RuntimeError("out of order")
    reply, took = timed(lambda: client.rank(member_id="m1", deadline_ms=LONG))
    assert_degraded(reply, "engine")
    assert took < 5
    engine.error = None
    assert client.rank(member_id="m1", deadline_ms=LONG).json["degraded"] is False


def test_an_engine_that_cannot_read_a_tree_degrades(
    client: Client, engine: Controlled, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(tree: PromptTree) -> Any:
        raise RuntimeError("unreadable")

    monkeypatch.setattr(engine, "read", refuse)
    assert_degraded(client.rank(member_id="m1", deadline_ms=LONG), "engine")


def test_more_than_a_batch_holds_is_degraded_not_failed(services: Services, engine: Controlled) -> None:
    services.batcher.limits = Limits(queue_slots=40)
    with served(services) as client:
        many = client.rank(member_id="m1", k=40, deadline_ms=LONG)
        assert_degraded(many, "capacity")
        few = client.rank(member_id="m1", candidates=["f1"], deadline_ms=LONG)
        assert few.json["degraded"] is False


def test_the_largest_request_is_ranked_or_degraded_but_never_failed(client: Client) -> None:
    text = " ".join(["word"] * 50)
    candidates = [{"item_id": f"x{n}", "title": f"{n} {text}", "genres": []} for n in range(1000)]
    reply = client.rank(member_id="m1", candidates=candidates, k=1000, deadline_ms=LONG)
    assert reply.status == 200
    assert len(reply.json["slate"]) == 1000
    assert len(set(reply.item_ids)) == 1000


def test_clients_that_hang_up_leave_nothing_in_the_queue(client: Client, engine: Controlled) -> None:
    batcher: Batcher = client.services.batcher
    engine.gate.clear()
    body = b'{"member_id": "m1", "deadline_ms": 20000}'
    head = "POST /v1/surfaces/movies/rank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    before = len(engine.batches)
    sockets = []
    for _ in range(12):
        connection = socket.create_connection(("127.0.0.1", client.port))
        connection.sendall(head.encode() + body)
        sockets.append(connection)
    eventually(lambda: len(engine.batches) > before and engine.batches[-1] + batcher.waiting >= 12)
    for connection in sockets:
        connection.close()
    eventually(lambda: batcher.waiting == 0)
    assert batcher.queued_slots == 0
    engine.gate.set()
    assert client.rank(member_id="m1", deadline_ms=LONG).json["degraded"] is False


def test_past_the_room_of_retrieval_it_is_503(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    services.retrieval = type(services.retrieval)("retrieval", threads=1, room=1)
    slow = services.ledger.visitor

    def visitor(*asked: Any) -> Any:
        time.sleep(0.5)
        return slow(*asked)

    monkeypatch.setattr(services.ledger, "visitor", visitor)
    with served(services) as client, ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: client.rank(member_id="m1", deadline_ms=LONG), range(4)))
    statuses = sorted(reply.status for reply in replies)
    assert statuses == [200, 503, 503, 503]
    refused = next(reply for reply in replies if reply.status == 503)
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["retry-after"] == "1"
