"""A server over services: in the foreground, or in a thread beside other work."""

from __future__ import annotations

import asyncio
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI

from foundation.engine.heap import collecting_seldom, trimming
from prompts.errors import ConfigError, PrismrankError
from serve.app import create_app
from serve.keys import Keys
from serve.models import Shelf
from serve.protocol import Protocol
from serve.services import Services
from serve.watch import log_to_stderr

START_LIMIT_S = 60.0
SWITCH_S = 0.001
"""So soon a thread that waits for the interpreter has it: at Python's own 5 ms replies wait for whoever computes."""
AT_ONCE = 16
"""So many connections are taken in each time that the event loop wakes: libuv accepts one for each socket that listens,
and a rush of connections would wait for as many turns of the loop."""
LINGER_S = 0.5
"""So long a connection that was taken in may be silent when the server goes."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that has its address but takes no calls yet; port 0 is any free one.

    Raises ConfigError when the address is not to be had.
    """
    # The protocol is named: where it is 0, asyncio leaves Nagle's algorithm on, and every reply takes 40 ms longer.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot listen on {host}, port {port}: {reason}") from None
    return bound


def address(bound: socket.socket) -> str:
    """The URL under which it is reached."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn, that leaves without losing anybody.

    At SIGTERM it says that it is not ready and asks every client to connect anew, but takes in what comes for
    `drain_s` seconds; then it listens no longer, and answers what it has taken in.
    """

    def __init__(self, config: uvicorn.Config, services: Services, drain_s: float) -> None:
        super().__init__(config)
        self.services, self.drain_s = services, drain_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came. At Ctrl-C nobody waits for a load balancer."""
        if sig == signal.SIGINT:
            self.drain_s = 0.0
        super().handle_exit(sig, frame)

    async def main_loop(self) -> None:
        """Serves until a signal ends it, and a while longer."""
        await super().main_loop()
        self.services.leaving = True
        end = time.monotonic() + self.drain_s
        while time.monotonic() < end and self.drain_s:
            await asyncio.sleep(0.02)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes in whoever is connected already, listens no longer, and ends with the last answer."""
        listening = select.poll()
        for bound in sockets or ():
            listening.register(bound, select.POLLIN)
        while listening.poll(0):
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        end = time.monotonic() + LINGER_S
        while time.monotonic() < end and any(_silent(each) for each in self.server_state.connections):
            await asyncio.sleep(0.005)
        await super().shutdown(sockets)


def _silent(connection: object) -> bool:
    """Whether nothing of a first request has been read yet."""
    return getattr(connection, "cycle", None) is None


def serve(
    services: Services, bound: socket.socket, folder: Path | None = None, keys: Keys | None = None,
    shelf: Shelf | None = None,
) -> None:  # fmt: skip
    """Serves until a signal ends it, and follows the surface files of `folder`."""
    log_to_stderr()
    app = create_app(services, folder, keys, shelf)
    with collecting_seldom(), trimming(), _listening(bound) as sockets:
        _server(app, services, services.settings.drain_s, log_level="info").run(sockets=sockets)


@contextmanager
def serving(
    services: Services, bound: socket.socket, folder: Path | None = None, keys: Keys | None = None,
    shelf: Shelf | None = None,
) -> Iterator[str]:  # fmt: skip
    """Serves from a thread while inside; gives the URL. Raises PrismrankError when it does not start."""
    server = _server(create_app(services, folder, keys, shelf), services, 0.0, log_level="warning")

    def work() -> None:
        with suppress(SystemExit), collecting_seldom(), _listening(bound) as sockets:
            server.run(sockets=sockets)  # it exits where it could not start

    thread = threading.Thread(target=work, name="server")
    thread.start()
    try:
        _wait_for(server, thread)
        yield address(bound)
    finally:
        server.should_exit = True
        thread.join()


def _server(app: FastAPI, services: Services, drain_s: float, *, log_level: str) -> Server:
    sys.setswitchinterval(SWITCH_S)
    made = partial(Protocol, services=services, keeper=app.state.keeper)
    http = cast("type[asyncio.Protocol]", made)  # uvicorn only calls it
    config = uvicorn.Config(
        app,
        http=http,
        ws="none",
        lifespan="on",
        log_level=log_level,
        log_config=None,
        access_log=False,
        proxy_headers=False,
    )
    return Server(config, services, drain_s)


@contextmanager
def _listening(bound: socket.socket) -> Iterator[list[socket.socket]]:
    """The same socket under several file descriptors."""
    with ExitStack() as more:
        yield [bound, *(more.enter_context(bound.dup()) for _ in range(AT_ONCE - 1))]


def _wait_for(server: uvicorn.Server, thread: threading.Thread) -> None:
    end = time.monotonic() + START_LIMIT_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > end:
            raise PrismrankError("the server did not start; its log says why")
        time.sleep(0.005)
