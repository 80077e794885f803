"""What surfaces there are, and how they change while the server runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, JsonValue

from prompts.errors import ConfigError, SpecError
from serve.bodies import StrictRequest, StrictRoute
from serve.doors import CurrentKey
from serve.live import CurrentLive, Version
from serve.preview import Preview, preview_of
from serve.problems import FieldProblem, Problem, responses
from serve.schemas import RankRequest, Strict, SurfaceName
from serve.served import ServedSurface
from serve.services import CurrentServices
from surfaces.yaml_reader import SIZE_CAP

T = TypeVar("T")

router = APIRouter(prefix="/v1/surfaces", tags=["surfaces"], route_class=StrictRoute)

PROBLEMS = responses(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)
GONE = responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE)
YAML_TYPE = "application/yaml"
FILE = "SurfaceFile"
"""What the OpenAPI document calls the schema of a surface file."""
EXAMPLE: dict[str, JsonValue] = {
    "surface": "family_evening",
    "description": "Films for an evening with the children",
    "item_kind": "movie",
    "prompt": {
        "instruction": "Films for a family evening. Which one do parents and children watch?",
        "item": "{{ title }} ({{ year }})",
    },
    "sources": [{"type": "popular", "k": 100}],
    "heads": [{"name": "watch", "type": "pointwise", "weight": 1.0}],
}
FILE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": f"A surface file, as YAML or JSON, whatever its media type, of at most {SIZE_CAP:,} characters. "
        "Its first key is `surface`, the name that the path has. Files that it would read beside it are refused.",
        "content": {YAML_TYPE: {"schema": {"$ref": f"#/components/schemas/{FILE}"}, "example": EXAMPLE}},
    }
}


class SurfaceLine(BaseModel):
    """One surface of the list."""

    surface: str
    description: str
    version: str = Field(description="changes with the surface's content, and with the trunk's")


class SurfaceList(BaseModel):
    """Every surface that this server ranks."""

    surfaces: list[SurfaceLine]
    problems: dict[str, str] = Field(description="files of the folder that are refused, by name, and why")
    note: str = Field(description="what must be told of the ledger's data, such as that it is simulated; mostly empty")


class SurfaceReply(SurfaceLine):
    """A surface in full."""

    spec: dict[str, JsonValue] = Field(description="the surface file's content, defaults included")
    text: str = Field(description="the surface file")


class VersionLine(BaseModel):
    """A version that was online."""

    version: str
    since: float = Field(description="seconds since 1970")
    current: bool


class VersionList(BaseModel):
    """The versions of a surface that it can go back to, the latest first."""

    surface: str
    versions: list[VersionLine]


class RollbackRequest(Strict):
    """Which version to go back to."""

    version: str = Field(min_length=1, max_length=64, examples=["3b39b66b39ce"])


@router.get("", responses=responses(HTTPStatus.SERVICE_UNAVAILABLE))
async def surfaces(services: CurrentServices, live: CurrentLive, key: CurrentKey) -> SurfaceList:
    """Every surface that the caller's key may name, by name."""
    lines = [_line(each) for each in services.surfaces() if key.names(each.spec.surface)]
    note = await asyncio.to_thread(lambda: services.ledger.note)
    return SurfaceList(surfaces=lines, problems=live.problems, note=note)


@router.get("/{surface}", responses=responses(HTTPStatus.NOT_FOUND))
async def surface(surface: SurfaceName, services: CurrentServices) -> SurfaceReply:
    """One surface: what it ranks, from which sources, by which heads."""
    return _reply(services.surface(surface))


@router.put(
    "/{surface}",
    openapi_extra=FILE_BODY,
    responses={
        201: {"description": "The surface is new", "model": SurfaceReply},
        **responses(HTTPStatus.SERVICE_UNAVAILABLE),
    },
)
async def put(
    surface: SurfaceName, request: Request, response: Response, services: CurrentServices, live: CurrentLive
) -> SurfaceReply:
    """Bring a surface online, or another version of it: no restart, no training.

    The body is a surface file. It is checked, its sources are fitted, and then it is exchanged at once; requests that
    are under way end with the version that they began with. A bad file is refused with line and column, and the former
    version goes on.
    """
    text = await StrictRequest(request.scope, request.receive).text()
    new = surface not in services.surface_names()
    served = await _changed(live.put, surface, text)
    response.status_code = HTTPStatus.CREATED if new else HTTPStatus.OK
    return _reply(served)


@router.delete("/{surface}", status_code=204, responses=GONE)
async def delete(surface: SurfaceName, live: CurrentLive) -> None:
    """Take a surface offline. One that comes with the package comes back in its own version."""
    try:
        await asyncio.to_thread(live.remove, surface)
    except (SpecError, ConfigError) as error:
        raise Problem(HTTPStatus.CONFLICT, str(error)) from None


@router.get("/{surface}/versions", responses=responses(HTTPStatus.NOT_FOUND))
async def versions(surface: SurfaceName, services: CurrentServices, live: CurrentLive) -> VersionList:
    """The versions of a surface that were online, the latest first."""
    current = next((each.version for each in services.surfaces() if each.spec.surface == surface), "")
    found: list[Version] = await asyncio.to_thread(live.versions, surface)
    lines = [VersionLine(version=one.version, since=one.since, current=one.version == current) for one in found]
    return VersionList(surface=surface, versions=lines)


@router.post("/{surface}/rollback", responses=PROBLEMS)
async def rollback(surface: SurfaceName, body: RollbackRequest, live: CurrentLive) -> SurfaceReply:
    """Bring an earlier version of a surface online again."""
    return _reply(await _changed(live.roll_back, surface, body.version))


@router.post("/{surface}/refit", responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY))
async def refit(surface: SurfaceName, services: CurrentServices) -> SurfaceReply:
    """Fit the surface's sources to the ledger as it is now; requests get the former ones until the new are ready."""
    services.surface(surface)
    return _reply(await _changed(services.prepare, surface))


@router.post("/{surface}/preview", responses=PROBLEMS)
async def preview(surface: SurfaceName, body: RankRequest, services: CurrentServices) -> Preview:
    """What the model reads for a request, piece by piece, with the slots that each takes. Nothing is ranked."""
    return await services.retrieval.run(preview_of, body, services.surface(surface), services)


async def _changed(change: Callable[..., T], *arguments: str) -> T:
    """What the change returns. Raises Problem 422 that lists what is wrong with the file, a line each."""
    try:
        return await asyncio.to_thread(change, *arguments)
    except (SpecError, ConfigError) as error:
        lines = str(error).splitlines()
        errors = [FieldProblem(pointer="#", detail=line) for line in lines]
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, lines[0], errors=errors) from None


def _line(served: ServedSurface) -> SurfaceLine:
    return SurfaceLine(surface=served.spec.surface, description=served.spec.description, version=served.version)


def _reply(served: ServedSurface) -> SurfaceReply:
    told = served.spec.model_dump(mode="json", by_alias=True)
    return SurfaceReply(**_line(served).model_dump(), spec=told, text=served.text)
