"""HTTP/1.1 on one connection: uvicorn's, over llhttp, with bounds on a request's head, and problems for what is none.

A head may be so large and take so long; an offer to speak another protocol (`Upgrade`) is passed over, as RFC 9110,
section 7.8 allows, and its request is answered; whatever else is wrong gets a problem, and the connection ends.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from serve.doors import UNKNOWN
from serve.problems import Problem, ProblemResponse, detail_of
from serve.services import Services


class Protocol(HttpToolsProtocol):
    """The protocol of one connection. Its limits are those of the services' settings."""

    def __init__(self, *args: Any, services: Services, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.services, self.settings = services, services.settings
        self._in_head, self._passing_over = False, False
        self._hosts = self._head_bytes = 0
        self._late: asyncio.TimerHandle | None = None
        self._wrong: Problem | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody is there, and may take so long to say what for."""
        super().connection_made(transport)
        self._late = self.loop.call_later(self.settings.head_s, self._hang_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any longer."""
        self._on_time()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on. What is no HTTP is refused."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._pass_over(data[offer.args[0] :])
        except httptools.HttpParserError:
            self._refuse(self._wrong or _no_http())
        else:
            self._watch_head(len(data))

    def _watch_head(self, count: int) -> None:
        """So many bytes came; a head that they do not end may not go on for ever."""
        if not self._in_head:
            return
        self._head_bytes += count
        if self._head_bytes > self.settings.max_head_bytes:
            self._refuse(_too_large(self.settings.max_head_bytes))
        elif self._late is None:
            self._late = self.loop.call_later(self.settings.head_s, self._hang_up)

    def _pass_over(self, rest: bytes) -> None:
        """Goes on behind the head of a request that offered another protocol: its body is read as any other's."""
        parser = httptools.HttpRequestParser(self)
        framing = [b"%s: %s\r\n" % (name, value) for name, value in self.headers if name in _FRAMING]
        self.parser, self._passing_over = parser, True
        parser.feed_data(b"".join([b"POST / HTTP/1.1\r\n", *framing, b"\r\n"]))
        if rest:
            self.data_received(rest)

    def on_message_begin(self) -> None:
        """A head begins."""
        if not self._passing_over:
            self._in_head, self._hosts, self._head_bytes = True, 0, 0
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of what is asked for."""
        if not self._passing_over:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One line of the head."""
        if not self._passing_over:
            super().on_header(name, value)
            self._hosts += self.headers[-1][0] == b"host"

    def on_headers_complete(self) -> None:
        """The head is there. Raises Problem for one that is too large, or names no host."""
        if self._passing_over:
            self._passing_over = False
            return
        self._in_head = False
        self._on_time()
        size = len(self.url) + sum(len(name) + len(value) + len(b": \r\n") for name, value in self.headers)
        if size > self.settings.max_head_bytes:
            self._wrong = _too_large(self.settings.max_head_bytes)
        elif self._hosts != 1 and self.parser.get_http_version() == "1.1":
            self._wrong = _no_http("name the host, once, with the header Host")
        if self._wrong is not None:
            raise self._wrong
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body has ended; that of an offer, to which the parser grants none, is still to come."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _on_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _hang_up(self) -> None:
        """The head is late. Who has said nothing yet gets no answer, either."""
        if self._in_head:
            self._refuse(_late(self.settings.head_s))
        else:
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        """Answers what is no request, and ends the connection; an answer that is under way comes first."""
        self._on_time()
        self._in_head = False
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete and (cycle.response_started or not cycle.more_body):
            cycle.keep_alive = False
            self.flow.pause_reading()
            return
        self.services.figures.answered(UNKNOWN, "other", problem.status_code, 0.0)
        body = detail_of(problem).model_dump_json(exclude={"errors"}).encode()
        told = f"content-type: {ProblemResponse.media_type}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[problem.status_code] + told.encode() + body)
        self.transport.close()


_FRAMING = (b"content-length", b"transfer-encoding")
"""Headers that say where a body ends."""


def _no_http(right: str = "see RFC 9112 for what is one") -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, f"this is no request of HTTP/1.1: {right}")


def _too_large(limit: int) -> Problem:
    detail = f"path and headers are too large: at most {limit} bytes are read (max_head_bytes)"
    return Problem(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)


def _late(seconds: float) -> Problem:
    return Problem(HTTPStatus.REQUEST_TIMEOUT, f"path and headers must arrive within {seconds:g} s (head_s)")
