"""What surfaces there are."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field, JsonValue

from serve.problems import responses
from serve.services import CurrentServices

router = APIRouter(prefix="/v1/surfaces", tags=["surfaces"])


class SurfaceLine(BaseModel):
    """One surface of the list."""

    surface: str
    description: str
    version: str = Field(description="changes with the surface's content")


class SurfaceList(BaseModel):
    """Every surface that this server ranks."""

    surfaces: list[SurfaceLine]


class SurfaceReply(SurfaceLine):
    """A surface in full."""

    spec: dict[str, JsonValue] = Field(description="the surface file's content, defaults included")


@router.get("")
async def surfaces(services: CurrentServices) -> SurfaceList:
    """Every surface, by name."""
    specs = [services.surface(name).spec for name in services.surface_names()]
    lines = [SurfaceLine(surface=spec.surface, description=spec.description, version=spec.version) for spec in specs]
    return SurfaceList(surfaces=lines)


@router.get("/{surface}", responses=responses(HTTPStatus.NOT_FOUND))
async def surface(
    surface: Annotated[str, Path(description="the surface's name", examples=["movies"])], services: CurrentServices
) -> SurfaceReply:
    """One surface: what it ranks, from which sources, by which heads."""
    spec = services.surface(surface).spec
    return SurfaceReply(
        surface=spec.surface, description=spec.description, version=spec.version, spec=spec.model_dump(mode="json")
    )
