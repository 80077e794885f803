"""Items as they were put into words for a surface, kept for the next member who gets them."""

from __future__ import annotations

from collections.abc import Mapping

from prompts.disarm import disarmed
from prompts.tree import Piece
from prompts.verbalize import PIECE_CAP
from surfaces.evidence import unforged
from surfaces.happenings import attributes_of
from surfaces.lately import Pieces
from surfaces.ledger.records import Item
from surfaces.spec import SurfaceSpec


class Leaves:
    """What surfaces say of items. May be used from any thread."""

    def __init__(self) -> None:
        self._pieces = Pieces()

    def of(self, spec: SurfaceSpec, item: Item, locale: object = None) -> Piece:
        """`leaf_piece` of an item. The very same item is told once."""
        language = spec.prompt.language(locale)

        def made() -> Piece:
            return leaf_piece(spec, attributes_of(item), language)

        return self._pieces.of(item, (spec.surface, language), spec, made)

    def forget(self) -> None:
        """Drops all."""
        self._pieces.forget()


def leaf_piece(spec: SurfaceSpec, attributes: Mapping[str, object], locale: object = None) -> Piece:
    """A candidate as text, without what only sources may say; an item without any text is its kind."""
    said = spec.prompt.wording(locale).leaf(attributes)
    text = disarmed(unforged(said))[:PIECE_CAP].strip()
    return Piece(text or spec.item_kind, compress=spec.prompt.compress)
