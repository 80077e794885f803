"""Every error leaves as an RFC 9457 problem: what was wrong, where, and what would be right.

No problem repeats what a body held: fields are named by their JSON pointer. Only identifiers that were not found
are named, as the ledger names them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from prompts.errors import CapacityError, EngineError, LedgerError, UnknownError
from serve.schemas import FIELDS

logger = logging.getLogger(__name__)


class FieldProblem(BaseModel):
    """One field of the request that is wrong."""

    pointer: str = Field(description="JSON pointer to the field, for example #/k")
    detail: str = Field(description="what would be right")


class ProblemDetail(BaseModel):
    """The body of every error (application/problem+json)."""

    type: str = Field(default="about:blank", description="what kind of problem this is, as a URI")
    title: str = Field(description="the same words for every problem of this kind")
    status: int = Field(ge=400, le=599, description="the HTTP status code, once more")
    detail: str = Field(description="what was wrong this time, and what would be right")
    errors: list[FieldProblem] = Field(default=[], description="the fields that are wrong, when it is about fields")


class ProblemResponse(JSONResponse):
    """A JSON response that says it is a problem."""

    media_type = "application/problem+json"


class Problem(HTTPException):
    """An error on its way to the caller. Raise it anywhere below a route."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status_code=status, detail=detail, headers=headers)
        self.errors = list(errors)


def problem_response(error: HTTPException) -> ProblemResponse:
    """The error as a response; its headers (Allow, Retry-After) are kept."""
    body = detail_of(error)
    content = body.model_dump(exclude={"errors"} if not body.errors else None)
    return ProblemResponse(content, status_code=error.status_code, headers=error.headers)


def detail_of(error: HTTPException) -> ProblemDetail:
    """The error as a problem's body."""
    errors = error.errors if isinstance(error, Problem) else []
    title = HTTPStatus(error.status_code).phrase
    return ProblemDetail(title=title, status=error.status_code, detail=str(error.detail), errors=errors)


def problem_of(error: Exception) -> HTTPException:
    """Any error as the one that a caller is told; what nobody foresaw is logged."""
    if isinstance(error, HTTPException):
        return error
    for kind, make in _PROBLEMS.items():
        if isinstance(error, kind):
            return make(error)
    logger.error("something went wrong", exc_info=error)
    return UNEXPECTED


def responses(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """What a route may answer besides success, and besides what `serve.document` says of every route."""
    content = {ProblemResponse.media_type: {"schema": {"$ref": "#/components/schemas/ProblemDetail"}}}
    return {int(status): {"description": status.phrase, "content": content} for status in statuses}


def install(app: FastAPI) -> None:
    """Every exception of `app` becomes a problem."""
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)


async def _http(_: Request, error: Any) -> ProblemResponse:
    if isinstance(error, Problem):
        return problem_response(error)
    status = HTTPStatus(error.status_code)
    detail = _ROUTING.get(status, status.description or status.phrase)
    return problem_response(Problem(status, detail, headers=error.headers))


_ROUTING = {
    HTTPStatus.NOT_FOUND: "there is nothing at this path; /docs lists every path",
    HTTPStatus.METHOD_NOT_ALLOWED: "this path does not take this method; the Allow header names those it takes",
}


def _unknown(error: Exception) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, str(error))


def _ledger_gone(error: Exception) -> Problem:
    logger.error("%s", error)
    return _later("the ledger cannot be read just now")


def _engine_gone(error: Exception) -> Problem:
    logger.error("%s", error)
    return _later("the model cannot be asked just now")


def _full(error: Exception) -> Problem:
    return _later(str(error), error.wait_s if isinstance(error, CapacityError) else 1.0)


def _later(why: str, wait_s: float = 1.0) -> Problem:
    headers = {"Retry-After": str(max(1, math.ceil(wait_s)))}
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"{why}; try again in a moment", headers=headers)


_PROBLEMS: Mapping[type[Exception], Callable[[Exception], Problem]] = {
    UnknownError: _unknown,
    LedgerError: _ledger_gone,
    CapacityError: _full,
    EngineError: _engine_gone,
}
UNEXPECTED = Problem(
    HTTPStatus.INTERNAL_SERVER_ERROR, "something went wrong on this side; the server's log has the details"
)


async def _known(_: Request, error: Exception) -> ProblemResponse:
    return problem_response(problem_of(error))


async def _unexpected(_: Request, __: Exception) -> ProblemResponse:
    return problem_response(UNEXPECTED)


async def _invalid(_: Request, error: Any) -> ProblemResponse:
    errors = [FieldProblem(pointer=_pointer(found["loc"]), detail=_words(found)) for found in error.errors()]
    first = f"{errors[0].pointer}: {errors[0].detail}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    problem = Problem(HTTPStatus.UNPROCESSABLE_ENTITY, first + more, errors=errors[:20])
    return problem_response(problem)


_HANDLERS: dict[type[Exception], Callable[[Request, Any], Awaitable[ProblemResponse]]] = {
    HTTPException: _http,
    RequestValidationError: _invalid,
    UnknownError: _known,
    LedgerError: _known,
    CapacityError: _known,
    EngineError: _known,
    Exception: _unexpected,
}


def _words(found: Mapping[str, Any]) -> str:
    """What would be right."""
    if found["type"] == "missing" and found["loc"] == ("body",):
        return "a JSON body is required"
    return _WORDS.get(found["type"], str(found["msg"]).removeprefix("Input "))


_WORDS = {
    "missing": "is required",
    "model_type": "should be an object",
    "model_attributes_type": "should be an object",
    "string_pattern_mismatch": "should have no control characters",
}


def _pointer(location: Sequence[int | str]) -> str:
    """Where the field is. Keys that the caller made up (of attributes, of a context) are left out."""
    path = [str(part) for part in location[1:] if isinstance(part, int) or part in FIELDS]
    return "/".join(["#", *path])
