"""Which model serves, and how it is changed while the server runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from http import HTTPStatus

from fastapi import APIRouter
from pydantic import BaseModel, Field

from prompts.errors import CheckpointError, ConfigError, SpecError
from serve.bodies import StrictRoute
from serve.models import ServedModel
from serve.problems import Problem, responses
from serve.schemas import Strict
from serve.services import CurrentServices, Services
from serve.switch import CurrentSwitch, Switch

router = APIRouter(prefix="/v1/model", tags=["model"], route_class=StrictRoute)

PROBLEMS = responses(HTTPStatus.NOT_FOUND)


class ModelLine(BaseModel):
    """A model of this server."""

    name: str
    version: str = Field(description="of its weights; rankings name it as `model`")


class ModelReply(ModelLine):
    """The model that serves."""

    former: ModelLine | None = Field(description="the one before, to which `rollback` goes back at once")
    available: list[str] = Field(description="names that may be put: shipped ones, and those of the server's folder")


class ModelRequest(Strict):
    """Which model shall serve."""

    model: str = Field(min_length=1, max_length=64, examples=["nano"])


@router.get("")
async def model(services: CurrentServices, switch: CurrentSwitch) -> ModelReply:
    """The model that serves, the one before it, and those that there are."""
    return await asyncio.to_thread(_reply, services, switch)


@router.put("", responses=PROBLEMS)
async def put(body: ModelRequest, services: CurrentServices, switch: CurrentSwitch) -> ModelReply:
    """Serve with another model, without a pause.

    It is read, tried, and every surface is made ready for it while the old one serves; then it takes its place
    between two requests. Those under way end with the model that they began with. A model that is damaged, gives no
    sound answer or cannot rank a surface is refused, and the old one serves on.
    """
    return await _changed(switch.change(body.model), services, switch)


@router.post("/rollback", responses=responses(HTTPStatus.CONFLICT))
async def rollback(services: CurrentServices, switch: CurrentSwitch) -> ModelReply:
    """Serve with the former model again, at once: it was kept ready. Another rollback takes this one back."""
    try:
        return await _changed(switch.back(), services, switch)
    except ConfigError as error:
        raise Problem(HTTPStatus.CONFLICT, str(error)) from None


async def _changed(change: Awaitable[None], services: Services, switch: Switch) -> ModelReply:
    """What serves after the change. Raises Problem 422 with what is wrong with a model."""
    try:
        await change
    except (CheckpointError, SpecError) as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
    return await asyncio.to_thread(_reply, services, switch)


def _reply(services: Services, switch: Switch) -> ModelReply:
    former = services.former
    line = _line(services.model)
    return ModelReply(**line.model_dump(), former=_line(former.model) if former else None, available=switch.names())


def _line(model: ServedModel) -> ModelLine:
    return ModelLine(name=model.name, version=model.version)
