"""What the tests of hostile requests share."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foundation.engine.torch import TorchEngine
from serve.problems import ProblemDetail
from serve.services import Services
from serve.settings import Settings
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from tests.serve.conftest import Client, Reply, fill, served

LIMITS = Settings(body_s=0.4, head_s=0.4)
SECRET = "zebra-4711"
"""Must come back in no answer."""
RANK, EVENTS, FILE = "POST /v1/surfaces/movies/rank", "POST /v1/events", "PUT /v1/surfaces/extra"


@contextmanager
def impatient(engine: TorchEngine, folder: Path) -> Iterator[Client]:
    """A client to a server that waits for nobody."""
    with Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}") as ledger:
        fill(ledger)
        with served(Services.open(ledger, engine, Registry.shipped(), settings=LIMITS)) as client:
            client.until_ready()
            yield client


def check_ranks(client: Client) -> None:
    """The server ranks on."""
    reply = client.rank(member_id="m1", candidates=["f1"], deadline_ms=20_000)
    assert (reply.status, reply.json["degraded"]) == (200, False)


def check(reply: Reply, status: int) -> None:
    """The status is this one, and an error is a problem that repeats nothing."""
    assert reply.status == status, reply.text[:500]
    if status >= 400:
        assert reply.headers["content-type"] == "application/problem+json"
        assert ProblemDetail.model_validate_json(reply.text, strict=True).status == status
        assert SECRET not in reply.text
        assert len(reply.text) < 5_000


def head(route: str = RANK, *lines: str, version: str = "1.1") -> bytes:
    """A request's head as it travels."""
    method, path = route.split(" ", 1)
    told = [f"{method} {path} HTTP/{version}", "Host: x", "Content-Type: application/json", *lines]
    return "\r\n".join([*told, "", ""]).encode("latin-1")


def first_reply(connection: socket.socket) -> Reply:
    """The first answer on a connection."""
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
