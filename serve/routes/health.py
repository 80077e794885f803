"""Is the process there, and does the engine answer?"""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from serve.problems import Problem, responses
from serve.services import CurrentServices

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process runs."""

    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """The engine scored a tree a moment ago."""

    status: Literal["ready"] = "ready"
    model: str


@router.get("/livez")
async def livez() -> Alive:
    """The process runs and takes requests. Says nothing of the engine."""
    return Alive()


@router.get("/readyz", responses=responses(HTTPStatus.SERVICE_UNAVAILABLE))
async def readyz(services: CurrentServices) -> Ready:
    """The engine answers: it is asked to score a tiny tree, at most once a second. Not while the server shuts down."""
    if services.leaving:
        detail = "the server is shutting down; what it has taken in gets its answer"
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "1"})
    if not await services.health.ready():
        detail = "the engine does not answer (or still warms up); rankings fall back to retrieval order"
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "1"})
    return Ready(model=services.engine.model_version)
