"""Bad input: one clear problem, never a 500, nothing of the input in it, nothing lost."""

from __future__ import annotations

import json
import logging
import socket
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prompts.errors import LedgerError
from serve.settings import Settings
from tests.serve.conftest import Client, Reply

RANK = "/v1/surfaces/movies/rank"
SECRET = "zebra-4711"


@pytest.fixture
def client(shared: Client) -> Client:
    return shared


def assert_problem(reply: Reply, status: int) -> dict[str, Any]:
    assert reply.status == status, reply.json
    assert reply.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = reply.json
    assert body["status"] == status
    assert {"type", "title", "status", "detail"} <= set(body) <= {"type", "title", "status", "detail", "errors"}
    assert body["detail"]
    assert SECRET not in json.dumps(body)
    return body


def assert_still_serving(client: Client) -> None:
    assert client.rank(member_id="m1", deadline_ms=20_000).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"member_id": "m1"',
        b'{"member_id": "m1",}',
        b'{"k": NaN}',
        b'{"k": Infinity}',
        b'{"k": -Infinity}',
        b'{"member_id": "m1", "context": {"a": 1e999}}',
        b'{"member_id": "m1", "context": {"a": [1, {"b": -1e999}]}}',
        b'{"member_id": "m1", "k": 1e999}',
        b'{"member_id": "\\ud800"}',
        b'{"member_id": "m1", "context": {"\\udfff": 1}}',
        b'{"member_id": "\xff\xfe"}',
        b"\xef\xbb\xbf{}",
        '{"member_id": "m1"}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"member_id": "m1", "context": {"a": ' + b"[" * 5_000 + b"]" * 5_000 + b"}}",
        b'{"member_id": "m1", "k": ' + b"1" * 10_000 + b"}",
        b'{"member_id": "m1", "context": {"a": ' + b"1" * 4_000 + b"}}",
        b"\x00",
        b"null null",
        b"\xed\xa0\x80",
    ],
    ids=range(23),
)
def test_what_is_not_strict_json_is_400(client: Client, body: bytes) -> None:
    reply = client.ask("POST", RANK, body)
    assert 400 <= reply.status < 500
    assert_problem(reply, 422 if body == b"" else 400)
    assert_still_serving(client)


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ({}, "#", "exactly one of 'member_id' and 'member'"),
        ({"member_id": "m1", "member": {}}, "#", "exactly one"),
        ({"member_id": "m1", "kk": 1}, "#", "did you mean 'k'?"),
        ({"member_id": "m1", SECRET: 1}, "#", "known keys: member_id, member, candidates"),
        ({"member_id": 196}, "#/member_id", "string"),
        ({"member_id": ""}, "#/member_id", "at least 1 character"),
        ({"member_id": "x" * 257}, "#/member_id", "at most 256 characters"),
        ({"member_id": f"{SECRET}\n"}, "#/member_id", "control characters"),
        ({"member_id": f"{SECRET}\x00"}, "#/member_id", "control characters"),
        ({"member_id": "m1", "k": 0}, "#/k", "greater than or equal to 1"),
        ({"member_id": "m1", "k": 10**6}, "#/k", "less than or equal to 1000"),
        ({"member_id": "m1", "k": -(10**30)}, "#/k", "greater than or equal to 1"),
        ({"member_id": "m1", "k": "5"}, "#/k", "integer"),
        ({"member_id": "m1", "k": 5.5}, "#/k", "integer"),
        ({"member_id": "m1", "k": True}, "#/k", "integer"),
        ({"member_id": "m1", "k": None}, "#/k", "integer"),
        ({"member_id": "m1", "deadline_ms": 0}, "#/deadline_ms", "greater than or equal to 1"),
        ({"member_id": "m1", "deadline_ms": 60_001}, "#/deadline_ms", "less than or equal to 60000"),
        ({"member_id": "m1", "explain": 1}, "#/explain", "boolean"),
        ({"member_id": "m1", "candidates": []}, "#/candidates", "at least 1 item"),
        ({"member_id": "m1", "candidates": ["f1"] * 1001}, "#/candidates", "at most 1000 items"),
        ({"member_id": "m1", "candidates": ["f1", "f2", "f1"]}, "#", "number 2 repeats number 0"),
        ({"member_id": "m1", "candidates": "f1"}, "#/candidates", "list"),
        ({"member_id": "m1", "candidates": ["f1", 7]}, "#/candidates/1", "object"),
        ({"member_id": "m1", "candidates": [{"title": SECRET}]}, "#/candidates/0/item_id", "is required"),
        ({"member_id": "m1", "context": [SECRET]}, "#/context", "dictionary"),
        ({"member": {"profil": SECRET}}, "#/member", "did you mean 'profile'?"),
        ({"member": {"profile": SECRET}}, "#/member/profile", "dictionary"),
        ({"member": {"timeline": [{"item_id": "f1"}]}}, "#/member/timeline/0/action", "is required"),
        ({"member": {"timeline": [{"item_id": "f1", "action": "like", "when": 3}]}},
         "#/member/timeline/0", "known keys"),
        ({"member": {"timeline": [{"item_id": "f1", "action": "like", "timestamp": SECRET}]}},
         "#/member/timeline/0/timestamp", "number"),
        ([], "#", "object"),
        (None, "#", "object"),
        (SECRET, "#", "object"),
        (7, "#", "object"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_422_and_named(client: Client, body: object, pointer: str, words: str) -> None:
    problem = assert_problem(client.ask("POST", RANK, json.dumps(body).encode()), 422)
    first = problem["errors"][0]
    assert first["pointer"] == pointer
    assert words in first["detail"]
    assert problem["detail"].startswith(f"{pointer}: ")


def test_every_wrong_field_is_named_up_to_a_limit(client: Client) -> None:
    body = {"member_id": 1, "k": 0, "deadline_ms": 0, "candidates": [0] * 500}
    problem = assert_problem(client.ask("POST", RANK, body), 422)
    assert {"#/member_id", "#/candidates/0"} <= {error["pointer"] for error in problem["errors"]}
    assert len(problem["errors"]) == 20
    assert "more)" in problem["detail"]


@pytest.mark.parametrize(
    ("surface", "body", "words"),
    [
        ("movie", {"member_id": "m1"}, "did you mean 'movies'?"),
        ("%00%0A", {"member_id": "m1"}, "no surface"),
        ("x" * 500, {"member_id": "m1"}, "no surface"),
        ("movies", {"member_id": "nobody"}, "unknown member 'nobody'"),
        ("movies", {"member_id": "'; drop table prismrank_members; --"}, "unknown member"),
        ("movies", {"member_id": "m1", "candidates": ["f1", "nothing", "void"]}, "unknown item 'nothing' and 1 more"),
        ("movies", {"member_id": "m1", "candidates": [{"item_id": "nothing"}]}, "unknown item 'nothing'"),
        ("movies", {"member": {"timeline": [{"item_id": "gone", "action": "like"}]}}, "unknown item 'gone'"),
    ],
)
def test_what_does_not_exist_is_404_and_named(client: Client, surface: str, body: object, words: str) -> None:
    problem = assert_problem(client.ask("POST", f"/v1/surfaces/{surface}/rank", body), 404)
    assert words in problem["detail"]
    assert len(problem["detail"]) < 400


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/v1", "/v1/surfaces/", "/v1/surfaces/movies/rank/", "/%ff", "/..", "//"]
)
def test_an_unknown_path_is_404(client: Client, path: str) -> None:
    assert_problem(client.ask("GET", path), 404)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", RANK), ("DELETE", RANK), ("POST", "/livez"), ("PUT", "/v1/surfaces")]
)
def test_a_wrong_method_is_405_and_the_right_one_is_named(client: Client, method: str, path: str) -> None:
    reply = client.ask(method, path)
    assert_problem(reply, 405)
    assert reply.headers["allow"] == ("POST" if path == RANK else "GET")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json"]
)
def test_a_body_that_does_not_say_it_is_json_is_415(client: Client, kind: str) -> None:
    problem = assert_problem(client.ask("POST", RANK, b'{"member_id": "m1"}', content_type=kind), 415)
    assert "Content-Type: application/json" in problem["detail"]


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"]
)
def test_json_by_any_of_its_names_is_taken(client: Client, kind: str) -> None:
    assert client.ask("POST", RANK, b'{"member_id": "m1"}', content_type=kind).status == 200


def test_a_key_that_comes_twice_is_refused(client: Client) -> None:
    body = b'{"member_id": "nobody", "k": 3, "member_id": "m1", "deadline_ms": 20000}'
    assert "'member_id' stands twice" in assert_problem(client.ask("POST", RANK, body), 400)["detail"]
    body = b'{"member_id": "m1", "context": {"' + SECRET.encode() + b'": 1, "' + SECRET.encode() + b'": 2}}'
    assert "a name stands twice" in assert_problem(client.ask("POST", RANK, body), 400)["detail"]


def raw(client: Client, request: bytes, *, shut: bool = False) -> bytes:
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(request)
        if shut:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while b"\r\n\r\n" not in received or b"}" not in received.rpartition(b"\r\n\r\n")[2]:
            chunk = connection.recv(65_536)
            if not chunk:
                break
            received += chunk
    return received


MAX_BODY_BYTES = Settings().max_body_bytes
HEAD = b"POST /v1/surfaces/movies/rank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def test_a_body_that_says_it_is_too_large_is_refused_unread(client: Client) -> None:
    reply = raw(client, HEAD + f"Content-Length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode())
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in reply
    assert_still_serving(client)


def test_a_body_that_grows_too_large_is_refused(client: Client) -> None:
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    count = MAX_BODY_BYTES // 65_536 + 1
    reply = raw(client, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * count + b"0\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert_still_serving(client)


def test_a_large_body_within_the_limit_is_read(client: Client) -> None:
    candidates = [{"item_id": f"x{n}", "title": "word " * 150} for n in range(1000)]
    body = json.dumps({"member_id": "m1", "candidates": candidates, "deadline_ms": 1}).encode()
    assert MAX_BODY_BYTES // 3 < len(body) < MAX_BODY_BYTES
    assert client.ask("POST", RANK, body).status == 200


@pytest.mark.parametrize("length", [b"-1", b"abc", b"1e3", "²".encode()])
def test_a_content_length_that_is_no_number_is_400(client: Client, length: bytes) -> None:
    assert raw(client, HEAD + b"Content-Length: " + length + b"\r\n\r\n{}").startswith(b"HTTP/1.1 400 ")
    assert_still_serving(client)


def test_a_client_that_stops_in_the_middle_of_its_body_does_no_harm(client: Client) -> None:
    raw(client, HEAD + b'Content-Length: 100\r\n\r\n{"member_id"', shut=True)
    assert_still_serving(client)


def test_a_failure_of_ours_is_500_without_details(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(member_id: str, newest: int) -> None:
        raise ValueError(f"{SECRET} {member_id}")

    monkeypatch.setattr(client.services.ledger, "visitor", fail)

    def told() -> list[tuple[str, int]]:
        """Lines of rankings: that of the probe before may come late, since a line is written after its answer."""
        lines = [record.fields for record in caplog.records if record.name == "prismrank.access"]  # type: ignore[attr-defined]
        return [(line["request"], line["status"]) for line in lines if line["route"].endswith("/rank")]

    with caplog.at_level(logging.INFO, "prismrank.access"):
        reply = client.rank(member_id="m1")
        end = time.monotonic() + 5
        while not told() and time.monotonic() < end:
            time.sleep(0.01)
    assert "log" in assert_problem(reply, 500)["detail"]
    assert told() == [(reply.headers["x-request-id"], 500)]


def test_a_ledger_that_cannot_be_read_is_503(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise LedgerError(f"the ledger cannot be read: {SECRET}")

    monkeypatch.setattr(client.services.ledger, "visitor", fail)
    reply = client.rank(member_id="m1")
    assert_problem(reply, 503)
    assert reply.headers["retry-after"] == "1"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(["member_id", "member", "candidates", "k", "context", "deadline_ms", "explain", "item_id"])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(body=JSON | st.dictionaries(KEYS, JSON, max_size=5))
def test_whatever_is_sent_it_is_answered_and_never_a_500(client: Client, body: object) -> None:
    reply = client.ask("POST", RANK, json.dumps(body).encode())
    assert reply.status in {200, 400, 404, 422}
    if reply.status != 200:
        assert reply.headers["content-type"] == "application/problem+json"


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(body=st.binary(max_size=200))
def test_whatever_bytes_are_sent_they_are_answered(client: Client, body: bytes) -> None:
    assert client.ask("POST", RANK, body).status in {400, 422}


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    profile=st.dictionaries(st.text(max_size=8), JSON, max_size=4), context=st.dictionaries(st.text(max_size=8), JSON)
)
def test_any_attributes_are_ranked(client: Client, profile: object, context: object) -> None:
    body = {
        "member": {"profile": profile, "timeline": [{"item_id": "x", "action": "like", "item": profile}]},
        "candidates": [{"item_id": "y", "attributes": context}],
        "context": context,
        "deadline_ms": 20_000,
        "explain": True,
    }
    reply = client.ask("POST", RANK, json.dumps(body).encode())
    assert reply.status in {200, 400}, reply.json
    if reply.status == 200:
        assert reply.json["degraded"] is False
