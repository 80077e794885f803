"""What the application tells of itself: surfaces, documents, headers; and how it starts and stops."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest
from fastapi import FastAPI

from prompts.errors import ConfigError, PrismrankError, SpecError, UnknownError
from prompts.tree import PromptNode, PromptTree
from serve import server as servers
from serve.doors import Doorkeeper
from serve.keys import Keys
from serve.protocol import Protocol
from serve.schemas import RankReply, RankRequest
from serve.server import address, bind, serving
from serve.services import Services
from surfaces.compose import stem_pieces
from tests.serve.conftest import Client, Controlled, served


def test_surfaces_are_listed(shared: Client) -> None:
    reply = shared.ask("GET", "/v1/surfaces")
    assert reply.status == 200
    assert "movies" in [line["surface"] for line in reply.json["surfaces"]]
    assert all(set(line) == {"surface", "description", "version"} for line in reply.json["surfaces"])


def test_a_surface_is_told_in_full(shared: Client) -> None:
    reply = shared.ask("GET", "/v1/surfaces/movies")
    served = shared.services.surface("movies")
    spec = served.spec
    assert reply.json["version"] == served.version
    assert reply.json["spec"] == spec.model_dump(mode="json")
    assert "{{ title }}" in reply.json["spec"]["prompt"]["item"]


def test_an_unknown_surface_is_404(shared: Client) -> None:
    reply = shared.ask("GET", "/v1/surfaces/movie")
    assert (reply.status, reply.headers["content-type"]) == (404, "application/problem+json")
    assert "did you mean 'movies'?" in reply.json["detail"]


def test_the_document_describes_every_path_with_its_problems(shared: Client) -> None:
    page: dict[str, Any] = shared.ask("GET", "/openapi.json").json
    assert set(page["paths"]) == {
        "/v1/surfaces/{surface}/rank", "/v1/surfaces", "/v1/surfaces/{surface}", "/livez", "/readyz", "/metrics",
        "/v1/surfaces/{surface}/versions", "/v1/surfaces/{surface}/rollback", "/v1/surfaces/{surface}/preview",
        "/v1/surfaces/{surface}/rank:batch", "/v1/surfaces/{surface}/refit", "/v1/model", "/v1/rerank", "/v2/rerank",
        "/v1/embeddings", "/v1/model/rollback", "/v1/events", "/v1/items", "/v1/members", "/v1/members/{member_id}",
    }  # fmt: skip
    rank = page["paths"]["/v1/surfaces/{surface}/rank"]["post"]
    assert set(rank["responses"]) >= {"200", "400", "404", "413", "415", "422", "503"}
    schemas = page["components"]["schemas"]
    assert set(schemas["RankRequest"]["properties"]) == set(RankRequest.model_fields)
    assert set(schemas["RankReply"]["properties"]) == set(RankReply.model_fields)
    assert {"ProblemDetail", "FieldProblem"} <= set(schemas)
    assert "HTTPValidationError" not in schemas


def test_every_reference_in_the_document_leads_somewhere(shared: Client) -> None:
    page = shared.ask("GET", "/openapi.json").json

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                kind, _, name = node["$ref"].removeprefix("#/components/").partition("/")
                assert name in page["components"][kind], node["$ref"]
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(page)


def test_every_field_of_request_and_reply_is_explained(shared: Client) -> None:
    schemas = shared.ask("GET", "/openapi.json").json["components"]["schemas"]
    obvious = {"surface", "slate", "item_id", "model", "surface_version", "timing_ms", "explain", "profile", "timeline"}
    for name in ("RankRequest", "RankReply", "RankedItem", "Timing", "ProblemDetail"):
        for field, about in schemas[name]["properties"].items():
            assert "description" in about or field in obvious | {"member_id", "action"}, f"{name}.{field}"


def test_a_reply_is_sent_at_once(shared: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nagle's algorithm is off: with it, a reply in two packets takes 40 ms longer on a connection that is kept."""
    with bind("127.0.0.1", 0) as bound:
        assert bound.proto == socket.IPPROTO_TCP
    told, made = list[int](), Protocol.connection_made

    def looked_at(self: Protocol, transport: asyncio.Transport) -> None:
        made(self, transport)
        told.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(Protocol, "connection_made", looked_at)
    assert shared.ask("GET", "/v1/surfaces").status == 200
    assert told
    assert all(told)


def test_a_rush_of_connections_is_taken_in_together(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the event loop is busy many come; counted is how often the loop turns until it has seen them all."""
    waiting, turns, seen, made = 80, 0, list[int](), Protocol.connection_made
    busy, loops = threading.Event(), list[asyncio.AbstractEventLoop]()

    def turn() -> None:
        nonlocal turns
        turns += 1
        if len(seen) < waiting:
            loops[0].call_soon(turn)

    def looked_at(self: Protocol, transport: asyncio.Transport) -> None:
        made(self, transport)
        loops.append(self.loop)
        seen.append(turns)

    monkeypatch.setattr(Protocol, "connection_made", looked_at)
    with served(services) as client, ExitStack() as stack:
        client.until_ready()
        loops[0].call_soon_threadsafe(busy.wait, 20)
        for _ in range(waiting):
            stack.enter_context(socket.create_connection(("127.0.0.1", client.port), timeout=20))
        seen.clear()
        loops[0].call_soon_threadsafe(turn)
        busy.set()
        end = time.monotonic() + 20
        while len(seen) < waiting:
            assert time.monotonic() < end
            time.sleep(0.005)
    assert turns < waiting / 4


def test_a_port_that_is_taken_is_one_clear_error() -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}: Address already in use"):
            bind("127.0.0.1", port)
    with pytest.raises(ConfigError, match="cannot listen on no-such-host"):
        bind("no-such-host.invalid", 0)


def test_the_address_of_a_socket_is_a_url() -> None:
    with bind("127.0.0.1", 0) as bound:
        assert address(bound) == f"http://127.0.0.1:{bound.getsockname()[1]}"
    if socket.has_dualstack_ipv6():
        with bind("::1", 0) as bound:
            assert address(bound).startswith("http://[::1]:")


def test_a_bound_socket_takes_no_calls_before_the_server_does() -> None:
    with bind("127.0.0.1", 0) as bound, pytest.raises(ConnectionRefusedError):
        socket.create_connection(bound.getsockname(), timeout=2)


def test_a_server_that_does_not_start_says_so(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    def life(_: FastAPI) -> Any:
        raise RuntimeError("broken")

    def broken(*_: object) -> FastAPI:
        app = FastAPI(lifespan=life)
        app.state.keeper = Doorkeeper(Keys(), services.let_in)
        return app

    monkeypatch.setattr(servers, "create_app", broken)
    with (
        bind("127.0.0.1", 0) as bound,
        pytest.raises(PrismrankError, match="did not start"),
        serving(services, bound),
    ):
        pass


def test_stopped_it_leaves_no_thread_behind(services: Services, engine: Controlled) -> None:
    before = set(threading.enumerate())
    with served(services) as client:
        client.until_ready()
        client.rank(member_id="m1")
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), thread.name
    assert engine.batches


def test_stopped_while_the_engine_hangs_it_stops_all_the_same(services: Services, engine: Controlled) -> None:
    engine.gate.clear()
    with served(services) as client:
        assert client.rank(member_id="m1", deadline_ms=50).json["degraded"]
    engine.gate.set()


def test_the_demo_server_keeps_no_access_log(shared: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        shared.ask("GET", "/livez")
    assert not [record for record in caplog.records if record.name == "uvicorn.access"]


GOOD = """\
surface: {name}
description: Films
item_kind: movie
prompt: {{instruction: Which film?, item: "{{{{ title }}}}"}}
sources: [{{type: popular, k: 10}}]
heads: [{heads}]
"""


def test_a_surface_can_be_added_while_it_serves(client: Client) -> None:
    text = GOOD.format(name="extra", heads="{name: watch, type: pointwise, weight: 1.0}")
    ready = client.services.add(text, "extra.yaml")
    assert ready.spec.surface == "extra"
    assert client.rank("extra", member_id="m1", deadline_ms=20_000).json["degraded"] is False
    assert "extra" in [line["surface"] for line in client.ask("GET", "/v1/surfaces").json["surfaces"]]


def test_a_surface_may_rank_by_likelihood_alone(client: Client) -> None:
    client.services.add(GOOD.format(name="likely", heads="{name: fits, type: likelihood, weight: 1.0}"), "likely.yaml")
    reply = client.rank("likely", member_id="m1", deadline_ms=20_000).json
    assert reply["degraded"] is False
    values = [entry["heads"]["fits"] for entry in reply["slate"]]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 1


def test_two_surfaces_of_one_visit_read_the_member_once(client: Client, services: Services, engine: Controlled) -> None:
    client.services.add(GOOD.format(name="other", heads="{name: watch, type: pointwise, weight: 1.0}"), "other.yaml")
    stats = engine.engine.cache_stats
    client.rank("movies", member_id="m7", deadline_ms=20_000)
    missed, hit = stats.missed_slots, stats.hit_slots
    client.rank("other", member_id="m7", deadline_ms=20_000)
    stem = services.engine.read(PromptTree((PromptNode(stem_pieces(services.surface("other").spec)),))).size
    assert stats.missed_slots - missed <= stem
    assert stats.hit_slots > hit


def test_what_is_no_surface_is_not_added(services: Services) -> None:
    with pytest.raises(SpecError, match=r"broken\.yaml:1:1"):
        services.add("surfac: x\n", "broken.yaml")
    with pytest.raises(SpecError, match="declares a trunk"):
        services.add('trunk: t\ndescription: d\nprofile: "p"\ntimeline: {events: {default: "e"}}\n', "trunk.yaml")
    with pytest.raises(UnknownError):
        services.surface("x")


def test_answers_that_the_model_cannot_tell_apart_are_refused(services: Services) -> None:
    heads = "{name: zzzza, type: choice, weight: 1.0}, {name: zzzzb, type: choice}"
    with pytest.raises(SpecError, match="'zzzza' and 'zzzzb' begin with the same token"):
        services.add(GOOD.format(name="twins", heads=heads), "twins.yaml")
    with pytest.raises(UnknownError):
        services.surface("twins")


def test_services_name_their_steps(services: Services) -> None:
    steps: list[str] = []
    Services.open(services.ledger, services.engine, services.registry, steps.append)
    assert steps == [f"fitting the sources of '{name}'" for name in services.registry.names()]


def test_services_can_be_made_outside_of_an_event_loop(services: Services) -> None:
    async def main() -> list[str]:
        async with services.running():
            return services.surface_names()

    assert asyncio.run(main()) == services.registry.names()
