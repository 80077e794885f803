"""Sources that are fitted again while the server runs."""

from __future__ import annotations

import time

import pytest

from serve.services import Services
from serve.settings import Settings
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from tests.serve.conftest import Client, Controlled, served

NEW = {"items": [{"item_id": "late", "kind": "movie", "title": "Late"}]}
LIKES = [
    {"member_id": f"m{n}", "item_id": "late", "surface": "movies", "action": "like", "timestamp": 9e8 + n}
    for n in range(12)
]


def brought(client: Client) -> bool:
    """Whether the sources bring the new film to somebody who has not seen it."""
    return "late" in client.rank(member_id="new", k=40, deadline_ms=20_000).item_ids


def test_a_refit_brings_what_came_in_since(client: Client) -> None:
    client.ask("PUT", "/v1/items", NEW)
    client.ask("POST", "/v1/events", {"events": LIKES})
    assert not brought(client)
    reply = client.ask("POST", "/v1/surfaces/movies/refit")
    assert (reply.status, reply.json["surface"]) == (200, "movies")
    assert brought(client)
    assert client.ask("POST", "/v1/surfaces/nothing/refit").status == 404


def test_sources_are_fitted_again_now_and_then(ledger: Ledger, engine: Controlled) -> None:
    settings = Settings(refit_minutes=0.5 / 60)
    with served(Services.open(ledger, engine, Registry.shipped(), settings=settings)) as client:
        client.until_ready()
        client.ask("PUT", "/v1/items", NEW)
        client.ask("POST", "/v1/events", {"events": LIKES})
        end = time.monotonic() + 30
        while not brought(client):
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_fit_that_fails_leaves_the_former_sources(
    ledger: Ledger, engine: Controlled, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(refit_minutes=0.05 / 60)
    with served(Services.open(ledger, engine, Registry.shipped(), settings=settings)) as client:
        before = client.services.surface("movies")
        failed = []

        def fail(name: str) -> None:
            failed.append(name)
            raise RuntimeError("no")

        monkeypatch.setattr(client.services, "prepare", fail)
        while len(failed) < 20:
            time.sleep(0.01)
        assert client.rank(member_id="m1", k=3, deadline_ms=20_000).status == 200
        assert client.services.surface("movies").version == before.version
