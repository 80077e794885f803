"""Spans, as a collector gets them."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider

from prompts.errors import ConfigError
from serve.services import Services
from serve.traces import Traces, exporting
from tests.serve.conftest import Client, Controlled, served

CANARY = "kanarienvogel"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Collector:
    """Takes in what an exporter sends."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.raw.append(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"

    @property
    def spans(self) -> list[Any]:
        found = [ExportTraceServiceRequest.FromString(each) for each in self.raw]
        return [
            span for each in found for one in each.resource_spans for scope in one.scope_spans for span in scope.spans
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    yield collector
    collector.server.shutdown()
    thread.join()
    collector.server.server_close()


@pytest.fixture
def provider(collector: Collector) -> Iterator[TracerProvider]:
    provider = exporting(collector.url)
    assert isinstance(provider, TracerProvider)
    yield provider
    provider.shutdown()


@pytest.fixture
def client(services: Services, provider: TracerProvider) -> Iterator[Client]:
    services.traces = Traces(provider)
    with served(services) as client:
        client.until_ready()
        yield client


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_a_request_is_a_span_with_its_parts_under_the_callers_trace(
    client: Client, collector: Collector, provider: TracerProvider
) -> None:
    body = {"member_id": "m1", "k": 2, "deadline_ms": 20_000}
    assert client.ask("POST", "/v1/surfaces/movies/rank", body, traceparent=PARENT).status == 200
    provider.force_flush()
    mine = [span for span in collector.spans if span.trace_id.hex() == PARENT.split("-")[1]]
    root = next(span for span in mine if span.parent_span_id.hex() == PARENT.split("-")[2])
    assert root.name == "POST /v1/surfaces/{surface}/rank"
    assert attributes(root)["http.response.status_code"] == 200
    parts = {span.name: span for span in mine if span.parent_span_id == root.span_id}
    assert set(parts) == {"retrieve", "compose", "queue"}
    spent = sum(span.end_time_unix_nano - span.start_time_unix_nano for span in parts.values())
    assert 0 < spent <= root.end_time_unix_nano - root.start_time_unix_nano


def test_nothing_of_members_is_in_a_span(
    client: Client, collector: Collector, provider: TracerProvider, engine: Controlled
) -> None:
    profile, candidate = {"name": CANARY}, {"item_id": CANARY, "title": CANARY}
    body = {"member": {"profile": profile}, "candidates": [candidate], "context": {"query": CANARY}}
    assert client.rank(**body).status == 200
    engine.error = RuntimeError(CANARY)
    assert client.rank(**body).json["degraded"]
    client.ask("DELETE", f"/v1/members/{CANARY}?{CANARY}={CANARY}", None, tracestate=f"a={CANARY}")
    client.ask("POST", f"/v1/surfaces/{CANARY}/rank", {"member_id": CANARY})
    client.ask("POST", "/v1/events", json.dumps({CANARY: CANARY}).encode())
    client.ask(CANARY.upper(), f"/{CANARY}")
    provider.force_flush()
    assert len(collector.spans) > 8
    assert CANARY.encode() not in b"".join(collector.raw).lower()


def test_a_collector_that_is_not_there_is_in_nobodys_way(services: Services) -> None:
    provider = exporting("http://127.0.0.1:9/v1/traces")
    services.traces = Traces(provider)
    with served(services) as client:
        assert client.rank(member_id="m1", k=2, deadline_ms=20_000).status == 200
    assert isinstance(provider, TracerProvider)
    provider.shutdown()


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(ConfigError, match="a collector's address is a URL"):
        exporting("localhost:4318")
