"""Hostile requests, each with the status that it gets; no answer repeats what it held, and the server ranks on."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import pytest

from foundation.engine.torch import TorchEngine
from serve.problems import ProblemDetail
from serve.services import Services
from serve.settings import Settings
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from tests.serve.conftest import Client, Reply, fill, served

LIMITS = Settings(body_s=0.4)
SECRET = "zebra-4711"
RANK, BATCH, PREVIEW = (f"POST /v1/surfaces/movies/{name}" for name in ("rank", "rank:batch", "preview"))
EVENTS, ITEMS, MEMBERS = "POST /v1/events", "PUT /v1/items", "PUT /v1/members"
FILE, ROLLBACK = "PUT /v1/surfaces/extra", "POST /v1/surfaces/movies/rollback"
JSON_ROUTES = (RANK, BATCH, PREVIEW, EVENTS, ITEMS, MEMBERS, ROLLBACK)
GOOD = {
    RANK: {"member_id": "m1", "k": 1},
    BATCH: {"requests": [{"member_id": "m1", "k": 1}]},
    PREVIEW: {"member_id": "m1", "k": 1},
    EVENTS: {"events": [{"member_id": "m1", "item_id": "f1", "surface": "movies", "action": "like", "timestamp": 1}]},
    ITEMS: {"items": [{"item_id": "i1", "kind": "movie"}]},
    MEMBERS: {"members": [{"member_id": "m1"}]},
    ROLLBACK: {"version": "no-such-version"},
}


@pytest.fixture(scope="module")
def client(tiny_engine: TorchEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("hostile")
    with Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}") as ledger:
        fill(ledger)
        with served(Services.open(ledger, tiny_engine, Registry.shipped(), settings=LIMITS)) as client:
            client.until_ready()
            yield client


@pytest.fixture(autouse=True)
def still_ranks(client: Client) -> Iterator[None]:
    yield
    reply = client.rank(member_id="m1", candidates=["f1"], deadline_ms=20_000)
    assert (reply.status, reply.json["degraded"]) == (200, False)


def ask(client: Client, route: str, body: bytes | None, **headers: str) -> Reply:
    method, path = route.split(" ")
    return client.ask(method, path, body, **headers)


def check(reply: Reply, status: int) -> None:
    """The status is this one, and an error is a problem that repeats nothing."""
    assert reply.status == status, reply.text[:500]
    if status >= 400:
        assert reply.headers["content-type"] == "application/problem+json"
        assert ProblemDetail.model_validate_json(reply.text, strict=True).status == status
        assert SECRET not in reply.text
        assert len(reply.text) < 5_000


def deep(count: int, begin: bytes, end: bytes) -> bytes:
    return begin * count + b"1" + end * count


NO_JSON: dict[str, bytes] = {
    "no JSON": b"zebra-4711",
    "cut off": b'{"member_id": "zebra-4711"',
    "comma at the end": b'{"zebra-4711": 1,}',
    "two values": b"{} {}",
    "a NUL": b"\x00",
    "a raw newline in a string": b'{"zebra-4711": "\n"}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"zebra-4711": 1}'.encode("utf-16"),
    "invalid UTF-8": b'{"zebra-4711": "\xff\xfe"}',
    "overlong UTF-8": b'{"zebra-4711": "\xc0\xaf"}',
    "raw surrogate": b'{"zebra-4711": "\xed\xa0\x80"}',
    "escaped lone surrogate": b'{"zebra-4711": "\\ud800"}',
    "escaped surrogates the wrong way round": b'{"zebra-4711": "\\udc00\\ud800"}',
    "lone surrogate in a name": b'{"\\udfff": "zebra-4711"}',
    "NaN": b'{"zebra-4711": NaN}',
    "Infinity": b'{"zebra-4711": Infinity}',
    "-Infinity": b'{"zebra-4711": -Infinity}',
    "1e999": b'{"zebra-4711": 1e999}',
    "-1e999 inside": b'{"a": [[{"b": -1e999}]]}',
    "an integer of 400 digits": b'{"zebra-4711": ' + b"9" * 400 + b"}",
    "an integer of 100k digits": b'{"zebra-4711": ' + b"9" * 100_000 + b"}",
    "a leading zero": b'{"zebra-4711": 01}',
    "a name twice": b'{"k": 1, "k": 2}',
    "a name twice by an escape": b'{"k": 1, "\\u006b": 2}',
    "a made-up name twice": b'{"zebra-4711": 1, "zebra-4711": 1}',
    "a name twice, inside": b'{"a": [{"b": {"k:k": "\\u003a", "c": 1, "c": 1}}]}',
    "a name twice, huge in the first": b'{"k": ' + b"9" * 4_000 + b', "k": 1}',
    "100k lists": deep(100_000, b"[", b"]"),
    "100k lists, open": b"[" * 100_000,
    "100k objects": deep(100_000, b'{"a":', b"}"),
    "one list too deep": deep(LIMITS.max_depth, b'{"a":[', b"]}"),
}


@pytest.mark.parametrize("name", NO_JSON)
@pytest.mark.parametrize("route", JSON_ROUTES)
def test_what_is_no_strict_json_is_400(client: Client, route: str, name: str) -> None:
    check(ask(client, route, NO_JSON[name]), 400)


WRONG: dict[str, bytes] = {
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "a string": b'"zebra-4711"',
    "a number": b"1",
    "infinite": b"1e999",
    "true": b"true",
    "an empty object": b"{}",
    "an unknown name": b'{"zebra-4711": 1}',
    "colons in names": b'{"zebra-4711:": ":", "a": "\\u003a"}',
    "as deep as allowed": deep(LIMITS.max_depth // 2, b'{"a":[', b"]}"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("route", JSON_ROUTES)
def test_json_that_is_no_request_is_422(client: Client, route: str, name: str) -> None:
    check(ask(client, route, WRONG[name]), 422)


HEADERS: dict[str, tuple[dict[str, str], int]] = {
    "no media type": ({"content_type": ""}, 415),
    "text": ({"content_type": "text/plain"}, 415),
    "a form": ({"content_type": "application/x-www-form-urlencoded"}, 415),
    "JSON lines": ({"content_type": "application/jsonl"}, 415),
    "two types": ({"content_type": "application/json, text/plain"}, 415),
    "UTF-16": ({"content_type": "application/json; charset=utf-16"}, 415),
    "Latin": ({"content_type": 'application/json; charset="iso-8859-1"'}, 415),
    "no charset that there is": ({"content_type": "application/json; charset=zebra-4711"}, 415),
    "gzip": ({"content_encoding": "gzip"}, 415),
    "gzip twice": ({"content_encoding": "identity, gzip"}, 415),
    "brotli": ({"content_encoding": "br"}, 415),
    "UTF-8": ({"content_type": "application/json;charset=UTF-8"}, 200),
    "as it is": ({"content_encoding": "identity"}, 200),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("route", JSON_ROUTES)
def test_what_the_headers_say_of_the_body(client: Client, route: str, name: str) -> None:
    headers, status = HEADERS[name]
    good = 404 if route == ROLLBACK else 200
    check(ask(client, route, json.dumps(GOOD[route]).encode(), **headers), good if status == 200 else status)


def test_a_compressed_body_is_told_to_come_as_it_is(client: Client) -> None:
    for route in (*JSON_ROUTES, FILE):
        reply = ask(client, route, gzip.compress(b"{}"), content_encoding="gzip")
        check(reply, 415)
        assert "not compressed" in reply.json["detail"]
        assert reply.headers["accept-encoding"] == "identity"


def member(**more: object) -> dict[str, object]:
    return {"member_id": "m1", "k": 1, "deadline_ms": 20_000, **more}


def inline(**event: object) -> dict[str, object]:
    timeline = [{"item_id": "x", "action": "like", "item": {}, **event}]
    return member(member_id=None, member={"timeline": timeline}, candidates=[{"item_id": "y", "title": "a"}])


def nested(depth: int) -> object:
    return [nested(depth - 1)] if depth else "zebra-4711"


RANKED: dict[str, tuple[object, int]] = {
    "k = 0": (member(k=0), 422),
    "k = -1": (member(k=-1), 422),
    "k = 1e9": (member(k=10**9), 422),
    "k = 1.5": (member(k=1.5), 422),
    "k = 5.0": (member(k=5.0), 200),
    "k = '5'": (member(k="5"), 422),
    "k = true": (member(k=True), 422),
    "k = null": (member(k=None), 422),
    "k beyond 64 bits": (member(k=2**64), 422),
    "k = 1e300": (member(k=1e300), 422),
    "deadline_ms = 0": (member(deadline_ms=0), 422),
    "deadline_ms = -5": (member(deadline_ms=-5), 422),
    "deadline_ms = 1e18": (member(deadline_ms=1e18), 422),
    "explain = 'yes'": (member(explain="yes"), 422),
    "both": (member(member={}), 422),
    "neither": ({"k": 1}, 422),
    "null for both": (member(member_id=None, member=None), 422),
    "a member that is SQL": (member(member_id="'; DROP TABLE prismrank_members; --"), 404),
    "a member of a template": (member(member_id="{{ 7 * 7 }}"), 404),
    "a member of 10k characters": (member(member_id="zebra-4711" * 1_000), 422),
    "a member of nothing": (member(member_id=""), 422),
    "a NUL in a name": (member(member_id="zebra-4711\x00"), 422),
    "bidi override in a name": (member(member_id="\u202em1"), 404),
    "zero width in a name": (member(member_id="m\u200b1"), 404),
    "a name in other digits": (member(member_id="m\uff11"), 404),
    "no candidates": (member(candidates=[]), 422),
    "10k candidates": (member(candidates=[f"{SECRET}-{n}" for n in range(10_000)]), 422),
    "1001 candidates": (member(candidates=[{"item_id": f"c{n}"} for n in range(1_001)]), 422),
    "a candidate twice": (member(candidates=["f1", {"item_id": "f1"}]), 422),
    "one letter, written in two ways": (
        member(candidates=[{"item_id": each, "title": "a"} for each in ("\u00e9", "e\u0301")]), 200),
    "NUL, bidi and zero width in attributes": (
        member(candidates=[{"item_id": "x", "title": "\x00\u202e\u200b\u2066"}]), 200),
    "a control token in attributes": (member(candidates=[{"item_id": "x", "title": "<|endoftext|></s>"}]), 200),
    "attributes that are deep": (member(candidates=[{"item_id": "x", "title": nested(55)}]), 200),
    "a context that is deep": (member(context={"query": nested(60)}), 200),
    "a context that is too deep": (member(context={"query": nested(70)}), 400),
    "a context that is wide": (member(context={f"k{n}": n for n in range(20_000)}), 200),
    "a number beyond 64 bits in a context": (member(context={"n": 2**200}), 200),
    "an event beyond 64 bits": (inline(timestamp=2**64), 422),
    "an event in the year 10000": (inline(timestamp=253_402_300_800), 422),
    "an event in the year 9999": (inline(timestamp=253_402_300_799), 200),
    "an event before 1970": (inline(timestamp=-1), 200),
    "an event in the year 0": (inline(timestamp=-62_135_596_801), 422),
    "an event in the year 1": (inline(timestamp=-62_135_596_800), 200),
    "an event at text": (inline(timestamp="zebra-4711"), 422),
    "10001 events": (
        member(member_id=None, member={"timeline": [{"item_id": "x", "action": "a"}] * 10_001}), 422),
}  # fmt: skip


@pytest.mark.parametrize("name", RANKED)
@pytest.mark.parametrize("route", [RANK, PREVIEW, BATCH])
def test_a_ranking_that_is_odd(client: Client, route: str, name: str) -> None:
    body, status = RANKED[name]
    body = {"requests": [body]} if route == BATCH else body
    check(ask(client, route, json.dumps(body).encode()), status)


def event(**more: object) -> dict[str, object]:
    return {"events": [{"member_id": "m9", "item_id": "f1", "surface": "movies", "action": "like", **more}]}


def item(**more: object) -> dict[str, object]:
    return {"items": [{"item_id": "odd", "kind": "odd", **more}]}


def person(**more: object) -> dict[str, object]:
    return {"members": [{"member_id": "odd", **more}]}


WRITTEN: dict[str, tuple[str, object, int]] = {
    "an event beyond 64 bits": (EVENTS, event(timestamp=2**64), 422),
    "an event in the year 10000": (EVENTS, event(timestamp=253_402_300_800), 422),
    "an event before 1970": (EVENTS, event(timestamp=-1.5), 200),
    "an event at true": (EVENTS, event(timestamp=True), 422),
    "position = -1": (EVENTS, event(position=-1), 422),
    "position beyond 31 bits": (EVENTS, event(position=2**31), 422),
    "position = 1.0": (EVENTS, event(position=1.0), 200),
    "propensity = 0": (EVENTS, event(propensity=0), 422),
    "propensity = 1.5": (EVENTS, event(propensity=1.5), 422),
    "value beyond 64 bits": (EVENTS, event(value=2**70), 200),
    "value = 1e308": (EVENTS, event(value=1e308), 200),
    "an event of nobody": (EVENTS, event(member_id="' OR 1=1 --"), 422),
    "an event with nothing": (EVENTS, event(item_id="nothing"), 422),
    "an action with a NUL": (EVENTS, event(action="\x00"), 422),
    "an event's id of 10k characters": (EVENTS, event(event_id=SECRET * 1_000), 422),
    "an unknown key of an event": (EVENTS, event(**{SECRET: 1}), 422),
    "no events": (EVENTS, {"events": []}, 422),
    "1001 events": (EVENTS, {"events": event()["events"] * 1_001}, 422),
    "events that are none": (EVENTS, {"events": [[]]}, 422),
    "an item that is SQL": (ITEMS, item(item_id="'); DROP TABLE prismrank_items; --"), 200),
    "an item of 10k characters": (ITEMS, item(item_id=SECRET * 1_000), 422),
    "an item with odd text": (ITEMS, item(title="\x00\u202e\u200b\u2066\ufeff"), 200),
    "an attribute with a control character": (ITEMS, item(**{"a\x00": 1}), 422),
    "an attribute without a name": (ITEMS, item(**{"": 1}), 422),
    "an attribute of 300 letters": (ITEMS, item(**{"zebra-4711" * 30: 1}), 422),
    "an attribute of 200 bits": (ITEMS, item(size=2**200), 200),
    "an attribute that is deep": (ITEMS, item(deep=nested(55)), 200),
    "an attribute of 1.2 million letters": (ITEMS, item(text="a" * 1_200_000), 422),
    "an item of nobody": (ITEMS, item(member_id=SECRET[:3]), 422),
    "no items": (ITEMS, {"items": []}, 422),
    "1001 items": (ITEMS, {"items": item()["items"] * 1_001}, 422),
    "a member with odd names": (MEMBERS, person(member_id="\u202e\u200be\u0301"), 200),
    "a member of an escape": (MEMBERS, person(member_id="\x1b[2J"), 422),
    "a profile with a taken name": (MEMBERS, person(profile={"member_id": 1}), 422),
    "a profile that is none": (MEMBERS, person(profile=[SECRET]), 422),
    "a profile that is null": (MEMBERS, person(profile=None), 422),
    "an unknown key of a member": (MEMBERS, person(**{SECRET: 1}), 422),
    "no members": (MEMBERS, {"members": []}, 422),
    "1001 members": (MEMBERS, {"members": person()["members"] * 1_001}, 422),
    "no requests": (BATCH, {"requests": []}, 422),
    "65 requests": (BATCH, {"requests": [{"member_id": "m1"}] * 65}, 422),
    "a version of SQL": (ROLLBACK, {"version": "' OR 1=1 --"}, 404),
    "a version of 65 letters": (ROLLBACK, {"version": "a" * 65}, 422),
    "a version that is a path": (ROLLBACK, {"version": "../../../etc/passwd"}, 404),
    "a version that is a number": (ROLLBACK, {"version": 1}, 422),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_a_body_that_is_odd(client: Client, name: str) -> None:
    route, body, status = WRITTEN[name]
    check(ask(client, route, json.dumps(body).encode()), status)


FILES: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 422),
    "no UTF-8": (b"surface: \xff\xfe", 400),
    "UTF-16": ("surface: extra".encode("utf-16"), 400),
    "a NUL": (b"surface: \x00", 422),
    "not a file": (b"[1, 2]", 422),
    "100k lists": (b"[" * 100_000, 422),
    "30k lists": (b"[" * 30_000, 422),
    "a bomb of aliases": (b"a: &a [1,1]\nb: &b [*a,*a]\nc: &c [*b,*b]\nsurface: [*c,*c]\n", 422),
    "an object of Python": (b"!!python/object/apply:os.system [ls]", 422),
    "a file beside it": (b"surface: extra\nprompt: {item: {file: /etc/passwd}}\n", 422),
    "a name twice": (b"surface: extra\nsurface: extra\n", 422),
    "half a character": (b'surface: extra\ndescription: "\\ud800"\n', 422),
    "half a character for a key": (b'surface: extra\n"\\udfff": 1\n', 422),
    "the halves the wrong way round": (b'surface: extra\n"\\udc00\\ud800": 1\n', 422),
    "another surface": (b"surface: other\n", 422),
    "a name beyond all": (b"surface: " + b"a" * 30_000, 422),
}


@pytest.mark.parametrize("name", FILES)
def test_a_surface_file_that_is_odd(client: Client, name: str) -> None:
    body, status = FILES[name]
    check(ask(client, FILE, body, content_type="application/yaml"), status)
    assert "extra" not in client.services.surface_names()


def head(route: str = RANK, *lines: str, version: str = "1.1") -> bytes:
    method, path = route.split(" ", 1)
    told = [f"{method} {path} HTTP/{version}", "Host: x", "Content-Type: application/json", *lines]
    return "\r\n".join([*told, "", ""]).encode("latin-1")


class Wire(NamedTuple):
    """What goes over the wire as it stands, the status, and whether the application answers, not the HTTP parser."""

    data: bytes
    status: int
    ours: bool = True


def sized(count: int) -> bytes:
    body = b'{"member_id": "m1", "k": 1}'
    return body + b" " * (count - len(body))


def chunked(body: bytes) -> bytes:
    return f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"


def test_a_surface_file_in_json_may_escape_any_character(client: Client) -> None:
    spec = client.ask("GET", "/v1/surfaces/movies").json["spec"]
    body = {"surface": "laughs", **{name: spec[name] for name in ("item_kind", "prompt", "heads")}}
    body |= {"description": "Laughs \U0001f600", "sources": [{"type": "popular", "k": 5}]}
    reply = client.ask("PUT", "/v1/surfaces/laughs", json.dumps(body).encode())
    check(reply, 201)
    assert reply.json["description"] == "Laughs \U0001f600"


LIMIT = LIMITS.max_body_bytes
FULL, OVER, SMALL = sized(LIMIT), sized(LIMIT + 1), sized(27)
CHUNKED = "Transfer-Encoding: chunked"
WIRE: dict[str, Wire] = {
    "at the limit": Wire(head(RANK, f"Content-Length: {LIMIT}") + FULL, 200),
    "beyond the limit": Wire(head(RANK, f"Content-Length: {LIMIT + 1}"), 413),
    "at the limit, in chunks": Wire(head(RANK, CHUNKED) + chunked(FULL), 200),
    "beyond the limit, in chunks": Wire(head(RANK, CHUNKED) + chunked(OVER), 413),
    "a file beyond the limit": Wire(head(FILE, f"Content-Length: {LIMIT + 1}"), 413),
    "a length of 19 digits": Wire(head(RANK, f"Content-Length: {'9' * 19}"), 413),
    "a length of 300 digits": Wire(head(RANK, f"Content-Length: {'9' * 300}"), 400, ours=False),
    "a length below zero": Wire(head(RANK, "Content-Length: -1"), 400, ours=False),
    "a length of letters": Wire(head(RANK, "Content-Length: abc"), 400, ours=False),
    "a length of a fraction": Wire(head(RANK, "Content-Length: 1e3"), 400, ours=False),
    "two lengths": Wire(head(RANK, "Content-Length: 27", "Content-Length: 28") + SMALL, 400, ours=False),
    "a length that says too little": Wire(head(RANK, "Content-Length: 5", "Connection: close") + SMALL, 400),
    "a length that says too much": Wire(head(RANK, "Content-Length: 99") + SMALL, 408),
    "a body that never begins": Wire(head(EVENTS, "Content-Length: 99"), 408),
    "a chunk that never ends": Wire(head(RANK, CHUNKED) + b"ff\r\nzebra", 408),
    "a chunk without a size": Wire(head(RANK, CHUNKED) + b"zebra-4711\r\n", 400, ours=False),
    "an unknown transfer encoding": Wire(head(RANK, "Transfer-Encoding: gzip") + SMALL, 400, ours=False),
    "no length": Wire(head(RANK), 422),
    "a length and chunks": Wire(head(RANK, CHUNKED, "Content-Length: 5", "Connection: close") + chunked(SMALL), 200),
    "a header of 1 MB": Wire(head(RANK, f"X-A: {'a' * 1_000_000}"), 400, ours=False),
    "50k headers": Wire(head(RANK, *[f"X-{n}: a" for n in range(50_000)]), 400, ours=False),
    "1k headers": Wire(head(RANK, *[f"X-{n}: a" for n in range(1_000)], "Content-Length: 27") + SMALL, 200),
    "no host": Wire(b"GET /livez HTTP/1.1\r\n\r\n", 400, ours=False),
    "a header without a name": Wire(head(RANK, ": a"), 400, ours=False),
    "a space before the colon": Wire(head(RANK, "X-A : a"), 400, ours=False),
    "a folded header": Wire(head(RANK, "X-A: a", " b", "Content-Length: 27") + SMALL, 200),
    "a NUL in a header": Wire(head(RANK, "X-A: \x00"), 400, ours=False),
    "HTTP/1.0": Wire(head(RANK, "Content-Length: 27", version="1.0") + SMALL, 200),
    "HTTP/9.9": Wire(head("GET /livez", version="9.9"), 200),
    "HTTP/2's first words": Wire(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404),
    "TLS": Wire(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, ours=False),
    "a path of 60k letters": Wire(head(f"GET /{'a' * 60_000}"), 404),
    "a path of 200k letters": Wire(head(f"GET /{'a' * 200_000}"), 400, ours=False),
    "a slash in a name": Wire(head("GET /v1/surfaces/movies%2Frank"), 405),
    "a slash in a name, twice over": Wire(head("GET /v1/surfaces/movies%252Frank"), 404),
    "a NUL in a name": Wire(head("GET /v1/surfaces/movies%00"), 404),
    "a line in a name": Wire(head("GET /v1/surfaces/zebra%0D%0AX-A:%20b"), 404),
    "half a letter in a name": Wire(head("GET /v1/surfaces/%ff%ed%a0%80"), 404),
    "a broken escape": Wire(head("GET /v1/surfaces/%zz%"), 404),
    "out of the folder": Wire(head("GET /v1/surfaces/../../../etc/passwd"), 404),
    "out of the folder, escaped": Wire(head("GET /v1/surfaces/%2e%2e%2f%2e%2e%2fetc%2fpasswd/versions"), 404),
    "up and down": Wire(head("GET /v1/surfaces/../surfaces"), 404),
    "an unknown path": Wire(head("GET /nothing"), 404),
    "a path in capitals": Wire(head("GET /V1/surfaces"), 404),
    "a slash at the end": Wire(head("GET /v1/surfaces/"), 404),
    "a whole URL for a path": Wire(head("GET http://x/livez"), 404),
    "a star for a path": Wire(head("OPTIONS *"), 404),
    "the wrong method": Wire(head("DELETE /v1/events"), 405),
    "HEAD": Wire(head("HEAD /v1/surfaces"), 405),
    "OPTIONS": Wire(head("OPTIONS /v1/events"), 405),
    "TRACE": Wire(head("TRACE /v1/events"), 405),
    "CONNECT": Wire(head("CONNECT x:80"), 404),
    "a method that nobody knows": Wire(head("ZEBRA /v1/events"), 405),
    "a method of 10k letters": Wire(head(f"{'Z' * 10_000} /v1/events"), 405),
    "a member who is SQL": Wire(head("DELETE /v1/members/'%20OR%201=1%20--"), 404),
    "a member of 10k letters": Wire(head(f"DELETE /v1/members/{'a' * 10_000}"), 404),
}


def over_the_wire(client: Client, data: bytes) -> Reply:
    """The first answer to what is sent as it stands."""
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before its end; the answer waits to be read
            connection.sendall(data)
        return first_reply(connection)


def first_reply(connection: socket.socket) -> Reply:
    received = b""
    while b"\r\n\r\n" not in received:
        received += more(connection)
    start, _, text = received.partition(b"\r\n\r\n")
    status, *lines = start.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    length = int(headers.get("content-length", 0)) if not status.endswith("(HEAD)") else 0
    while len(text) < length and (part := connection.recv(65_536)):
        text += part
    return Reply(int(status.split(" ")[1]), headers, text[:length].decode())


def more(connection: socket.socket) -> bytes:
    part = connection.recv(65_536)
    assert part, "it hung up without an answer"
    return part


@pytest.mark.parametrize("name", WIRE)
def test_over_the_wire(client: Client, name: str) -> None:
    data, status, ours = WIRE[name]
    if data.startswith(b"HEAD"):
        data = data.replace(b"Host: x", b"Host: x\r\nConnection: close")
    reply = over_the_wire(client, data)
    if ours and not data.startswith(b"HEAD"):
        check(reply, status)
    assert reply.status == status
    assert SECRET not in reply.text


def test_requests_that_come_at_once_are_answered_in_order(client: Client) -> None:
    asked = [head(RANK, "Content-Length: 27") + SMALL, head("GET /nothing"), head("GET /livez", "Connection: close")]
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(b"".join(asked))
        received = b""
        while part := connection.recv(65_536):
            received += part
    assert [answer[:3] for answer in received.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"200"]


@pytest.mark.parametrize("name", ["beyond the limit", "a length that says too much"])
def test_the_rest_of_a_body_is_no_request(client: Client, name: str) -> None:
    """What follows a body that was not read to its end is not taken for the next request."""
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(WIRE[name].data)
        assert first_reply(connection).headers["connection"] == "close"
        assert connection.recv(1) == b""


def test_those_who_stop_in_the_middle_are_in_nobodys_way(client: Client) -> None:
    slow = [socket.create_connection(("127.0.0.1", client.port), timeout=10) for _ in range(50)]
    try:
        for connection in slow:
            connection.sendall(head(RANK, "Content-Length: 99") + SMALL)
        began = time.monotonic()
        assert client.rank(member_id="m1", deadline_ms=20_000).status == 200
        assert time.monotonic() - began < 5
        assert {first_reply(connection).status for connection in slow} == {408}
    finally:
        for connection in slow:
            connection.close()
