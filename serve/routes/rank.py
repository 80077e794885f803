"""The slate for a member on a surface."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from serve import pipeline
from serve.bodies import StrictRoute
from serve.doors import CurrentKey, charge
from serve.problems import Problem, ProblemDetail, detail_of, problem_of, responses
from serve.schemas import BatchRequest, RankReply, RankRequest, SurfaceName
from serve.services import CurrentServices, Services

T = TypeVar("T")

router = APIRouter(prefix="/v1/surfaces", tags=["rank"], route_class=StrictRoute)

PROBLEMS = responses(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)


@router.post(
    "/{surface}/rank",
    responses=PROBLEMS,
)
async def rank(
    surface: SurfaceName,
    body: RankRequest,
    request: Request,
    services: CurrentServices,
) -> RankReply:
    """Rank candidates for a member: those given, or those that the surface's sources retrieve.

    The surface's routing, or an experiment, says whether the model orders them; `route` tells.
    The reply comes by the deadline. If the model cannot answer by then, the slate is the retrieval order, with
    `degraded: true` and the reason: `deadline`, `engine` or `capacity`.
    """
    return await unless_gone(
        request, pipeline.rank(body, surface, services, request.state.arrived, request.scope["ticket"])
    )


class Failed(BaseModel):
    """A request of a batch that got no slate."""

    problem: ProblemDetail


class BatchReply(BaseModel):
    """What came of each request of a batch, in their order: a slate, or a problem."""

    replies: list[RankReply | Failed]


@router.post(
    "/{surface}/rank:batch",
    responses=PROBLEMS,
)
async def rank_batch(
    surface: SurfaceName,
    body: BatchRequest,
    request: Request,
    services: CurrentServices,
    key: CurrentKey,
) -> BatchReply:
    """Rank for many members in one call, each as `rank` would, with deadlines from the call's arrival.

    One that fails stands as a problem in its place and is in no other's way. Where all fail with one status, that is
    the call's, as it is a single ranking's. Each ranking counts for the key's rate.
    """
    services.surface(surface)
    charge(request.app.state.keys, key, len(body.requests) - 1)
    outcomes = await unless_gone(request, _each(body, surface, services, request.state.arrived))
    problems = [each for each in outcomes if isinstance(each, HTTPException)]
    if len(problems) == len(outcomes) and len({problem.status_code for problem in problems}) == 1:
        raise problems[0]
    return BatchReply(
        replies=[Failed(problem=detail_of(each)) if isinstance(each, HTTPException) else each for each in outcomes]
    )


async def _each(
    body: BatchRequest, surface: str, services: Services, arrived: float
) -> list[RankReply | HTTPException]:
    """The slate of each request, or why there is none."""

    async def one(asked: RankRequest) -> RankReply | HTTPException:
        try:
            return await pipeline.rank(asked, surface, services, arrived)
        except Exception as error:
            return problem_of(error)

    return await asyncio.gather(*(one(asked) for asked in body.requests))


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns. When the client goes away, the work is cancelled: nobody would read it."""
    caller = asyncio.current_task()
    assert caller is not None  # noqa: S101  a route runs in one
    left = False

    async def watch() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left = caller.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if not left:
            raise
        caller.uncancel()
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, "the client went away") from None
    finally:
        watching.cancel()
