"""Alive is not ready: ready means that the engine answered."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve.services import Services
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger
from tests.serve.conftest import Client, Controlled, served


def wait_for(client: Client, status: int, limit_s: float = 5.0) -> float:
    began = time.monotonic()
    while client.ask("GET", "/readyz").status != status:
        assert time.monotonic() - began < limit_s, f"/readyz never became {status}"
        time.sleep(0.05)
    return time.monotonic() - began


def test_before_the_engine_has_answered_it_is_alive_but_not_ready(services: Services, engine: Controlled) -> None:
    services.health.limit_s = 0.1
    engine.gate.clear()
    with served(services) as client:
        assert client.ask("GET", "/livez").json == {"status": "alive"}
        reply = client.ask("GET", "/readyz")
        assert reply.status == 503
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.headers["retry-after"] == "1"
        assert client.rank(member_id="m1", deadline_ms=50).json["degraded"], "the fallback needs no engine"
        engine.gate.set()
        wait_for(client, 200)
        assert client.ask("GET", "/readyz").json == {"status": "ready", "model": engine.model_version}
    assert engine.batches, "the engine was asked"


def test_the_cache_tells_what_it_does(client: Client, ledger: Ledger) -> None:
    # The engine is the whole run's: only a text that nobody else has can be sure to be new to its cache.
    ledger.put_items([Item("told", "movie", {"title": "A film of this test alone", "year": 1901, "genres": ["Tale"]})])
    ledger.put_members([Member("teller", {})])
    ledger.add_events([Event("teller", "told", "movies", "like", 1.0)])

    def figures() -> dict[str, float]:
        reply = client.ask("GET", "/metrics")
        assert reply.headers["content-type"].startswith("text/plain")
        lines = [line.split() for line in reply.text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    before = figures()
    for _ in range(2):
        client.rank(member_id="teller", deadline_ms=20_000)
    after = figures()
    assert after["prismrank_cache_missed_slots_total"] > before["prismrank_cache_missed_slots_total"]
    assert after["prismrank_cache_hit_slots_total"] > before["prismrank_cache_hit_slots_total"]
    assert after["prismrank_cache_bytes"] > 0
    assert after["prismrank_cache_evictions_total"] == before["prismrank_cache_evictions_total"]


def test_an_engine_that_begins_to_fail_is_noticed_and_so_is_its_return(client: Client, engine: Controlled) -> None:
    engine.error = RuntimeError("out of order")
    assert wait_for(client, 503) < 2.5
    engine.error = None
    assert wait_for(client, 200) < 2.5


def test_an_engine_that_hangs_is_not_ready(client: Client, engine: Controlled) -> None:
    client.services.health.limit_s = 0.2
    engine.gate.clear()
    wait_for(client, 503)
    engine.gate.set()
    wait_for(client, 200)


def test_an_engine_that_cannot_read_is_not_ready(
    client: Client, engine: Controlled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "read", lambda _: 1 / 0)
    wait_for(client, 503)


def test_the_engine_is_asked_about_once_a_second_however_many_ask(client: Client, engine: Controlled) -> None:
    client.services.health.fresh_s = 60.0
    assert client.ask("GET", "/readyz").status == 200
    before = len(engine.batches)
    with ThreadPoolExecutor(10) as pool:
        assert {reply.status for reply in pool.map(lambda _: client.ask("GET", "/readyz"), range(50))} == {200}
    assert len(engine.batches) == before
    client.services.health.fresh_s = 0.0
    assert client.ask("GET", "/readyz").status == 200
    assert len(engine.batches) == before + 1


def test_readiness_is_asked_for_while_rankings_run(client: Client) -> None:
    client.services.health.fresh_s = 0.0
    with ThreadPoolExecutor(8) as pool:
        rankings = [pool.submit(client.rank, member_id=f"m{n % 12}", deadline_ms=20_000) for n in range(24)]
        ready = [pool.submit(client.ask, "GET", "/readyz") for _ in range(8)]
        assert {future.result().status for future in ready} == {200}
        assert not any(future.result().json["degraded"] for future in rankings)
