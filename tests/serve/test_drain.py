"""SIGTERM under load: whoever was taken in gets an answer."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path

from surfaces.ledger.store import Ledger
from tests.serve.conftest import fill
from tests.serve.processes import running

ASKED = json.dumps({"member_id": "m1", "k": 5, "deadline_ms": 20_000}).encode()
HEADERS = {"content-type": "application/json"}


def ask(connection: HTTPConnection) -> HTTPResponse:
    connection.request("POST", "/v1/surfaces/movies/rank", ASKED, HEADERS)
    response = connection.getresponse()
    response.read()
    return response


def ledger_at(folder: Path) -> str:
    url = f"sqlite:///{folder / 'ledger.sqlite'}"
    with Ledger.open(url) as ledger:
        fill(ledger)
    return url


def one_client(port: int) -> Counter[str]:
    """Asks until nobody listens any longer, on connections that are kept; what became of each request."""
    found: Counter[str] = Counter()
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    while True:
        try:
            if connection.sock is None:
                connection.connect()
        except OSError:
            return found
        try:
            found[str(ask(connection).status)] += 1
        except (OSError, HTTPException):
            found["lost"] += 1
            connection.close()


def test_no_request_that_was_taken_in_is_lost(tmp_path: Path) -> None:
    """Two lives, six clients on connections that they keep."""
    url = ledger_at(tmp_path)
    for life in range(2):
        with running(url) as server, ThreadPoolExecutor(6) as pool:
            clients = [pool.submit(one_client, server.port) for _ in range(6)]
            time.sleep(0.3 + 0.1 * life)
            server.process.terminate()
            found = sum((each.result() for each in clients), Counter[str]())
            server.process.wait(20)
        assert set(found) == {"200"}, found
        assert found["200"] >= 6


def test_it_says_that_it_leaves_and_takes_in_what_still_comes(tmp_path: Path) -> None:
    with running(ledger_at(tmp_path)) as server, ExitStack() as stack:

        def connected() -> HTTPConnection:
            return stack.enter_context(closing(HTTPConnection("127.0.0.1", server.port, timeout=20)))

        kept, probe = connected(), connected()
        assert ask(kept).getheader("connection") is None
        slow = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        slow.sendall(b"POST /v1/surfaces/movies/rank HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n")
        server.process.terminate()
        while "shutting down" not in (told := get(probe, "/readyz"))[1]:
            time.sleep(0.01)
        assert told[0] == 503
        answer = ask(kept)
        assert (answer.status, answer.getheader("connection")) == (200, "close")
        assert ask(connected()).status == 200, "a new one is taken in as well"
        slow.sendall(f"content-length: {len(ASKED)}\r\n\r\n".encode() + ASKED)
        assert slow.recv(100).split()[1] == b"200"
        assert server.process.wait(20) in (-signal.SIGTERM, 0)


def get(connection: HTTPConnection, path: str) -> tuple[int, str]:
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read().decode()
