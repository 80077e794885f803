"""Bodies of requests, read strictly.

JSON as RFC 8259 has it: no NaN, no Infinity, no number that overflows to one, no lone surrogate, no endless nesting,
and no name twice in an object, for readers would differ over which one counts; no more bytes than there is room for,
and none that are long in coming.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from email.message import Message
from http import HTTPStatus
from itertools import chain
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import ClientDisconnect

from serve.problems import FieldProblem, Problem
from serve.schemas import FIELDS
from serve.settings import Settings
from serve.timing import clock

CHARSETS = ("utf-8", "utf8", "us-ascii")
LARGEST = sys.float_info.max


class StrictRequest(Request):
    """A request whose JSON body is read strictly. Raises Problem 400, 408, 413 or 415."""

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
        settings = self.settings
        _check_encoding(self.headers.get("content-encoding", ""))
        _check_length(self.headers.get("content-length", ""), settings.max_body_bytes)
        try:
            async with asyncio.timeout(settings.body_s):
                return await self._chunks(settings.max_body_bytes)
        except ClientDisconnect:
            raise Problem(HTTPStatus.BAD_REQUEST, "the connection closed before the body was complete") from None
        except TimeoutError:
            detail = f"the body must arrive within {settings.body_s:g} s (body_s)"
            raise Problem(HTTPStatus.REQUEST_TIMEOUT, detail, headers=HANG_UP) from None

    async def _chunks(self, limit: int) -> bytes:
        body = bytearray()
        async for chunk in self.stream():
            body += chunk
            if len(body) > limit:
                raise _too_large(limit)
        return bytes(body)


class StrictRoute(APIRoute):
    """A route that reads its body through `StrictRequest`, and notes in `request.state.arrived` when it began."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, behind a strict request."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            request.state.arrived = clock()
            return await handle(StrictRequest(request.scope, request.receive))

        return strict


def parse(body: bytes, max_depth: int) -> Any:
    """The JSON value of `body`. Raises Problem 400 that says where the trouble is, without repeating it."""
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise _no_json(str(error)) from None
    if body.count(b":") != _members(value, max_depth):  # each member has a colon: where there are no more, none is lost
        _check_names(body)
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


def _members(value: object, max_depth: int) -> int:
    """How many members the objects inside have. Raises Problem 400 for what is too deep, or a number too large."""
    inside, members, depth = [value], 0, 0
    while holders := [each for each in inside if isinstance(each, (dict, list))]:
        depth += 1
        if depth > max_depth:
            detail = f"the body is nested too deep: at most {max_depth} lists and objects within each other are read"
            raise Problem(HTTPStatus.BAD_REQUEST, detail)
        objects = [each for each in holders if isinstance(each, dict)]
        members += sum(map(len, objects))
        lists = (each for each in holders if isinstance(each, list))
        inside = [*chain.from_iterable(each.values() for each in objects), *chain.from_iterable(lists)]
        if any(abs(each) > LARGEST for each in inside if isinstance(each, (int, float))):
            raise _no_json("a number is too large for a 64-bit float")
    return members


def _check_names(body: bytes) -> None:
    """Raises Problem 400 where an object of the valid JSON text has a name twice."""
    json.loads(body, object_pairs_hook=_once, parse_int=len, parse_float=len)


def _once(members: Sequence[tuple[str, object]]) -> None:
    names = {name for name, _ in members}
    if len(names) < len(members):
        known = sorted(name for name in names & FIELDS if [each for each, _ in members].count(name) > 1)
        which = f"'{known[0]}'" if known else "a name"
        raise _no_json(f"{which} stands twice in one object")


def _no_json(why: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, f"the body is not valid JSON: {why}")


def _check_media_type(content_type: str) -> None:
    message = Message()
    message["content-type"] = content_type
    kind, subtype = message.get_content_maintype(), message.get_content_subtype()
    if not content_type or kind != "application" or not (subtype == "json" or subtype.endswith("+json")):
        detail = "the body must be JSON and say so, with the header Content-Type: application/json"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)
    if message.get_content_charset("utf-8") not in CHARSETS:
        detail = "the body must be UTF-8, as all JSON is; leave the charset out of the header Content-Type"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)


def _check_encoding(content_encoding: str) -> None:
    if content_encoding.strip().lower() not in ("", "identity"):
        detail = "the body must be sent as it is, not compressed: leave the header Content-Encoding out"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, headers={"Accept-Encoding": "identity"})


def _check_length(content_length: str, limit: int) -> None:
    if len(content_length) > 20 or (content_length.isdecimal() and int(content_length) > limit):
        raise _too_large(limit)


HANG_UP = {"Connection": "close"}
"""Goes with the answer to a body that is not read to its end: its rest would be taken for the next request."""


def _too_large(limit: int) -> Problem:
    detail = f"the body is too large: at most {limit} bytes are read (max_body_bytes)"
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, headers=HANG_UP)
