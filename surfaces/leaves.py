"""Items as they were put into words for a surface, kept for the next member who gets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from prompts.disarm import disarmed
from prompts.tree import Piece
from prompts.verbalize import PIECE_CAP
from surfaces.evidence import unforged
from surfaces.happenings import attributes_of
from surfaces.lately import Lately
from surfaces.ledger.records import Item
from surfaces.spec import SurfaceSpec

KEPT, KEPT_CAP = 16_384, 1_000
"""So many are kept, of items whose attributes take so many characters."""


class _Kept(NamedTuple):
    """A leaf's text, and what it was made of."""

    spec: SurfaceSpec
    item: Item
    piece: Piece


class Leaves:
    """What surfaces say of items. May be used from any thread."""

    def __init__(self) -> None:
        self._kept = Lately[tuple[str, str, str], _Kept](KEPT)

    def of(self, spec: SurfaceSpec, item: Item, locale: object = None) -> Piece:
        """`leaf_piece` of an item. The very same item is told once."""
        language = spec.prompt.language(locale)
        key = spec.surface, language, item.item_id
        kept = self._kept.find(key)
        if kept is not None and kept.item is item and kept.spec is spec:
            return kept.piece
        piece = leaf_piece(spec, attributes_of(item), language)
        if len(str(item.attributes)) <= KEPT_CAP:
            self._kept.keep(key, _Kept(spec, item, piece))
        return piece

    def forget(self) -> None:
        """Drops all."""
        self._kept.forget()


def leaf_piece(spec: SurfaceSpec, attributes: Mapping[str, object], locale: object = None) -> Piece:
    """A candidate as text, without what only sources may say; an item without any text is its kind."""
    said = spec.prompt.wording(locale).leaf(attributes)
    text = disarmed(unforged(said))[:PIECE_CAP].strip()
    return Piece(text or spec.item_kind, compress=spec.prompt.compress)
