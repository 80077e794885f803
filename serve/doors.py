"""Who comes in: the key is asked for before anything of the body is read.

A path that is not in the table needs the scope `admin`: a new route is closed until somebody says whom it is for.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Literal, NamedTuple

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from prompts.errors import CapacityError, ConfigError
from serve.admission import Ticket
from serve.keys import ANYONE, Key, Keys, Scope
from serve.problems import Problem, problem_of, problem_response

Needs = Scope | Literal["open"]
"""A scope; or `open`, for what anyone may ask with or without a key: the probes of whoever runs the server."""

ROUTES: Mapping[str, Mapping[str, Needs]] = {
    "/livez": {"GET": "open"},
    "/readyz": {"GET": "open"},
    "/metrics": {"GET": "metrics"},
    "/openapi.json": {"GET": "rank"},
    "/docs": {"GET": "rank"},
    "/docs/oauth2-redirect": {"GET": "rank"},
    "/redoc": {"GET": "rank"},
    "/v1/surfaces": {"GET": "rank"},
    "/v1/surfaces/{surface}": {"GET": "rank", "PUT": "admin", "DELETE": "admin"},
    "/v1/surfaces/{surface}/versions": {"GET": "rank"},
    "/v1/surfaces/{surface}/rollback": {"POST": "admin"},
    "/v1/surfaces/{surface}/refit": {"POST": "admin"},
    "/v1/surfaces/{surface}/preview": {"POST": "rank"},
    "/v1/surfaces/{surface}/rank": {"POST": "rank"},
    "/v1/surfaces/{surface}/rank:batch": {"POST": "rank"},
    "/v1/model": {"GET": "rank", "PUT": "admin"},
    "/v1/model/rollback": {"POST": "admin"},
    "/v1/rerank": {"POST": "rank"},
    "/v2/rerank": {"POST": "rank"},
    "/v1/embeddings": {"POST": "rank"},
    "/v1/events": {"POST": "write"},
    "/v1/items": {"PUT": "write"},
    "/v1/members": {"PUT": "write"},
    "/v1/members/{member_id}": {"DELETE": "write"},
}
"""Which scope each route needs, by its path and method."""

RANK = "/v1/surfaces/{surface}/rank"

LOOKED = ("place", "key", "ticket", "refusal")
"""What a doorkeeper notes of a request."""

UNKNOWN = "(unknown)"
"""What logs and figures call a path that is none of the routes."""


LetIn = Callable[[str], Ticket | None]
"""A ticket to a surface. Raises CapacityError where there is no room."""


class Place(NamedTuple):
    """Where a request goes: the route's path as it is declared, what it needs, and the surface that the path names."""

    route: str
    needs: Needs
    surface: str | None


_PATTERNS = [
    (route, methods, re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(route)) + r"\Z"))
    for route, methods in ROUTES.items()
]


def place_of(method: str, path: str) -> Place:
    """The place of a request."""
    for route, methods, pattern in _PATTERNS:
        if found := pattern.match(path):
            asked = "GET" if method == "HEAD" else method
            return Place(route, methods.get(asked, "admin"), found.groupdict().get("surface"))
    return Place(UNKNOWN, "admin", None)


def check_host(host: str, keys: Keys) -> None:
    """Raises ConfigError for a server that would listen beyond this machine and has no keys."""
    if not keys and not _loopback(host):
        raise ConfigError(
            f"{host} can be reached from other machines, and there are no keys: make one with "
            "`prismrank keys new NAME --file keys.yaml`, and serve with --keys keys.yaml"
        )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


class Doorkeeper:
    """Says who may come in, and where there is room; `turned_away`: so many had none since it was told last."""

    def __init__(self, keys: Keys, let_in: LetIn) -> None:
        """`let_in` gives rankings their tickets."""
        self.keys, self.let_in = keys, let_in
        self.turned_away = 0

    def look(self, scope: Connection, place: Place | None = None) -> None:
        """Notes in a request's scope its place, its key, its ticket, and what speaks against it: once for each."""
        if "place" in scope:
            return
        place = place or place_of(scope["method"], scope["path"])
        scope["place"], scope["key"], scope["ticket"], scope["refusal"] = place, ANYONE, None, None
        try:
            if self.keys and place.needs != "open":
                scope["key"] = self._key(Headers(scope=scope), place)
            if place.route == RANK and scope["method"] == "POST" and place.surface:
                scope["ticket"] = self.let_in(place.surface)
        except (Problem, CapacityError) as error:
            scope["refusal"] = error.with_traceback(None)  # which holds this frame, and so the scope

    def _key(self, headers: Headers, place: Place) -> Key:
        """The key that came with a request. Raises Problem where there is none, or not one for this."""
        key = self.keys.find(_secret(headers))
        if key is None:
            detail = "a key is required, as the header Authorization: Bearer KEY; `prismrank keys new` makes one"
            raise Problem(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": 'Bearer realm="prismrank"'})
        charge(self.keys, key)
        if place.needs != "open" and not key.allows(place.needs):
            detail = f"this needs the scope '{place.needs}', which the key '{key.name}' does not have"
            raise Problem(HTTPStatus.FORBIDDEN, detail)
        if place.surface is not None:
            check_surface(key, place.surface)
        return key


class Doors:
    """The ASGI middleware that lets requests in, or answers 401, 403, 429, or 503 where there is no room at all."""

    def __init__(self, app: ASGIApp, keeper: Doorkeeper) -> None:
        self.app, self.keeper = app, keeper

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Passes on a request whose key allows what it asks for; the key goes with it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http":
            self.keeper.look(scope)
            if scope["refusal"] is not None:
                await problem_response(problem_of(scope["refusal"]))(scope, receive, send)
                return
        try:
            await self.app(scope, receive, send)
        finally:
            if ticket := scope.get("ticket"):
                ticket.use()


def charge(keys: Keys, key: Key, count: int = 1) -> None:
    """Counts rankings of a key. Raises Problem 429 where it asks too often."""
    wait = keys.wait(key, count) if count else 0
    if wait:
        detail = f"the key '{key.name}' may ask {key.rate:g} times a second"
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, detail, headers={"Retry-After": str(max(1, math.ceil(wait)))})


def check_surface(key: Key, surface: str) -> None:
    """Raises Problem 403 for a surface that the key may not name."""
    if not key.names(surface):
        detail = f"the key '{key.name}' is for other surfaces: {', '.join(key.surfaces or ())}"
        raise Problem(HTTPStatus.FORBIDDEN, detail)


def _secret(headers: Headers) -> str:
    kind, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() if kind.lower() == "bearer" else ""


async def _current(request: Request) -> Key:  # a plain function would be run in a thread
    key: Key = request.scope.get("key", ANYONE)
    return key


CurrentKey = Annotated[Key, Depends(_current)]
"""A route's parameter of this type is given the caller's key."""
