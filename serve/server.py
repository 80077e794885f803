"""A server over services: in the foreground, or in a thread beside other work."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn

from prompts.errors import ConfigError, PrismrankError
from serve.app import create_app
from serve.keys import Keys
from serve.services import Services
from serve.watch import log_to_stderr

START_LIMIT_S = 60.0


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


def serve(services: Services, bound: socket.socket, folder: Path | None = None, keys: Keys | None = None) -> None:
    """Serves until a signal ends it, and follows the surface files of `folder`."""
    log_to_stderr()
    _server(services, folder, keys, log_level="info").run(sockets=[bound])


@contextmanager
def serving(
    services: Services, bound: socket.socket, folder: Path | None = None, keys: Keys | None = None
) -> Iterator[str]:
    """Serves from a thread while inside; gives the URL. Raises PrismrankError when it does not start."""
    server = _server(services, folder, keys, log_level="warning")

    def work() -> None:
        with suppress(SystemExit):  # its way to say that it could not start
            server.run(sockets=[bound])

    thread = threading.Thread(target=work, name="server")
    thread.start()
    try:
        _wait_for(server, thread)
        yield address(bound)
    finally:
        server.should_exit = True
        thread.join()


def _server(services: Services, folder: Path | None, keys: Keys | None, *, log_level: str) -> uvicorn.Server:
    # What is loaded by now stays: without this, each full collection walks all of it and stops every request for 0.2 s.
    gc.collect()
    gc.freeze()
    app = create_app(services, folder, keys)
    config = uvicorn.Config(app, log_level=log_level, log_config=None, access_log=False, lifespan="on")
    return uvicorn.Server(config)


def _wait_for(server: uvicorn.Server, thread: threading.Thread) -> None:
    end = time.monotonic() + START_LIMIT_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > end:
            raise PrismrankError("the server did not start; its log says why")
        time.sleep(0.005)
