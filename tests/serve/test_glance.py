"""What is told at a glance is what the parser would read; everything else is left to the parser."""

from __future__ import annotations

import gc
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.glance import glance
from serve.keys import Keys, make
from serve.server import bind, serving
from serve.services import Services
from tests.serve.conftest import Client
from tests.serve.hostile import first_reply

BODY = b'{"member_id": "m1"}'
AT = b"POST /v1/surfaces/movies/rank HTTP/1.1\r\n"


def request(*lines: str, first: bytes = AT, body: bytes = BODY, length: int | str | None = None) -> bytes:
    found = ["Host: here", f"Content-Length: {len(body) if length is None else length}", *lines]
    return first + "".join(f"{line}\r\n" for line in found).encode() + b"\r\n" + body


class Parsed:
    """What llhttp makes of a request."""

    def __init__(self, data: bytes) -> None:
        self.url, self.headers, self.body, self.ends = b"", list[tuple[bytes, bytes]](), b"", 0
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)
        self.method = self.parser.get_method()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ends += 1


def test_a_plain_ranking_is_told() -> None:
    found = glance(request("Authorization: Bearer abc", "Connection: Keep-Alive"))
    assert found is not None
    assert (found.path, found.surface) == ("/v1/surfaces/movies/rank", "movies")
    assert dict(found.headers)[b"authorization"] == b"Bearer abc"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        request()[:-1],
        request() + b"G",
        request() * 2,
        request(length=5),
        request(length=f"0{len(BODY)}"),
        request(length=f"+{len(BODY)}"),
        request(length=f"{len(BODY)}, {len(BODY)}"),
        request(f"Content-Length: {len(BODY)}"),
        request("Host: there"),
        request("Transfer-Encoding: chunked"),
        request("Expect: 100-continue"),
        request("Upgrade: h2c"),
        request("Connection: close"),
        request("Connection: upgrade"),
        request("X: a\x00b"),
        request("X: a\tb"),
        request("X : b"),
        request(" folded: b"),
        request("X: a\rY: b"),
        request("X:"),
        request("X: é"),
        request(*(f"X{number}: b" for number in range(40))),
        request().replace(b"Host: here\r\n", b""),
        request().replace(b"\r\n", b"\n"),
        request(first=b"GET /v1/surfaces/movies/rank HTTP/1.1\r\n"),
        request(first=b"POST /v1/surfaces/movies/rank HTTP/1.0\r\n"),
        request(first=b"POST /v1/surfaces/movies/rank?x=1 HTTP/1.1\r\n"),
        request(first=b"POST /v1/surfaces/mov%69es/rank HTTP/1.1\r\n"),
        request(first=b"POST /v1/surfaces/movies/rank:batch HTTP/1.1\r\n"),
        request(first=b"POST http://here/v1/surfaces/movies/rank HTTP/1.1\r\n"),
    ],
)
def test_anything_else_is_left_to_the_parser(data: bytes) -> None:
    assert glance(data) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Host", "Content-Length", "content-length", "Accept", "X-A", "Connection", "TE"]),
            st.one_of(st.sampled_from(["2", "here", "keep-alive", "close", " 2 ", ""]), st.text(max_size=4)),
        ),
        max_size=5,
    ),
    st.sampled_from([b"{}", b"", b"{} ", b"POST / HTTP/1.1\r\n\r\n"]),
)
def test_what_is_told_is_what_the_parser_reads(headers: list[tuple[str, str]], body: bytes) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in [("Host", "here"), *headers])
    data = AT + lines.encode("utf-8", "surrogatepass") + b"\r\n" + body
    found = glance(data)
    if found is not None:
        parsed = Parsed(data)
        assert (parsed.method, parsed.url, parsed.ends) == (b"POST", found.path.encode(), 1)
        assert parsed.headers == found.headers
        assert data == data[: found.size] + parsed.body
        assert parsed.parser.should_keep_alive()
        assert not parsed.parser.should_upgrade()


# On a server that turns requests away


class Crowd:
    """Requests for films wait for their candidates longer than anybody may, while inside."""

    def __init__(self, services: Services) -> None:
        self.workers, self.gate = services.retrieval, threading.Event()

    def __enter__(self) -> None:
        self.gate.clear()
        self.workers._seconds = 1.0
        self.waiting = [self.workers.put("movies", self.gate.wait, 20) for _ in range(8)]

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        for each in self.waiting:
            each.result(20)
        self.workers._seconds = 0.0


def ask(connection: HTTPConnection, body: bytes = BODY, on: str = "movies", **headers: str) -> tuple[int, Any]:
    told = {"Content-Type": "application/json", **headers}
    connection.request("POST", f"/v1/surfaces/{on}/rank", body, told)
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read())


@contextmanager
def connected(client: Client) -> Iterator[HTTPConnection]:
    with closing(HTTPConnection("127.0.0.1", client.port, timeout=20)) as connection:
        yield connection


def test_who_is_turned_away_at_a_glance_reads_what_the_others_read(client: Client) -> None:
    found = []
    with Crowd(client.services), socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        for data in (request(), request("TE: trailers"), request(), request()):
            connection.sendall(data)
            reply = first_reply(connection)
            found.append((reply.status, reply.json, {**reply.headers, "x-request-id": "", "date": ""}))
    assert [status for status, *_ in found] == [503] * 4
    assert all(each == found[0] for each in found)
    assert 'status="503"} 4.0' in client.ask("GET", "/metrics").text


def test_a_key_is_asked_for_before_there_is_room_or_not(services: Services, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    ranker, writer = make(file, "ranker", ["rank"]), make(file, "writer", ["write"])
    with bind("127.0.0.1", 0) as bound, serving(services, bound, keys=Keys.load(file)) as url:
        client = Client(url, services)
        client.until_ready()
        with Crowd(services), connected(client) as connection:
            good = f"Bearer {ranker}"
            assert [ask(connection, Authorization=good)[0] for _ in range(2)] == [503, 503]
            assert ask(connection)[0] == 401
            assert ask(connection, Authorization=f"Bearer {writer}")[0] == 403
            assert ask(connection, Authorization=good)[0] == 503


def test_who_is_let_in_is_served_as_ever(client: Client) -> None:
    """Though others were turned away a moment ago."""
    with connected(client) as connection:
        with Crowd(client.services):
            assert [ask(connection)[0] for _ in range(2)] == [503, 503]
            assert ask(connection, on="nothing")[0] == 404
        status, told = ask(connection, b'{"member_id": "m1", "deadline_ms": 20000}')
        assert (status, told["degraded"]) == (200, False)
        assert ask(connection, b'{"k": 0}')[0] == 422
        assert ask(connection, b"{")[0] == 400
        assert client.services.admission._coming["movies"] == 0


def test_a_ranking_leaves_nothing_for_the_garbage_collector(client: Client) -> None:
    """Else a full collection, which walks all that the caches hold, stops every request now and then."""
    with connected(client) as connection:

        def once() -> list[int]:
            found = [ask(connection)[0] for _ in range(20)]
            with Crowd(client.services):
                return found + [ask(connection)[0] for _ in range(20)]

        assert once() == [200] * 20 + [503] * 20
        gc.collect()
        gc.disable()
        try:
            once()
            assert gc.collect() < 40, "one object a request would be forty"
        finally:
            gc.enable()
