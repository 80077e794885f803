"""Bodies of requests, read strictly.

JSON as RFC 8259 has it: no NaN, no Infinity, no number that overflows to one, no lone surrogate, no endless nesting;
and no more bytes than there is room for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from email.message import Message
from http import HTTPStatus
from math import isfinite
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import ClientDisconnect

from serve.problems import FieldProblem, Problem
from serve.settings import Settings


class StrictRequest(Request):
    """A request whose JSON body is read strictly. Raises Problem 400, 413 or 415."""

    async def body(self) -> bytes:
        """The whole body, if it is JSON by its media type and small enough."""
        if not hasattr(self, "_body"):
            _check_media_type(self.headers.get("content-type", ""))
            self._body = await self._read()
        return self._body

    async def text(self) -> str:
        """The whole body as text, whatever its media type says, if it is small enough and UTF-8."""
        try:
            return (await self._read()).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Problem(HTTPStatus.BAD_REQUEST, f"the body is no UTF-8 text (byte {error.start})") from None

    async def json(self) -> Any:
        """The body's value."""
        value = parse(await self.body(), self.settings.max_depth)
        check_sizes(value, self.settings)
        return value

    @property
    def settings(self) -> Settings:
        """The server's limits."""
        settings: Settings = self.app.state.services.settings
        return settings

    async def _read(self) -> bytes:
        limit = self.settings.max_body_bytes
        _check_length(self.headers.get("content-length", ""), limit)
        body = bytearray()
        try:
            async for chunk in self.stream():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
        except ClientDisconnect:
            raise Problem(HTTPStatus.BAD_REQUEST, "the connection closed before the body was complete") from None
        return bytes(body)


class StrictRoute(APIRoute):
    """A route that reads its body through `StrictRequest`, and notes in `request.state.arrived` when it began."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, behind a strict request."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            request.state.arrived = asyncio.get_running_loop().time()
            return await handle(StrictRequest(request.scope, request.receive))

        return strict


def parse(body: bytes, max_depth: int) -> Any:
    """The JSON value of `body`. Raises Problem 400 that says where the trouble is, without repeating it."""
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"the body is not valid JSON: {error}") from None
    if _deep(value, max_depth):
        detail = f"the body is nested too deep: at most {max_depth} lists and objects within each other are read"
        raise Problem(HTTPStatus.BAD_REQUEST, detail)
    if not _finite(value):
        detail = "the body is not valid JSON: a number is too large for a 64-bit float"
        raise Problem(HTTPStatus.BAD_REQUEST, detail)
    return value


LISTS: Mapping[tuple[str, ...], str] = {
    ("candidates",): "max_candidates",
    ("member", "timeline"): "max_timeline",
    ("events",): "max_rows",
    ("items",): "max_rows",
    ("members",): "max_rows",
    ("requests",): "max_batch",
    ("documents",): "max_candidates",
    ("input",): "max_inputs",
}
"""Which setting bounds which list of a body."""


def check_sizes(value: Any, settings: Settings, where: str = "#") -> None:
    """Raises Problem 422 for a list that is longer than the settings allow, before any of it is looked at."""
    for path, name in LISTS.items():
        found = value
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        limit: int = getattr(settings, name)
        if isinstance(found, list) and len(found) > limit:
            pointer, detail = "/".join([where, *path]), f"should have at most {limit} items ({name})"
            wrong = FieldProblem(pointer=pointer, detail=detail)
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{pointer}: {detail}", errors=[wrong])
    many = value.get("requests") if isinstance(value, dict) and where == "#" else None
    for place, each in enumerate(many if isinstance(many, list) else ()):
        check_sizes(each, settings, f"#/requests/{place}")


def _deep(value: object, room: int) -> bool:
    """Whether there are more than so many lists and objects within each other; the parser has bounded the depth."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not isinstance(value, dict | list):
        return False
    return room == 0 or any(_deep(each, room - 1) for each in inside)


def _finite(value: object) -> bool:
    """Whether every number inside has a finite float."""
    match value:
        case dict():
            return all(map(_finite, value.values()))
        case list():
            return all(map(_finite, value))
        case float():
            return isfinite(value)
        case int():
            return abs(value) < 2**1023
    return True


def _check_media_type(content_type: str) -> None:
    message = Message()
    message["content-type"] = content_type
    kind, subtype = message.get_content_maintype(), message.get_content_subtype()
    if not content_type or kind != "application" or not (subtype == "json" or subtype.endswith("+json")):
        detail = "the body must be JSON and say so, with the header Content-Type: application/json"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)


def _check_length(content_length: str, limit: int) -> None:
    if len(content_length) > 20 or (content_length.isdecimal() and int(content_length) > limit):
        raise _too_large(limit)


def _too_large(limit: int) -> Problem:
    detail = f"the body is too large: at most {limit} bytes are read (max_body_bytes)"
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
