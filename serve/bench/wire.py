"""A small client of HTTP/1.1 on loopback. It shares its cores with the server that is measured, so it must be cheap."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import NamedTuple, Self
from urllib.parse import urlsplit

IDLE_S = 3.0
"""A connection that nobody used for so long is not used again: the server closes it after five."""
LIMIT_S = 60.0
"""A reply that takes longer counts as none."""


class Answer(NamedTuple):
    """What came back; `last`: the server closes the connection after it."""

    status: int
    body: bytes
    last: bool


class NoAnswerError(Exception):
    """A request got no reply. `sent`: all of it had been handed over; `accepted`: its connection was in use before."""

    def __init__(self, *, sent: bool, accepted: bool) -> None:
        super().__init__("no reply")
        self.sent, self.accepted = sent, accepted


def encoded(method: str, path: str, body: object = None) -> bytes:
    """A request as it travels; `body` is sent as JSON, or as it is if it is bytes."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


class Connection:
    """One connection, for one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.answered = 0
        self.used = asyncio.get_running_loop().time()

    @classmethod
    async def open(cls, url: str) -> Self:
        """A connection to the server at a URL. Raises NoAnswerError where it is refused."""
        place = urlsplit(url)
        try:
            return cls(*await asyncio.open_connection(place.hostname, place.port))
        except OSError:
            raise NoAnswerError(sent=False, accepted=False) from None

    @property
    def fresh(self) -> bool:
        """Whether it may be used once more."""
        idle = asyncio.get_running_loop().time() - self.used
        return idle < IDLE_S and not self.reader.at_eof() and not self.writer.is_closing()

    async def ask(self, request: bytes) -> Answer:
        """The reply to a request. Raises NoAnswerError, and then the connection is of no more use."""
        sent = False
        try:
            async with asyncio.timeout(LIMIT_S):
                self.writer.write(request)
                await self.writer.drain()
                sent = True
                answer = await self._read()
        except (OSError, EOFError, ValueError):
            self.close()
            raise NoAnswerError(sent=sent, accepted=self.answered > 0) from None
        except asyncio.CancelledError:
            self.close()
            raise
        self.answered += 1
        self.used = asyncio.get_running_loop().time()
        if answer.last:
            self.close()
        return answer

    async def _read(self) -> Answer:
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines if line)
        body = await self.reader.readexactly(int(headers.get(b"content-length", b"0")))
        return Answer(int(first.split()[1]), body, headers.get(b"connection") == b"close")

    def leave(self, request: bytes) -> None:
        """Sends a request and goes away without waiting for the reply."""
        self.writer.write(request)
        self.close()

    def close(self) -> None:
        """Ends it."""
        self.writer.close()


class Pool:
    """Connections to one server, as many as are needed at once."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._idle: deque[Connection] = deque()

    async def ask(self, request: bytes) -> Answer:
        """The reply to a request, on a connection that is free or a new one. Raises NoAnswerError."""
        connection = self._free() or await Connection.open(self.url)
        answer = await connection.ask(request)
        if not answer.last:
            self._idle.append(connection)
        return answer

    async def leave(self, request: bytes) -> None:
        """Sends a request and goes away. Raises NoAnswerError where the server does not listen."""
        (await Connection.open(self.url)).leave(request)

    def _free(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.fresh:
                return connection
            connection.close()
        return None

    def close(self) -> None:
        """Ends all that are free."""
        while self._idle:
            self._idle.pop().close()
