"""Vectors of texts, in the shape that clients of OpenAI speak: the compressor's, as the source `embedding` has them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from http import HTTPStatus
from typing import Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from foundation.engine.base import Engine
from prompts.errors import UnknownError
from prompts.tree import Piece
from serve.bodies import StrictRoute
from serve.problems import FieldProblem, Problem, responses
from serve.routes.rank import unless_gone
from serve.schemas import EmbeddingRequest
from serve.services import CurrentServices
from surfaces.ledger.records import quoted

router = APIRouter(prefix="/v1", tags=["embeddings"], route_class=StrictRoute)

PROBLEMS = responses(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)


class Embedding(BaseModel):
    """A text's vector, of length one."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="numbers; or base64 of float32, the lowest byte first")


class EmbeddingUsage(BaseModel):
    """How much was read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingReply(BaseModel):
    """Vectors, in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


@router.post("/embeddings", responses=PROBLEMS)
async def embeddings(body: EmbeddingRequest, request: Request, services: CurrentServices) -> EmbeddingReply:
    """Vectors of texts, each of length one: those by which the source `embedding` finds items."""
    model, texts = services.model, [body.input] if isinstance(body.input, str) else body.input
    if body.model not in (model.name, model.version):
        raise UnknownError(f"no model {quoted(body.model)} serves; the one that does is '{model.name}'")
    with model.used():
        rows_TD, tokens = await unless_gone(
            request, services.embedding.run(_embedded, model.engine, texts, services.ledger.tenant)
        )
    if body.dimensions not in (None, rows_TD.shape[1]):
        pointer, detail = "#/dimensions", f"should be {rows_TD.shape[1]}, which this model's vectors have, or left out"
        wrong = FieldProblem(pointer=pointer, detail=detail)
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{pointer}: {detail}", errors=[wrong])
    data = [Embedding(index=place, embedding=_told(row, body)) for place, row in enumerate(rows_TD)]
    usage = EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens)
    return EmbeddingReply(data=data, model=model.version, usage=usage)


def _embedded(engine: Engine, texts: Sequence[str], salt: str) -> tuple[npt.NDArray[np.float32], int]:
    """[texts, D], and how many tokens the texts have."""
    return engine.embed(texts, salt), sum(engine.count(Piece(text)) for text in texts)


def _told(row_D: npt.NDArray[np.float32], body: EmbeddingRequest) -> list[float] | str:
    if body.encoding_format == "base64":
        return base64.b64encode(row_D.astype("<f4").tobytes()).decode("ascii")
    return [float(value) for value in row_D]
