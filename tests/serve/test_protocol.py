"""Requests as they go over the wire, each with the status that it gets; no answer repeats what it held."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import pytest

from foundation.engine.torch import TorchEngine
from tests.serve.conftest import Client, Reply
from tests.serve.hostile import (
    EVENTS,
    FILE,
    LIMITS,
    RANK,
    SECRET,
    check,
    check_ranks,
    first_reply,
    head,
    impatient,
)


@pytest.fixture(scope="module")
def client(tiny_engine: TorchEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with impatient(tiny_engine, tmp_path_factory.mktemp("wire")) as client:
        yield client


@pytest.fixture(autouse=True)
def still_ranks(client: Client) -> Iterator[None]:
    yield
    check_ranks(client)


class Wire(NamedTuple):
    """What goes over the wire as it stands, and the status."""

    data: bytes
    status: int


def sized(count: int) -> bytes:
    body = b'{"member_id": "m1", "k": 1}'
    return body + b" " * (count - len(body))


def chunked(body: bytes) -> bytes:
    return f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"


LIMIT = LIMITS.max_body_bytes
FULL, OVER, SMALL = sized(LIMIT), sized(LIMIT + 1), sized(27)
CHUNKED = "Transfer-Encoding: chunked"
LAST = "Connection: close"
OFFER = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ")
WIRE: dict[str, Wire] = {
    "at the limit": Wire(head(RANK, f"Content-Length: {LIMIT}") + FULL, 200),
    "beyond the limit": Wire(head(RANK, f"Content-Length: {LIMIT + 1}"), 413),
    "at the limit, in chunks": Wire(head(RANK, CHUNKED) + chunked(FULL), 200),
    "beyond the limit, in chunks": Wire(head(RANK, CHUNKED) + chunked(OVER), 413),
    "a file beyond the limit": Wire(head(FILE, f"Content-Length: {LIMIT + 1}"), 413),
    "a length of 19 digits": Wire(head(RANK, f"Content-Length: {'9' * 19}"), 413),
    "a length of 300 digits": Wire(head(RANK, f"Content-Length: {'9' * 300}"), 400),
    "a length below zero": Wire(head(RANK, "Content-Length: -1"), 400),
    "a length of letters": Wire(head(RANK, "Content-Length: abc"), 400),
    "a length of a fraction": Wire(head(RANK, "Content-Length: 1e3"), 400),
    "two lengths": Wire(head(RANK, "Content-Length: 27", "Content-Length: 28") + SMALL, 400),
    "a length that says too little": Wire(head(RANK, "Content-Length: 5", "Connection: close") + SMALL, 400),
    "a length that says too much": Wire(head(RANK, "Content-Length: 99") + SMALL, 408),
    "a body that never begins": Wire(head(EVENTS, "Content-Length: 99"), 408),
    "a chunk that never ends": Wire(head(RANK, CHUNKED) + b"ff\r\nzebra", 408),
    "a chunk without a size": Wire(head(RANK, CHUNKED) + b"zebra-4711\r\n", 400),
    "an unknown transfer encoding": Wire(head(RANK, "Transfer-Encoding: gzip") + SMALL, 400),
    "no length": Wire(head(RANK), 422),
    "a length and chunks": Wire(head(RANK, CHUNKED, "Content-Length: 5", "Connection: close") + chunked(SMALL), 400),
    "a header of 1 MB": Wire(head(RANK, f"X-A: {'a' * 1_000_000}"), 431),
    "50k headers": Wire(head(RANK, *[f"X-{n}: a" for n in range(50_000)]), 431),
    "1k headers": Wire(head(RANK, *[f"X-{n}: a" for n in range(1_000)], "Content-Length: 27") + SMALL, 200),
    "two hosts": Wire(head(RANK, "Host: y"), 400),
    "no host": Wire(b"GET /livez HTTP/1.1\r\n\r\n", 400),
    "a header without a name": Wire(head(RANK, ": a"), 400),
    "a space before the colon": Wire(head(RANK, "X-A : a"), 400),
    "a folded header": Wire(head(RANK, "X-A: a", " b", "Content-Length: 27") + SMALL, 400),
    "a NUL in a header": Wire(head(RANK, "X-A: \x00"), 400),
    "half a head": Wire(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-A: zebra", 408),
    "half a path": Wire(b"GET /zebra", 408),
    "an offer of another protocol": Wire(head(RANK, *OFFER, "Content-Length: 27") + SMALL, 200),
    "an offer, with a body in chunks": Wire(head(RANK, *OFFER, CHUNKED) + chunked(SMALL), 200),
    "an offer, without a body": Wire(head("GET /livez", *OFFER), 200),
    "an offer of a socket": Wire(head("GET /livez", "Connection: Upgrade", "Upgrade: websocket"), 200),
    "an offer, and no chunks": Wire(head(RANK, *OFFER, CHUNKED) + b"zebra-4711\r\n", 400),
    "HTTP/1.0": Wire(head(RANK, "Content-Length: 27", version="1.0") + SMALL, 200),
    "HTTP/9.9": Wire(head("GET /livez", version="9.9"), 400),
    "HTTP/2's first words": Wire(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS": Wire(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "a path of 60k letters": Wire(head(f"GET /{'a' * 60_000}"), 404),
    "a path of 200k letters": Wire(head(f"GET /{'a' * 200_000}"), 431),
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
    "a whole URL for a path": Wire(head("GET http://x/livez"), 200),
    "a star for a path": Wire(head("OPTIONS *"), 404),
    "the wrong method": Wire(head("DELETE /v1/events"), 405),
    "HEAD": Wire(head("HEAD /v1/surfaces"), 405),
    "OPTIONS": Wire(head("OPTIONS /v1/events"), 405),
    "TRACE": Wire(head("TRACE /v1/events"), 405),
    "CONNECT": Wire(head("CONNECT x:80"), 400),
    "a method that nobody knows": Wire(head("ZEBRA /v1/events"), 400),
    "a method of 10k letters": Wire(head(f"{'Z' * 10_000} /v1/events"), 400),
    "a member who is SQL": Wire(head("DELETE /v1/members/'%20OR%201=1%20--"), 404),
    "a member of 10k letters": Wire(head(f"DELETE /v1/members/{'a' * 10_000}"), 404),
}


def over_the_wire(client: Client, data: bytes) -> Reply:
    """The first answer to what is sent as it stands."""
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before its end; the answer waits to be read
            connection.sendall(data)
        return first_reply(connection)


@pytest.mark.parametrize("name", WIRE)
def test_over_the_wire(client: Client, name: str) -> None:
    data, status = WIRE[name]
    if data.startswith(b"HEAD"):
        data = data.replace(b"Host: x", b"Host: x\r\nConnection: close")
    reply = over_the_wire(client, data)
    if not data.startswith(b"HEAD"):
        check(reply, status)
    assert reply.status == status
    assert SECRET not in reply.text


def test_requests_that_come_at_once_are_answered_in_order(client: Client) -> None:
    offer = head(RANK, *OFFER, "Content-Length: 27") + SMALL
    asked = [head(RANK, "Content-Length: 27") + SMALL, offer, head("GET /nothing"), head("GET /livez", LAST)]
    assert statuses(client, b"".join(asked)) == [200, 200, 404, 200]


def test_many_offers_at_once_are_passed_over(client: Client) -> None:
    asked = [*[head("GET /livez", *OFFER)] * 1_500, head("GET /livez", LAST)]
    assert statuses(client, b"".join(asked)) == [200] * 1_501


def test_requests_that_come_byte_by_byte_are_answered_too(client: Client) -> None:
    asked = [head(RANK, *OFFER, "Content-Length: 27") + SMALL, head("GET /livez", LAST)]
    assert statuses(client, *(bytes([byte]) for byte in b"".join(asked))) == [200, 200]


def test_what_is_no_request_does_not_take_the_place_of_an_answer(client: Client) -> None:
    """A request is answered, and the connection ends, whatever came behind it."""
    assert statuses(client, head(RANK, "Content-Length: 27") + SMALL + b"\x16\x03zebra") == [200]


def test_who_says_nothing_hears_nothing(client: Client) -> None:
    assert statuses(client) == []


def test_a_connection_may_rest_between_requests(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        for _ in range(2):
            connection.sendall(head("GET /livez"))
            assert first_reply(connection).status == 200
            time.sleep(2 * LIMITS.head_s)


def statuses(client: Client, *parts: bytes) -> list[int]:
    """Those of all answers to what is sent in parts, until the server hangs up."""
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)
        received = b""
        while part := connection.recv(65_536):
            received += part
    return [int(answer[:3]) for answer in received.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize("name", ["beyond the limit", "a length that says too much"])
def test_the_rest_of_a_body_is_no_request(client: Client, name: str) -> None:
    """What follows a body that was not read to its end is not taken for the next request."""
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(WIRE[name].data)
        assert first_reply(connection).headers["connection"] == "close"
        assert connection.recv(1) == b""


def test_who_sends_too_much_hears_why(client: Client) -> None:
    """The answer waits for a client that reads only after it has sent everything."""
    for data in (head(RANK, f"Content-Length: {8 * LIMIT}") + sized(8 * LIMIT), head(f"GET /{'a' * 8 * LIMIT}")):
        with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
            connection.sendall(data)
            time.sleep(0.1)
            assert first_reply(connection).status in (413, 431)
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
