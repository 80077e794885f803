"""The OpenAPI document: what FastAPI knows of the routes, and what they have in common.

Each operation tells the key that it needs, every status that it may answer, and the limits that this server has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from serve.bodies import LISTS
from serve.doors import ROUTES
from serve.problems import ProblemDetail, responses
from serve.routes.surfaces import FILE
from serve.settings import Settings
from surfaces.spec import SurfaceSpec

Page = dict[str, Any]

SECURITY = "key"
SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key that `prismrank keys new` made, with the scope named here or `admin`. A server that was "
    "started without keys asks for none.",
}
ALWAYS = (HTTPStatus.INTERNAL_SERVER_ERROR,)
WITH_KEY = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)
WITH_BODY = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
WHY: Mapping[HTTPStatus, str] = {
    HTTPStatus.BAD_REQUEST: "The body is not what its media type says, or did not come whole.",
    HTTPStatus.UNAUTHORIZED: "No key came along, or one that nobody knows.",
    HTTPStatus.FORBIDDEN: "The key is not for this, or not for this surface.",
    HTTPStatus.NOT_FOUND: "Nothing is called by a name in the path or the body.",
    HTTPStatus.REQUEST_TIMEOUT: "The body was too long in coming.",
    HTTPStatus.CONFLICT: "It cannot be done as things stand; `detail` says why.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body has more bytes than are read.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body's media type, charset or encoding is none that is read.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Parts of the body are wrong, or do not fit each other or the ledger; `errors` "
    "says which.",
    HTTPStatus.TOO_MANY_REQUESTS: "The key asks more often than its rate.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "Something went wrong on this side.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The ledger or the engine does not answer, or too many requests wait.",
}
_SECONDS = {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds to wait.", "required": True}
_TEXT: Page = {"schema": {"type": "string"}, "required": True}
HEADERS: Mapping[HTTPStatus, Page] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": {**_TEXT, "description": "How a key is sent."}},
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": _SECONDS},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": _SECONDS},
}
REQUEST_ID = {"X-Request-ID": {**_TEXT, "description": "What the server's log calls the request."}}


def install(app: FastAPI, settings: Settings) -> None:
    """Makes the OpenAPI document of `app` complete."""
    document = app.openapi

    def documented() -> Page:
        page = document()
        parts = page.setdefault("components", {})
        parts["securitySchemes"] = {SECURITY: SCHEME}
        schemas = parts.setdefault("schemas", {})
        schemas.update(_schemas_of(ProblemDetail, ProblemDetail.__name__))
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for method, path, operation in _operations(page):
            _complete(operation, ROUTES.get(path, {}).get(method.upper(), "admin"))
        _bound(schemas, settings)
        schemas.update(_schemas_of(SurfaceSpec, FILE, f"{FILE}."))
        return page

    app.openapi = documented  # type: ignore[method-assign]


def _schemas_of(model: type[BaseModel], name: str, before: str = "") -> Page:
    """The schema of what no route takes or returns as a model, and of its parts, whose names begin with `before`."""
    schema = model.model_json_schema(ref_template=f"#/components/schemas/{before}{{model}}")
    parts: Page = schema.pop("$defs")
    return {name: schema, **{f"{before}{part}": about for part, about in parts.items()}}


def _operations(page: Page) -> Iterator[tuple[str, str, Page]]:
    for path, methods in page["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def _complete(operation: Page, needs: str) -> None:
    """Adds the key, the statuses that need not be declared route by route, what each means, and its headers."""
    operation["security"] = [] if needs == "open" else [{SECURITY: [needs]}]
    operation["responses"].pop("422", None)  # FastAPI's own; a name in the path is never refused so, only a body
    shared = [*ALWAYS, *(WITH_KEY if needs != "open" else ()), *(WITH_BODY if "requestBody" in operation else ())]
    told = operation["responses"] = {**operation["responses"], **_named(responses(*shared))}
    for status, response in told.items():
        known = HTTPStatus(int(status))
        response["headers"] = {**REQUEST_ID, **HEADERS.get(known, {})}
        if known in WHY:
            response["description"] = WHY[known]


def _named(found: Mapping[int | str, Page]) -> dict[str, Page]:
    return {str(status): response for status, response in found.items()}


def _bound(schemas: Mapping[str, Page], settings: Settings) -> None:
    """Tells how long the lists of a request may be on this server."""
    limits = {path[-1]: getattr(settings, name) for path, name in LISTS.items()}
    for schema in schemas.values():
        if schema.get("additionalProperties") is False:  # replies have no such thing
            for name in schema["properties"].keys() & limits.keys():
                field = schema["properties"][name]
                for form in field.get("anyOf", [field]):
                    if form.get("type") == "array":
                        form["maxItems"] = limits[name]
