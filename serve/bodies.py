"""Bodies of requests, read strictly.

JSON as RFC 8259 has it: no NaN, no Infinity, no number that overflows to one, no lone surrogate, no endless nesting;
and no more bytes than there is room for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from email.message import Message
from http import HTTPStatus
from math import isfinite
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import ClientDisconnect

from serve.problems import Problem

MAX_BODY_BYTES = 2 * 1024 * 1024


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
        return parse(await self.body())

    async def _read(self) -> bytes:
        _check_length(self.headers.get("content-length", ""))
        body = bytearray()
        try:
            async for chunk in self.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise _too_large()
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


def parse(body: bytes) -> Any:
    """The JSON value of `body`. Raises Problem 400 that says where the trouble is, without repeating it."""
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"the body is not valid JSON: {error}") from None
    if not _finite(value):
        detail = "the body is not valid JSON: a number is too large for a 64-bit float"
        raise Problem(HTTPStatus.BAD_REQUEST, detail)
    return value


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


def _check_length(content_length: str) -> None:
    if content_length.isdecimal() and int(content_length) > MAX_BODY_BYTES:
        raise _too_large()


def _too_large() -> Problem:
    detail = f"the body is too large: at most {MAX_BODY_BYTES} bytes are read"
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
