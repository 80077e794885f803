"""Sees every request go out: counts and times it, and says one line of it in the log.

The line names the route as it is declared, never the path: a path may name a member.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from random import getrandbits

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.doors import place_of
from serve.problems import UNEXPECTED, problem_response
from serve.services import Services
from serve.traces import ended

access = logging.getLogger("prismrank.access")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
GONE = 499
"""What a request is counted as whose client left before the answer."""


class Watch:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self.app, self.services = app, services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on; its answer gets an id, `x-request-id`, that the log names."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, request_id = time.perf_counter(), GONE, new_id()

        async def out(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if self.services.leaving:  # whoever comes again shall find another server
                    headers["connection"] = "close"
            await send(message)

        method = scope["method"] if scope["method"] in METHODS else "other"
        route = place_of(scope["method"], scope["path"]).route
        with self.services.traces.request(method, route, Headers(scope=scope)) as span:
            try:
                await self.app(scope, receive, out)
            except Exception:
                if status == GONE:  # no answer has begun
                    await problem_response(UNEXPECTED)(scope, receive, out)
                raise
            finally:
                ended(span, status)
                self._tell(scope, request_id, method, route, status, time.perf_counter() - began)

    def _tell(self, scope: Scope, request_id: str, method: str, route: str, status: int, seconds: float) -> None:
        """Counts a request, and writes its line."""
        self.services.figures.answered(route, method, status, seconds)
        key = scope.get("key")
        told = {"request": request_id, "method": method, "route": route, "status": status}
        more = {"ms": round(1000 * seconds, 1), "key": key.name if key else None}
        access.info("request", extra={"fields": {**told, **more}})


def new_id() -> str:
    """Names a request, so that what is told of it can be found; it is no secret, and cheap."""
    return f"{getrandbits(128):032x}"


class JsonLines(logging.Formatter):
    """A record as one line of JSON: when, how grave, who says it, what; and the `fields` that came with it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            told["trace"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def log_to_stderr() -> None:
    """Makes every logger of this process write lines of JSON, from `info` up."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
