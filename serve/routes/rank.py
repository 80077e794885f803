"""The slate for a member on a surface."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Request

from prompts.errors import CapacityError
from serve import pipeline
from serve.bodies import StrictRoute
from serve.problems import Problem, responses
from serve.schemas import RankReply, RankRequest
from serve.services import CurrentServices

T = TypeVar("T")

router = APIRouter(prefix="/v1/surfaces", tags=["rank"], route_class=StrictRoute)


@router.post(
    "/{surface}/rank",
    responses=responses(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def rank(
    surface: Annotated[str, Path(description="the surface's name", examples=["movies"])],
    body: RankRequest,
    request: Request,
    services: CurrentServices,
) -> RankReply:
    """Rank candidates for a member: those given, or those that the surface's sources retrieve.

    The surface's routing, or an experiment, says whether the model orders them; `route` tells.
    The reply comes by the deadline. If the model cannot answer by then, the slate is the retrieval order, with
    `degraded: true` and the reason: `deadline`, `engine` or `capacity`.
    """
    try:
        return await unless_gone(request, pipeline.rank(body, surface, services, request.state.arrived))
    except CapacityError:
        detail = "too many requests wait for their candidates; try again in a moment"
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "1"}) from None


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns. When the client goes away, the work is cancelled: nobody would read it."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Problem(HTTPStatus.REQUEST_TIMEOUT, "the client went away")
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.wait({task, gone})


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
