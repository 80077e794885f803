"""What the model would read for a request: the text of every node, with the slots that it takes."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field

from prompts.tree import Piece, PromptNode
from serve.pipeline import write
from serve.schemas import RankRequest
from serve.served import ServedSurface
from serve.services import Services
from serve.shortlist import draw_up


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
    shortlist = draw_up(request, surface, services.ledger)
    trunk, stem, *leaves = write(surface, shortlist, services).tree.nodes
    views = [
        LeafView(item_id=each.item_id, sources=shortlist.sources(each), pieces=_pieces(leaf, services))
        for each, leaf in zip(shortlist.candidates, leaves, strict=True)
    ]
    told, asked = _pieces(trunk, services), _pieces(stem, services)
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


def _pieces(node: PromptNode, services: Services) -> list[PieceView]:
    return [_piece(piece, services) for piece in node.pieces]


def _piece(piece: Piece, services: Services) -> PieceView:
    slots = services.engine.count(piece)
    alone = services.engine.count(piece._replace(compress=False))
    return PieceView(text=piece.text, slots=slots, vector=piece.compress and slots != alone)
