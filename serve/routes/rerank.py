"""Texts ranked for a query, in the shape that clients of Cohere and Jina speak."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from http import HTTPStatus

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, JsonValue

from prompts.tree import Piece
from serve import pipeline
from serve.bodies import StrictRoute
from serve.doors import CurrentKey, check_surface
from serve.problems import responses
from serve.routes.rank import unless_gone
from serve.schemas import Attributes, InlineCandidate, InlineMember, RankReply, RankRequest, Reason, RerankRequest
from serve.served import ServedSurface, over
from serve.services import CurrentServices, Services
from surfaces.ledger.records import Item

router = APIRouter(tags=["rerank"], route_class=StrictRoute)

PROBLEMS = responses(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)


LONGEST = 1_000
"""So many results are given at most, as a slate has entries."""


class Result(BaseModel):
    """A document's place."""

    index: int = Field(description="which of the documents, counted from 0")
    relevance_score: float = Field(
        description="its utility, a probability as a rule, where the model alone orders; else it falls with the place"
    )
    document: dict[str, JsonValue] | None = Field(default=None, exclude_if=lambda value: value is None)


class Usage(BaseModel):
    """How much was read."""

    prompt_tokens: int
    total_tokens: int


class ApiVersion(BaseModel):
    """Of which shape the reply is."""

    version: str


class Meta(BaseModel):
    """What clients of Cohere read of a call."""

    api_version: ApiVersion
    warnings: list[str] = []


class RerankReply(BaseModel):
    """The documents, best first."""

    id: str
    object: str = "list"
    model: str = Field(description="the version of the model")
    results: list[Result]
    usage: Usage
    meta: Meta
    degraded: bool = Field(
        description="true if the order is that of the words shared with the query, without the model"
    )
    reason: Reason | None = None


@router.post("/v1/rerank", responses=PROBLEMS)
async def rerank(body: RerankRequest, request: Request, services: CurrentServices, key: CurrentKey) -> RerankReply:
    """Rank texts for a query: what Cohere's `rerank` (version 1) and Jina's reranker take and answer.

    `model` is a surface: its template says what the model reads of a document, and its sources know the documents of
    the call alone. The reply comes by the surface's deadline; past it, the order is that of retrieval, `degraded`.
    """
    return await _reranked(body, request, services, key, "1")


@router.post("/v2/rerank", responses=PROBLEMS)
async def rerank_2(body: RerankRequest, request: Request, services: CurrentServices, key: CurrentKey) -> RerankReply:
    """The same under the path of Cohere's version 2."""
    return await _reranked(body, request, services, key, "2")


async def _reranked(
    body: RerankRequest, request: Request, services: Services, key: CurrentKey, version: str
) -> RerankReply:
    check_surface(key, body.model)
    surface = services.surface(body.model)
    with surface.model.used():
        ranking = _ranked(body, surface, services, request.state.arrived)
        reply, tokens = await unless_gone(request, ranking)
    told = [f"degraded: {reply.reason}"] if reply.degraded else []
    return RerankReply(
        id=uuid.uuid4().hex,
        model=reply.model,
        results=_results(reply, body),
        usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
        meta=Meta(api_version=ApiVersion(version=version), warnings=told),
        degraded=reply.degraded,
        reason=reply.reason,
    )


async def _ranked(
    body: RerankRequest, surface: ServedSurface, services: Services, arrived: float
) -> tuple[RankReply, int]:
    """The documents as a slate, and how many tokens they and the query have."""
    found = [_attributes(document) for document in body.documents]
    own, tokens = await services.retrieval.run(_prepared, found, body.query, surface, services)
    asked = RankRequest(
        member=InlineMember(),
        candidates=[
            InlineCandidate.model_validate({**told, "item_id": str(place)}) for place, told in enumerate(found)
        ],
        context={"query": body.query},
        k=min(body.top_n or len(found), len(found), LONGEST),
    )
    return await pipeline.rank_on(own, asked, services, arrived), tokens


def _prepared(
    found: Sequence[Attributes], query: str, surface: ServedSurface, services: Services
) -> tuple[ServedSurface, int]:
    items = [Item(str(place), surface.spec.item_kind, dict(told)) for place, told in enumerate(found)]
    texts = [query, *(str(value) for told in found for value in told.values())]
    own = over(surface, items, services.ledger)
    return own, sum(surface.model.engine.count(Piece(text)) for text in texts)


def _results(reply: RankReply, body: RerankRequest) -> list[Result]:
    """In the order of the slate. Where that is not the model's alone, the score falls evenly with the place."""
    found, alone = [], reply.route == "foundation"
    for entry in reply.slate:
        place, falling = int(entry.item_id), 1 - entry.rank / (len(body.documents) + 1)
        score = entry.utility if alone and entry.utility is not None else falling
        told = _attributes(body.documents[place]) if body.return_documents else None
        found.append(Result(index=place, relevance_score=score, document=told))
    return found


def _attributes(document: str | Attributes) -> Attributes:
    told: Attributes = {"text": document} if isinstance(document, str) else document
    return told or {"text": ""}
