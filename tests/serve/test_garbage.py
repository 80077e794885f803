"""A server leaves next to nothing for the garbage collector, which stops everybody and is asked seldom."""

from __future__ import annotations

import gc
import json
import socket
import time

import pytest

from tests.serve.conftest import Client

TIMES = 40

RANK, EVENTS = "/v1/surfaces/movies/rank", "/v1/events"
EVENT = {"member_id": "m1", "item_id": "f1", "surface": "movies", "action": "like"}


def request(path: str, told: object) -> bytes:
    body = json.dumps(told).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def come(client: Client, sent: bytes, *, wait: bool) -> None:
    """One connection, from its beginning to its end."""
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(sent)
        if wait:
            assert connection.recv(65_536)
        else:
            time.sleep(0.003)


SENT = {
    "a ranking": (request(RANK, {"member_id": "m1", "deadline_ms": 20_000}), True),
    "a client that leaves": (request(RANK, {"member_id": "m1"}), False),
    "nothing": (b"", False),
    "half a head": (b"POST / HTT", False),
    "half a body": (request(RANK, {"member_id": "m1"})[:-2], False),
    "no HTTP": (b"what?\r\n\r\n", True),
    "no JSON": (request(RANK, "")[:-1] + b"{", True),
    "an unknown member": (request(RANK, {"member_id": "nobody"}), True),
    "events": (request(EVENTS, {"events": [EVENT, {**EVENT, "timestamp": 5.0}]}), True),
}


@pytest.mark.parametrize("kind", SENT)
def test_a_connection_leaves_nothing_behind(client: Client, kind: str) -> None:
    """Each left forty objects that hold each other, and they their buffers: three megabytes a minute."""
    sent, wait = SENT[kind]
    for _ in range(5):
        come(client, sent, wait=wait)
    gc.collect()
    gc.disable()
    try:
        for _ in range(TIMES):
            come(client, sent, wait=wait)
        time.sleep(0.2)  # the server hears of the last one's end
        assert gc.collect() < TIMES, "one object a connection would be as many"
    finally:
        gc.enable()
