"""Many rankings in one call: each as it would be alone, none in another's way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.keys import Keys, make
from serve.server import bind, serving
from serve.services import Services
from serve.workers import Workers
from tests.serve.conftest import Client, Controlled, Reply

LONG = 20_000


def batch(client: Client, *requests: object, surface: str = "movies") -> Reply:
    return client.ask("POST", f"/v1/surfaces/{surface}/rank:batch", {"requests": list(requests)})


def told(reply: dict[str, object]) -> object:
    return [reply[key] for key in ("surface", "slate", "degraded", "route", "model")]


def test_each_is_as_it_would_be_alone_in_one_forward(client: Client, engine: Controlled) -> None:
    asked = [{"member_id": f"m{n}", "k": 5, "deadline_ms": LONG} for n in range(8)]
    alone = [client.rank(**each).json for each in asked]
    client.services.batcher.limits = client.services.batcher.limits.__class__(gather_s=0.2)
    engine.batches.clear()
    together = batch(client, *asked).json["replies"]
    assert 8 in engine.batches
    for one, other in zip(alone, together, strict=True):
        assert [entry["item_id"] for entry in one["slate"]] == [entry["item_id"] for entry in other["slate"]]
        values = [[entry["utility"] for entry in each["slate"]] for each in (one, other)]
        assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_one_that_fails_is_in_no_others_way(client: Client) -> None:
    asked = {"member_id": "m1", "k": 2, "deadline_ms": LONG}
    reply = batch(client, asked, {**asked, "member_id": "nobody"}, {**asked, "candidates": ["f1", "nothing"]})
    assert reply.status == 200
    first, second, third = reply.json["replies"]
    assert len(first["slate"]) == 2
    assert (second["problem"]["status"], second["problem"]["detail"]) == (404, "unknown member 'nobody'")
    assert third["problem"]["status"] == 404


def same(client: Client, body: dict[str, object], surface: str = "movies") -> int:
    """The status of a single ranking and of a batch of one, which must be alike; so must `Retry-After`."""
    single, one = client.rank(surface, **body), batch(client, body, surface=surface)
    assert single.status == one.status
    assert single.headers.get("retry-after") == one.headers.get("retry-after")
    assert single.headers["content-type"] == one.headers["content-type"]
    return single.status


def test_a_batch_of_one_is_a_single_ranking(client: Client, engine: Controlled) -> None:
    assert same(client, {"member_id": "m1", "deadline_ms": LONG}) == 200
    assert same(client, {"member_id": "nobody"}) == 404
    assert same(client, {"member_id": "m1"}, surface="nothing") == 404
    assert same(client, {"member_id": "m1", "k": 0}) == 422
    assert same(client, {"member_id": "m1", "candidates": ["f1"] * 1_001}) == 422
    engine.error = RuntimeError("out of order")
    assert same(client, {"member_id": "m1", "deadline_ms": 3_000}) == 200
    assert batch(client, {"member_id": "m1"}).json["replies"][0]["degraded"] is True
    engine.error = None
    client.services.retrieval = Workers("retrieval", threads=1, room=0)
    assert same(client, {"member_id": "m1"}) == 503


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"requests": []}, "#/requests"),
        ({"requests": [{"member_id": "m1"}] * 65}, "#/requests"),
        (
            {"requests": [{"member_id": "m1"}, {"candidates": ["x"] * 1_001}]},
            "#/requests/1/candidates",
        ),
        ({"requests": [{"member_id": "m1"}, {"k": 3}]}, "#/requests/1"),
        ({}, "#/requests"),
    ],
)
def test_what_is_no_batch_is_told(client: Client, body: object, pointer: str) -> None:
    reply = client.ask("POST", "/v1/surfaces/movies/rank:batch", body)
    assert (reply.status, reply.headers["content-type"]) == (422, "application/problem+json")
    assert reply.json["errors"][0]["pointer"] == pointer


@pytest.fixture
def limited(services: Services, tmp_path: Path) -> Iterator[tuple[Client, str]]:
    secret = make(tmp_path / "keys.yaml", "site", ["rank"], rate=0.1, burst=4)
    with bind("127.0.0.1", 0) as bound, serving(services, bound, keys=Keys.load(tmp_path / "keys.yaml")) as url:
        client = Client(url, services)
        client.until_ready()
        yield client, secret


def test_each_ranking_of_a_batch_counts_for_the_rate(limited: tuple[Client, str]) -> None:
    client, secret = limited

    def ask(count: int) -> Reply:
        body = {"requests": [{"member_id": "m1"}] * count}
        return client.ask("POST", "/v1/surfaces/movies/rank:batch", body, authorization=f"Bearer {secret}")

    assert ask(3).status == 200
    assert (reply := ask(2)).status == 429, "one was left"
    assert 1 <= int(reply.headers["retry-after"]) <= 20
