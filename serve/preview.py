"""What the model would read for a request: the text of every node, with the slots that it takes.

Beside it, a ranking without a queue and a deadline, as a command that checks a surface wants one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import BaseModel, Field

from foundation.engine.base import Engine
from prompts.tree import Piece, PromptNode, PromptTree
from serve.batcher import Scored
from serve.pipeline import Prompt, judge, write
from serve.schemas import RankedItem, RankRequest
from serve.served import ServedSurface
from serve.services import Services
from serve.shortlist import Shortlist, draw_up


class PieceView(BaseModel):
    """A piece of text: it is encoded alone."""

    text: str
    slots: int = Field(description="tokens, or the one vector in their place")
    vector: bool = Field(description="whether the model reads it as one vector")


class LeafView(BaseModel):
    """A candidate."""

    item_id: str
    sources: list[str] = Field(description="where it came from, the source that ranks it best first")
    pieces: list[PieceView]


class Preview(BaseModel):
    """The tree of a request."""

    surface: str
    version: str
    events: int = Field(description="events of the timeline, without impressions")
    events_told: int = Field(description="those of them that the trunk holds")
    trunk: list[PieceView]
    stem: list[PieceView]
    leaves: list[LeafView]
    slots: int = Field(description="of the whole tree")
    answers: list[str] = Field(description="the words whose probability is read at each leaf")


def preview_of(request: RankRequest, surface: ServedSurface, services: Services) -> Preview:
    """The tree for a request. Raises UnknownError for a member or an item that nobody knows."""
    shortlist = draw_up(request, surface, services.ledger, services.settings.max_timeline)
    return viewed(write(surface, shortlist, services), shortlist, surface)


class DryRun(NamedTuple):
    """A ranking that nobody waited for: what the model read, the slate, and how long it all took."""

    shortlist: Shortlist
    preview: Preview
    slate: list[RankedItem]
    seconds: float


def dry_run(request: RankRequest, surface: ServedSurface, services: Services) -> DryRun:
    """The request ranked by the model, whatever the deadline. Raises UnknownError as `preview_of` does."""
    start = time.perf_counter()
    shortlist = draw_up(request, surface, services.ledger, services.settings.max_timeline)
    prompt = write(surface, shortlist, services)
    scores, *back = surface.model.engine.score([prompt.tokens, *prompt.back])
    slate = judge(Scored(scores, 0.0, 0.0, tuple(back)), prompt, shortlist, surface, request.k)
    seconds = time.perf_counter() - start
    return DryRun(shortlist, viewed(prompt, shortlist, surface), slate, seconds)


def viewed(prompt: Prompt, shortlist: Shortlist, surface: ServedSurface) -> Preview:
    """The tree of a request that is written."""
    engine, (trunk, stem, *leaves) = surface.model.engine, prompt.tree.nodes
    views = [
        LeafView(item_id=each.item_id, sources=shortlist.sources(each), pieces=_pieces(leaf, engine))
        for each, leaf in zip(shortlist.candidates, leaves, strict=True)
    ]
    told, asked = _pieces(trunk, engine), _pieces(stem, engine)
    return Preview(
        surface=surface.spec.surface,
        version=surface.version,
        events=len(shortlist.visit.acts),
        events_told=len(told) - 1,
        trunk=told,
        stem=asked,
        leaves=views,
        slots=slots_of(told) + slots_of(asked) + sum(slots_of(view.pieces) for view in views),
        answers=list(surface.spec.answers),
    )


def slots_of(pieces: Sequence[PieceView]) -> int:
    """How many slots the pieces take together."""
    return sum(piece.slots for piece in pieces)


def _pieces(node: PromptNode, engine: Engine) -> list[PieceView]:
    return [_piece(piece, engine) for piece in node.pieces]


def _piece(piece: Piece, engine: Engine) -> PieceView:
    read = engine.read(PromptTree((PromptNode((piece,)),)))
    return PieceView(text=piece.text, slots=engine.count(piece), vector=bool(read.nodes[0].vectors))
