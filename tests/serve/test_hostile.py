"""Hostile requests, each with the status that it gets; no answer repeats what it held, and the server ranks on."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

import pytest

from foundation.engine.torch import TorchEngine
from tests.serve.conftest import Client, Reply
from tests.serve.hostile import EVENTS, FILE, LIMITS, RANK, SECRET, check, check_ranks, impatient

BATCH, PREVIEW = (f"POST /v1/surfaces/movies/{name}" for name in ("rank:batch", "preview"))
ITEMS, MEMBERS = "PUT /v1/items", "PUT /v1/members"
ROLLBACK = "POST /v1/surfaces/movies/rollback"
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
    with impatient(tiny_engine, tmp_path_factory.mktemp("hostile")) as client:
        yield client


@pytest.fixture(autouse=True)
def still_ranks(client: Client) -> Iterator[None]:
    yield
    check_ranks(client)


def ask(client: Client, route: str, body: bytes | None, **headers: str) -> Reply:
    method, path = route.split(" ")
    return client.ask(method, path, body, **headers)


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


def test_a_surface_file_in_json_may_escape_any_character(client: Client) -> None:
    spec = client.ask("GET", "/v1/surfaces/movies").json["spec"]
    body = {"surface": "laughs", **{name: spec[name] for name in ("item_kind", "prompt", "heads")}}
    body |= {"description": "Laughs \U0001f600", "sources": [{"type": "popular", "k": 5}]}
    reply = client.ask("PUT", "/v1/surfaces/laughs", json.dumps(body).encode())
    check(reply, 201)
    assert reply.json["description"] == "Laughs \U0001f600"
