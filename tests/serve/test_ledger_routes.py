"""Events, items and members over HTTP: on disk when acknowledged, once however often sent, gone when erased."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from serve.pipeline import write
from serve.schemas import RankRequest
from serve.services import Services
from serve.shortlist import draw_up
from surfaces.ledger.exposures import Exposure, Placement
from surfaces.ledger.records import Item, Member
from surfaces.ledger.store import Ledger
from tests.serve.conftest import Client, Controlled, Reply, fill
from tests.serve.processes import running

LIKE = {"member_id": "m1", "item_id": "f3", "surface": "movies", "action": "like", "timestamp": 9e8}


def send(client: Client, *events: object) -> Reply:
    return client.ask("POST", "/v1/events", {"events": list(events)})


def told(client: Client, member_id: str) -> list[str]:
    """What the model reads of a member."""
    reply = client.rank(member_id=member_id, k=1, deadline_ms=20_000, explain=True)
    assert reply.json["degraded"] is False
    trunk: list[str] = reply.json["explain"]["trunk"]
    return trunk


def test_the_next_ranking_reads_what_came(client: Client) -> None:
    before = told(client, "m1")
    assert not any("Film 3 " in text for text in before)
    reply = send(client, LIKE)
    assert (reply.status, reply.json) == (200, {"accepted": 1, "new": 1})
    assert "Film 3 " in told(client, "m1")[-1]


def test_an_event_is_one_however_often_it_is_sent(client: Client, ledger: Ledger) -> None:
    before = ledger.counts().events
    named = {**LIKE, "event_id": "click-1"}
    assert [send(client, named, LIKE).json["new"] for _ in range(3)] == [2, 0, 0]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda n: send(client, {**LIKE, "event_id": f"click-{n % 4}"}), range(32)))
    assert {reply.status for reply in replies} == {200}
    assert sum(reply.json["new"] for reply in replies) == 3
    assert ledger.counts().events == before + 5


def test_without_a_time_it_happened_now(client: Client, ledger: Ledger) -> None:
    send(client, {key: value for key, value in LIKE.items() if key != "timestamp"})
    assert time.time() - 60 < ledger.timeline("m1")[-1].timestamp <= time.time()


@pytest.mark.parametrize(
    ("change", "pointer", "why"),
    [
        ({"member_id": "nobody"}, "#/events/1/member_id", "the ledger has no member 'nobody'; PUT /v1/members"),
        ({"item_id": "nothing"}, "#/events/1/item_id", "the ledger has no item 'nothing'; PUT /v1/items"),
        ({"action": ""}, "#/events/1/action", "at least 1 character"),
        ({"timestamp": "soon"}, "#/events/1/timestamp", "should be a valid number"),
        ({"propensity": 0}, "#/events/1/propensity", "greater than 0"),
        ({"position": -1}, "#/events/1/position", "greater than or equal to 0"),
        ({"member": "m1"}, "#/events/1", "an unknown key; did you mean 'member_id'?"),
        ({"event_id": "a\nb"}, "#/events/1/event_id", "no control characters"),
    ],
)
def test_a_bad_event_keeps_all_out_and_is_named(
    client: Client, ledger: Ledger, change: dict[str, object], pointer: str, why: str
) -> None:
    before = ledger.counts()
    reply = send(client, LIKE, {**LIKE, **change})
    assert (reply.status, reply.headers["content-type"]) == (422, "application/problem+json")
    assert reply.json["errors"][0]["pointer"] == pointer
    assert why in reply.json["errors"][0]["detail"]
    assert ledger.counts() == before


def test_what_the_ledger_refuses_is_told(client: Client) -> None:
    reply = send(client, {**LIKE, "timestamp": 1e18})
    assert reply.status == 422
    assert "#/events/0/timestamp: should be less than" in reply.json["detail"]
    assert send(client).status == 422
    assert send(client, *[LIKE] * 1_001).status == 422


def test_items_and_members_come_before_their_events(client: Client, ledger: Ledger) -> None:
    item = {"item_id": "new film", "kind": "movie", "title": "Brand new", "year": 2001}
    assert client.ask("PUT", "/v1/items", {"items": [item]}).json == {"written": 1}
    member = {"member_id": "guest", "profile": {"age": 40}}
    assert client.ask("PUT", "/v1/members", {"members": [member]}).json == {"written": 1}
    assert ledger.item("new film") == Item("new film", "movie", {"title": "Brand new", "year": 2001})
    assert ledger.member("guest") == Member("guest", {"age": 40})
    assert send(client, {**LIKE, "member_id": "guest", "item_id": "new film"}).json["new"] == 1
    assert any("Brand new" in text for text in told(client, "guest"))
    reply = client.rank(member_id="m1", candidates=["new film", "f3"], deadline_ms=20_000)
    assert set(reply.item_ids) == {"new film", "f3"}


@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [
        ("items", {"items": [{"item_id": "a"}]}, "#/items/0/kind: is required"),
        ("items", {"items": [{"item_id": "a", "kind": "movie", "member_id": "nobody"}]}, "has no member 'nobody'"),
        ("items", {"items": [{"item_id": "a", "kind": "movie", "x": "y" * 1_000_001}]}, "at most 1000000 are allowed"),
        ("members", {"members": [{"profile": {}}]}, "#/members/0/member_id: is required"),
        ("members", {"members": [{"member_id": "a", "profile": {"member_id": "b"}}]}, "this name is taken"),
        ("members", {"members": []}, "at least 1"),
    ],
)
def test_what_cannot_be_written_is_told(client: Client, ledger: Ledger, path: str, body: object, detail: str) -> None:
    before = ledger.counts()
    reply = client.ask("PUT", f"/v1/{path}", body)
    assert reply.status == 422
    assert detail in reply.json["detail"]
    assert ledger.counts() == before


def test_an_erased_member_is_nowhere(client: Client, ledger: Ledger, engine: Controlled) -> None:
    canary = "Zyx Canary"
    ledger.put_items([Item("secret", "movie", {"title": canary}), Item("person", "person", {"name": "M One"}, "m1")])
    send(client, {**LIKE, "item_id": "secret"})
    told(client, "m1")
    assert engine.engine.cache_stats.bytes > 0
    exposure = Exposure("x", "m1", "movies", "one", "ab", "classical", False, 1.0, [Placement("f1", 0)])
    client.services.traffic.log.put(exposure)
    reply = client.ask("DELETE", "/v1/members/m1")
    assert reply.status == 200
    assert (reply.json["member_id"], reply.json["items"]) == ("m1", 1)
    assert reply.json["events"] >= 7
    assert ledger.counts().members == 12
    assert not list(ledger.exposures("one"))
    assert client.rank(member_id="m1").status == 404
    assert client.ask("DELETE", "/v1/members/m1").status == 404
    assert client.rank(member_id="m2", deadline_ms=20_000).status == 200
    assert not any(event.member_id == "m1" for event in ledger.all_events())


def test_erasing_forgets_the_words_for_members_and_items(services: Services, ledger: Ledger) -> None:
    surface = services.surface("movies")
    request = RankRequest(member_id="m1", candidates=["f1", "f2"])
    before = write(surface, draw_up(request, surface, ledger), services).tree.nodes[0]
    again = write(surface, draw_up(request, surface, ledger), services).tree.nodes[0]
    assert before.pieces is again.pieces
    item = ledger.items(["f1"])["f1"]
    services.erase("m2")
    assert write(surface, draw_up(request, surface, ledger), services).tree.nodes[0].pieces is not before.pieces
    assert ledger.items(["f1"])["f1"] is not item


def test_erasing_empties_the_cache(client: Client, engine: Controlled) -> None:
    told(client, "m1")
    held = engine.engine.cache_stats.bytes
    assert held > 0
    client.ask("DELETE", "/v1/members/m1")
    assert engine.engine.cache_stats.bytes < held


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """The process is killed under writers: each acknowledged event is there once, any other once or not at all."""
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    with Ledger.open(url) as ledger:
        fill(ledger)
        before = ledger.counts().events
    acknowledged: set[str] = set()
    sent: set[str] = set()
    for life in range(3):
        with running(url) as server:
            deadline = time.monotonic() + 0.15 + 0.1 * life

            def write(writer: int, life: int = life, port: int = server.port, deadline: float = deadline) -> None:
                for number in range(10_000):
                    name = f"{life}-{writer}-{number}"
                    sent.add(name)
                    body = {"events": [{**LIKE, "event_id": name, "timestamp": 9e8 + number}]}
                    connection = HTTPConnection("127.0.0.1", port, timeout=5)
                    try:
                        headers = {"content-type": "application/json"}
                        connection.request("POST", "/v1/events", json.dumps(body), headers)
                        if connection.getresponse().status == 200:
                            acknowledged.add(name)
                    except (OSError, HTTPException):
                        return
                    finally:
                        connection.close()

            with ThreadPoolExecutor(4) as pool:
                writers = [pool.submit(write, writer) for writer in range(4)]
                time.sleep(max(0.0, deadline - time.monotonic()))
                server.process.kill()
                for each in writers:
                    each.result()
    with Ledger.open(url) as ledger:
        kept = [event.event_id for event in ledger.all_events() if event.event_id in sent]
        assert len(kept) == len(set(kept)) == ledger.counts().events - before
    assert acknowledged, "something was acknowledged"
    assert acknowledged <= set(kept), "nothing that was acknowledged is lost"


def test_services_hold_no_erased_person(services: Services, ledger: Ledger) -> None:
    ledger.put_items([Item("p1", "person", {"name": "One"}, "m1"), Item("p2", "person", {"name": "Two"}, "m2")])
    services.prepare("people")
    assert "m1" in services.surface("people").retrieval.people
    services.traffic.log.start()
    services.erase("m1")
    services.traffic.log.close()
    assert "m1" not in services.surface("people").retrieval.people
    assert "p1" not in services.surface("people").retrieval.index
