"""What the server tells of its work: figures with bounded labels, a line a request, and nothing of what members do."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve.services import Services
from serve.watch import JsonLines
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger
from tests.serve.conftest import Client, Controlled, served

CANARY = "kanarienvogel"


def figures(client: Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = client.ask("GET", "/metrics").text
    families = text_string_to_metric_families(text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def total(found: dict[tuple[str, tuple[tuple[str, str], ...]], float], name: str, **labels: str) -> float:
    return sum(
        value for (known, told), value in found.items() if known == name and labels.items() <= dict(told).items()
    )


def test_requests_are_counted_and_timed_by_their_route(client: Client) -> None:
    for _ in range(3):
        client.rank(member_id="m1", k=2, deadline_ms=20_000)
    client.rank("nothing", member_id="m1")
    client.ask("GET", "/v1/made/up")
    client.ask("DELETE", "/v1/members/nobody")
    found = figures(client)
    route = "/v1/surfaces/{surface}/rank"
    assert total(found, "prismrank_http_requests_total", route=route, method="POST", status="200") == 3
    assert total(found, "prismrank_http_requests_total", route=route, status="404") == 1
    assert total(found, "prismrank_http_requests_total", route="(unknown)", status="404") == 1
    assert total(found, "prismrank_http_requests_total", route="/v1/members/{member_id}", status="404") == 1
    assert total(found, "prismrank_http_request_seconds_count", route=route) == 4
    assert 0 < total(found, "prismrank_http_request_seconds_sum", route=route) < 60
    assert total(found, "prismrank_rank_seconds_count", surface="movies", part="total") == 3
    parts = sum(total(found, "prismrank_rank_seconds_sum", part=part) for part in ("retrieve", "compose", "queue"))
    assert parts <= total(found, "prismrank_rank_seconds_sum", part="total")
    assert total(found, "prismrank_batch_trees_count") == total(found, "prismrank_forward_seconds_count") >= 3
    assert total(found, "prismrank_queue_trees") == total(found, "prismrank_queue_slots") == 0


def test_degraded_slates_and_failed_forwards_are_counted(client: Client, engine: Controlled) -> None:
    engine.error = RuntimeError("out of order")
    assert client.rank(member_id="m1", deadline_ms=5_000).json["degraded"]
    found = figures(client)
    assert total(found, "prismrank_degraded_total", surface="movies", reason="engine") == 1
    assert total(found, "prismrank_forwards_failed_total") >= 1


def test_labels_are_bounded(client: Client) -> None:
    """However many paths, surfaces and methods are made up, the figures stay as many."""
    client.rank("nothing", member_id="m1")
    client.ask("GET", "/first")
    client.ask("VERB", "/first")
    figures(client)
    before = len(figures(client))
    for number in range(20):
        client.rank(f"made-up-{number}", member_id=f"nobody-{number}")
        client.ask("GET", f"/made/up/{number}")
        client.ask(f"VERB{number}", f"/made/up/{number}")
    assert len(figures(client)) == before


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


def named(record: logging.LogRecord, route: str) -> bool:
    return record.name == "prismrank.access" and vars(record)["fields"]["route"].endswith(route)


def soon(find: Callable[[], list[logging.LogRecord]]) -> logging.LogRecord:
    """The one record that is found: the line is written once the client has its answer, in another thread."""
    end = time.monotonic() + 5
    while not (found := find()):
        assert time.monotonic() < end, "no line"
        time.sleep(0.01)
    (record,) = found
    return record


def test_a_request_is_one_line_with_an_id(client: Client, lines: pytest.LogCaptureFixture) -> None:
    reply = client.rank(member_id="m1", k=1, deadline_ms=20_000)
    record = soon(lambda: [each for each in lines.records if named(each, "/rank")])
    told = json.loads(JsonLines().format(record))
    assert told["request"] == reply.headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", told["request"])
    assert (told["route"], told["method"], told["status"]) == ("/v1/surfaces/{surface}/rank", "POST", 200)
    assert told["key"] == "anyone"
    assert 0 < told["ms"] < 60_000


def test_nothing_of_members_is_in_logs_figures_or_errors(
    services: Services, ledger: Ledger, engine: Controlled, lines: pytest.LogCaptureFixture
) -> None:
    ledger.put_items([Item(f"item {CANARY}", "movie", {"title": f"title {CANARY}"})])
    ledger.put_members([Member(f"member {CANARY}", {"occupation": f"work {CANARY}"})])
    ledger.add_events([Event(f"member {CANARY}", f"item {CANARY}", "movies", f"act {CANARY}", 1.0)])
    name = f"member%20{CANARY}"
    with served(services) as client:
        client.until_ready()
        inline = {
            "profile": {"occupation": CANARY},
            "timeline": [{"item_id": CANARY, "action": CANARY, "item": {"title": CANARY}}],
        }
        bodies: list[object] = [
            {"member_id": f"member {CANARY}", "deadline_ms": 20_000},
            {"member": inline, "context": {"query": CANARY, CANARY: CANARY}, "deadline_ms": 20_000},
            {"member": inline, "candidates": [{"item_id": "x", "title": CANARY}], CANARY: 1},
            {"member": inline, "k": CANARY},
            {"member": {"profile": {CANARY: [[CANARY]]}, "timeline": CANARY}},
            f'{{"member_id": "{CANARY}'.encode(),
        ]
        for failing in (None, RuntimeError("out of order")):
            engine.error = failing
            replies = [client.ask("POST", "/v1/surfaces/movies/rank", body) for body in bodies]
        assert [reply.status for reply in replies] == [200, 200, 422, 422, 422, 400]
        assert not any(CANARY in reply.text for reply in replies[2:])
        engine.error = None
        event = {"member_id": f"member {CANARY}", "item_id": "f1", "surface": "movies", "action": "like"}
        assert client.ask("POST", "/v1/events", {"events": [{**event, "timestamp": 2.0}]}).status == 200
        assert client.ask("POST", "/v1/events", {"events": [{**event, "value": CANARY}]}).status == 422
        assert client.ask("DELETE", f"/v1/members/{name}").status == 200
        assert CANARY not in client.ask("GET", "/metrics").text
    told = [JsonLines().format(record) for record in lines.records]
    assert any("the engine failed" in line for line in told), "failures are told"
    assert not [line for line in told if CANARY in line]


def test_a_trace_is_in_its_line(lines: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("wrong")
    except ValueError:
        logging.getLogger("serve").exception("told")
    line = JsonLines().format(lines.records[-1])
    assert "\n" not in line
    assert json.loads(line)["trace"].endswith("ValueError: wrong")


def test_the_dashboard_asks_for_figures_that_there_are(client: Client, engine: Controlled) -> None:
    """Every figure, and every label that it is told by, is one that `/metrics` has after a little traffic."""
    client.rank(member_id="m1", k=2, deadline_ms=20_000)
    engine.error = RuntimeError("gone")
    client.rank(member_id="m1", k=2, deadline_ms=20_000)
    known: dict[str, set[str]] = {}
    for name, labels in figures(client):
        known.setdefault(name, set()).update(key for key, _ in labels)
    panels = json.loads(Path("docs/grafana.json").read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(asked) > 15
    for expression in asked:
        names = set(re.findall(r"prismrank_\w+", expression))
        assert names <= set(known), expression
        grouped = {label for found in re.findall(r"by \(([^)]*)\)", expression) for label in found.split(", ")}
        labels = set(re.findall(r"[{ ](\w+)(?:=~|!=|=)\"", expression)) | grouped
        assert labels <= set().union(*(known[name] for name in names)), expression
    told = {name.removesuffix("_bucket") for expression in asked for name in re.findall(r"prismrank_\w+", expression)}
    assert {re.sub(r"_(sum|count|bucket)$", "", name) for name in known if name.startswith("prismrank_")} <= {
        re.sub(r"_(sum|count|bucket)$", "", name) for name in told
    }
