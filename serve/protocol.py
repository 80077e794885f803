"""HTTP/1.1 on one connection: uvicorn's, over llhttp, with bounds on a request's head, and problems for what is none.

A head may be so large and take so long; an offer to speak another protocol (`Upgrade`) is passed over, as RFC 9110,
section 7.8 allows, and its request is answered; whatever else is wrong gets a problem, and the connection ends.
Where more is asked than there is room for, most requests are turned away. It is done here, at a tenth of what the
application would take for it from those who are let in.
"""

from __future__ import annotations

import asyncio
import logging
from functools import lru_cache
from http import HTTPStatus
from typing import Any, cast
from weakref import ref

import httptools
from starlette.exceptions import HTTPException
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from prompts.errors import CapacityError
from serve.doors import LOOKED, RANK, ROUTES, UNKNOWN, Doorkeeper, Place
from serve.glance import glance
from serve.problems import Problem, ProblemResponse, detail_of, problem_of
from serve.services import Services
from serve.watch import new_id

access = logging.getLogger("prismrank.access")

LINGER_S = 2.0
"""So long a connection that ends before all of a body was read goes on reading: else the client, which still sends, is
told that nobody listens, and never reads why."""
TOLD_S = 1.0
"""Requests that are turned away are told in the log together, so often."""


class Protocol(HttpToolsProtocol):
    """The protocol of one connection. Its limits are those of the services' settings."""

    def __init__(self, *args: Any, services: Services, keeper: Doorkeeper, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.services, self.settings, self.keeper = services, services.settings, keeper
        self._in_head, self._passing_over = False, False
        self._heads = self._hosts = self._head_bytes = 0
        self._late: asyncio.TimerHandle | None = None
        self._wrong: Problem | None = None
        self._lingers = False
        self._looked: Scope | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody is there, and may take so long to say what for."""
        super().connection_made(transport)
        self._late = self.loop.call_later(self.settings.head_s, self._hang_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any longer. What holds this protocol is let go: else it waits for the garbage collector."""
        self._on_time()
        super().connection_lost(exc)
        self.parser = self.cycle = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Reads on. What is no HTTP is refused."""
        self._unset_keepalive_if_required()
        if self.keeper.turned_away and self._at_a_glance(data):
            return
        while data and not self._lingers:
            data = self._read(data)
        if self._looked is not None:  # what was let in did not begin
            if ticket := self._looked["ticket"]:
                ticket.use()
            self._looked = None

    def _at_a_glance(self, data: bytes) -> bool:
        """Turns a request away for which there is no room; says whether it did. Who may stay is looked at once."""
        cycle: RequestResponseCycle | None = self.cycle
        begins = (cycle is None or cycle.response_complete) and not self._in_head and not self._lingers
        asked = glance(data) if begins and not self.services.leaving else None
        if asked is None or asked.size > self.settings.max_head_bytes:
            return False
        scope: Scope = {"method": "POST", "path": asked.path, "headers": asked.headers}
        self.keeper.look(scope, Place(RANK, ROUTES[RANK]["POST"], asked.surface))
        if isinstance(scope["refusal"], CapacityError):
            self._on_time()
            self._write(problem_of(scope["refusal"]), last=False)
            self._away(HTTPStatus.SERVICE_UNAVAILABLE)
            return True
        self._looked = scope
        return False

    def _read(self, data: bytes) -> bytes:
        """Reads, and returns what is behind an offer of another protocol, which is still to be read."""
        heads = self._heads
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            return data[offer.args[0] :] if self._pass_over() else b""
        except httptools.HttpParserError:
            self._refuse(self._wrong or _no_http())
            return b""
        self._watch_head(len(data) if heads == self._heads else 0)
        return b""

    def _watch_head(self, count: int) -> None:
        """So many bytes of a head came that began before; one that does not end may not go on for ever."""
        if not self._in_head:
            self._watch_idle()
            return
        self._head_bytes += count
        if self._head_bytes > self.settings.max_head_bytes:
            self._refuse(_too_large(self.settings.max_head_bytes))
        elif self._late is None:
            self._late = self.loop.call_later(self.settings.head_s, self._hang_up)

    def _watch_idle(self) -> None:
        """What comes after an answer does not keep the connection alive for ever."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and cycle.response_complete and self.timeout_keep_alive_task is None:
            handler = self.timeout_keep_alive_handler
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, handler)

    def _pass_over(self) -> bool:
        """Goes on behind the head of a request that offered another protocol: its body is read as any other's."""
        parser = httptools.HttpRequestParser(self)
        framing = [b"%s: %s\r\n" % (name, value) for name, value in self.headers if name in _FRAMING]
        self.parser, self._passing_over = parser, True
        try:
            parser.feed_data(b"".join([b"POST / HTTP/1.1\r\n", *framing, b"\r\n"]))
        except httptools.HttpParserError:
            self._refuse(_no_http())
            return False
        return True

    def on_message_begin(self) -> None:
        """A head begins."""
        if not self._passing_over:
            self._in_head, self._hosts, self._head_bytes = True, 0, 0
            self._heads += 1
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

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if looked := self._looked:
            self._looked = None
            for name in LOOKED:
                cycle.scope[name] = looked[name]  # type: ignore[literal-required]
        self.keeper.look(cycle.scope)  # type: ignore[arg-type]
        refusal = cycle.scope["refusal"]  # type: ignore[typeddict-item]
        if isinstance(refusal, CapacityError):
            self._turn_away(cycle, problem_of(refusal))
        else:
            cycle.transport = cast("asyncio.Transport", _Way(self, cycle))
            super()._start_asgi_task(cycle, app)

    def _turn_away(self, cycle: RequestResponseCycle, problem: HTTPException) -> None:
        """Answers a request without reading on; what there is of its body is passed over."""
        cycle.keep_alive = cycle.keep_alive and not self.services.leaving
        self._write(problem, last=not cycle.keep_alive)
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.linger()
        self._away(problem.status_code)

    def _away(self, status: int) -> None:
        """A request was turned away."""
        self.services.figures.answered(RANK, "POST", status, 0.0)
        self.services.rest.soon(self.loop)
        if self.keeper.turned_away == 0:
            self.loop.call_later(TOLD_S, _tell, self.keeper)
        self.keeper.turned_away += 1
        self.on_response_complete()

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
        self._write(problem, last=True)
        self.linger()

    def on_response_complete(self) -> None:
        """What comes next has its turn, unless the connection ends."""
        if not self._lingers:
            super().on_response_complete()

    def linger(self) -> None:
        """Says that nothing more comes, and ends the connection when the client does, or soon."""
        if self._lingers or self.transport.is_closing():
            return
        self._lingers = True
        self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(LINGER_S, self.transport.close)

    def _write(self, problem: HTTPException, *, last: bool) -> None:
        """Sends a problem as the answer to what came."""
        head, rest = _answer(problem.status_code, str(problem.detail), tuple((problem.headers or {}).items()), last)
        headers = b"".join([b"%s: %s\r\n" % each for each in self.server_state.default_headers])
        self.transport.write(b"%s%sx-request-id: %s%s" % (head, headers, new_id().encode(), rest))


class _Way:
    """The way back to a client, as the cycle of one request sees it."""

    def __init__(self, protocol: Protocol, cycle: RequestResponseCycle) -> None:
        self._protocol, self._transport = protocol, protocol.transport
        self._cycle = ref(cycle)  # which holds this way
        self.write, self.is_closing = self._transport.write, self._transport.is_closing

    def close(self) -> None:
        """Ends the connection, after a while where its client is still sending."""
        cycle = self._cycle()
        if cycle is not None and cycle.more_body and self._transport.can_write_eof():
            self._protocol.linger()
        else:
            self._transport.close()


@lru_cache(maxsize=256)
def _answer(status: int, detail: str, headers: tuple[tuple[str, str], ...], last: bool) -> tuple[bytes, bytes]:
    """A problem as it travels, in two parts: between them stand what changes from answer to answer, and its id."""
    body = detail_of(Problem(HTTPStatus(status), detail)).model_dump_json(exclude={"errors"})
    lines = [f"content-type: {ProblemResponse.media_type}", f"content-length: {len(body.encode())}"]
    lines += [f"{name.lower()}: {value}" for name, value in headers] + ["connection: close"] * last
    return STATUS_LINE[status], "\r\n".join(["", *lines, "", body]).encode()


def _tell(keeper: Doorkeeper) -> None:
    """Says one line of all that were turned away lately."""
    fields = {"method": "POST", "route": RANK, "status": int(HTTPStatus.SERVICE_UNAVAILABLE)}
    access.info("turned away", extra={"fields": {**fields, "requests": keeper.turned_away}})
    keeper.turned_away = 0


_FRAMING = (b"content-length", b"transfer-encoding")
"""Headers that say where a body ends."""


def _no_http(right: str = "see RFC 9112 for what is one") -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, f"this is no request of HTTP/1.1: {right}")


def _too_large(limit: int) -> Problem:
    detail = f"path and headers are too large: at most {limit} bytes are read (max_head_bytes)"
    return Problem(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)


def _late(seconds: float) -> Problem:
    return Problem(HTTPStatus.REQUEST_TIMEOUT, f"path and headers must arrive within {seconds:g} s (head_s)")
