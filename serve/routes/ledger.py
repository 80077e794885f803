"""What comes into the ledger while the server runs, and what leaves it: events, items, members."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from http import HTTPStatus
from typing import TypeVar

from fastapi import APIRouter
from pydantic import BaseModel, Field

from prompts.errors import LedgerError, UnknownError
from serve.bodies import StrictRoute
from serve.doors import CurrentKey, check_surface
from serve.problems import FieldProblem, Problem, responses
from serve.schemas import EventsRequest, ItemsRequest, MemberId, MembersRequest
from serve.services import CurrentServices, Services
from surfaces.ledger.records import Clock, Event, Item, Member, quoted

T = TypeVar("T")

router = APIRouter(prefix="/v1", tags=["ledger"], route_class=StrictRoute)

PROBLEMS = responses(HTTPStatus.SERVICE_UNAVAILABLE)
TOLD = 20
"""So many fields that are wrong are named in one reply."""


class Taken(BaseModel):
    """What came in; it is on disk."""

    accepted: int = Field(description="how many were in the request")
    new: int = Field(description="how many the ledger did not have yet")


class Put(BaseModel):
    """What was written; it is on disk."""

    written: int


class Erased(BaseModel):
    """What was known of a member, and is no more."""

    member_id: str
    events: int = Field(description="what they did, and what others did with the item that they are")
    items: int = Field(description="the items that they were")
    exposures: int = Field(description="slates of experiments that they got")


@router.post("/events", responses=PROBLEMS)
async def events(body: EventsRequest, services: CurrentServices, key: CurrentKey) -> Taken:
    """Take in what members did: all of the events, or none.

    An event with an `event_id` that the ledger has is left out, so that a request may be sent again; so is one without
    an id whose content is there already. When the reply comes, the events are on disk, and the members' next rankings
    read them.
    """
    for event in body.events:
        check_surface(key, event.surface)
    now = time.time()

    def write() -> int:
        with services.writing:
            ledger = services.ledger
            _check_times(body, ledger.clock)
            _check_known("member_id", [event.member_id for event in body.events], ledger.unknown_members)
            _check_known("item_id", [event.item_id for event in body.events], ledger.unknown_items)
            return ledger.add_events(_event(event.model_dump(), ledger.now or now) for event in body.events)

    return Taken(accepted=len(body.events), new=await _written(services, write))


@router.put("/items", responses=PROBLEMS)
async def items(body: ItemsRequest, services: CurrentServices) -> Put:
    """Write items, in place of those with the same ids: all of them, or none.

    They can be ranked at once as a request's `candidates`; sources bring them when they are fitted again.
    """
    found = [Item(each.item_id, each.kind, each.attributes(), each.member_id) for each in body.items]

    def write() -> int:
        with services.writing:
            people = [each.member_id for each in found]
            _check_known("member_id", people, services.ledger.unknown_members, "items")
            return services.ledger.put_items(found)

    return Put(written=await _written(services, write))


@router.put("/members", responses=PROBLEMS)
async def members(body: MembersRequest, services: CurrentServices) -> Put:
    """Write members, in place of those with the same ids: all of them, or none."""
    found = [Member(each.member_id, each.profile) for each in body.members]

    def write() -> int:
        with services.writing:
            return services.ledger.put_members(found)

    return Put(written=await _written(services, write))


@router.delete("/members/{member_id}", responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE))
async def erase(member_id: MemberId, services: CurrentServices) -> Erased:
    """Erase a member: profile, events, exposures, the items that they are, and what was computed of them.

    Sources keep what they learned from many members together, in which no one is to be told from the others.
    """
    erased = await _written(services, lambda: services.erase(member_id))
    return Erased(member_id=member_id, **erased._asdict())


async def _written(services: Services, write: Callable[[], T]) -> T:
    """What `write` returns, from a thread; what the ledger refuses is a problem of the request."""
    try:
        return await services.ingestion.run(write)
    except UnknownError:
        raise
    except LedgerError as error:
        if services.ledger_works():
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
        raise


def _event(told: dict[str, object], now: float) -> Event:
    return Event(**{**told, "timestamp": now if told["timestamp"] is None else told["timestamp"]})  # type: ignore[arg-type]


def _check_times(body: EventsRequest, clock: Clock) -> None:
    if clock == "time":
        return
    detail = "is required: this ledger's clock is 'order', and a position cannot be guessed"
    wrong = [f"#/events/{place}/timestamp" for place, event in enumerate(body.events) if event.timestamp is None]
    _refuse(wrong, detail)


def _check_known(
    field: str,
    names: Sequence[str | None],
    unknown: Callable[[Collection[str]], Collection[str]],
    where: str = "events",
) -> None:
    """Raises Problem 422 for names that the ledger does not have, by the places where they stand."""
    missing = set(unknown({name for name in names if name is not None}))
    if missing:
        first = next(name for name in names if name in missing)
        noun = field.removesuffix("_id")
        detail = f"the ledger has no {noun} {quoted(first)}; PUT /v1/{noun}s writes it first"
        _refuse([f"#/{where}/{place}/{field}" for place, name in enumerate(names) if name in missing], detail)


def _refuse(pointers: Sequence[str], detail: str) -> None:
    if pointers:
        errors = [FieldProblem(pointer=pointer, detail=detail) for pointer in pointers[:TOLD]]
        more = f" (and {len(pointers) - 1} more)" if len(pointers) > 1 else ""
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{pointers[0]}: {detail}{more}", errors=errors)
