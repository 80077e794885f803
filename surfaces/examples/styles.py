"""Other ways to say the same, so that a model follows what a surface says instead of remembering surfaces."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from foundation.engine.base import Engine
from prompts.errors import TrainingError
from prompts.tree import Piece, PromptNode, PromptTree
from prompts.verbalize import Happening, TrunkForm, compressed, event_piece, fitted
from surfaces.compose import stem_pieces
from surfaces.evaluation.payloads import carrying
from surfaces.examples.settings import ExampleSettings
from surfaces.happenings import attributes_of
from surfaces.leaves import leaf_piece
from surfaces.ledger.records import Item
from surfaces.spec import SurfaceSpec

NAMES = frozenset({"title", "name", "text"})
"""Attributes that say what an item is; a style never leaves them unsaid."""


@dataclass(frozen=True)
class Style:
    """One way to say a surface and its trunk; what was said once is kept. Attributes that are `unsaid` are left out."""

    spec: SurfaceSpec
    form: TrunkForm
    engine: Engine
    unsaid: frozenset[str] = frozenset()
    _events: dict[tuple[str, str], Piece] = field(default_factory=dict)
    _leaves: dict[str, Piece] = field(default_factory=dict)
    _tokens: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def leaf(self, item: Item) -> Piece:
        """An item as a candidate."""
        if item.item_id not in self._leaves:
            self._leaves[item.item_id] = leaf_piece(self.spec, self._attributes(item))
        return self._leaves[item.item_id]

    def attacked(self, item: Item, words: str, *, ahead: bool) -> Piece:
        """The same with words in its text that try to talk to the model."""
        return leaf_piece(self.spec, carrying(self.spec, self._attributes(item), words, ahead=ahead))

    def tokens(self, item: Item) -> tuple[int, ...]:
        """A candidate's text as the model's compressor reads it. Raises TrainingError for a model without one."""
        if item.item_id not in self._tokens:
            leaf = self.leaf(item)._replace(compress=True)
            (node,) = self.engine.read(PromptTree((PromptNode((leaf,)),))).nodes
            if not node.vectors or not isinstance(node.vectors[0], tuple):
                raise TrainingError("loss.contrast: it brings vectors of texts together, and this model makes none")
            self._tokens[item.item_id] = node.vectors[0]
        return self._tokens[item.item_id]

    def stem(self, context: Mapping[str, object] | None = None) -> tuple[Piece, ...]:
        """The surface's instruction, and what it says of a context."""
        return stem_pieces(self.spec, context)

    def event(self, item: Item, action: str, number: int, total: int) -> Piece:
        """Event `number` of `total` in a trunk."""
        key = item.item_id, action
        if key not in self._events:
            happening = Happening(item.kind, action, self._attributes(item))
            piece = event_piece(self.form, happening, compress=False)
            self._events[key] = piece if self.form.detail == "vector" else fitted(piece, self.form.budget, self._count)
        return self._events[key]._replace(compress=compressed(self.form, number, total))

    def _count(self, piece: Piece) -> int:
        return self.engine.count(piece)

    def _attributes(self, item: Item) -> dict[str, object]:
        told = attributes_of(item)
        return {name: value for name, value in told.items() if name not in self.unsaid} if self.unsaid else told


def styles(
    spec: SurfaceSpec,
    form: TrunkForm,
    engine: Engine,
    settings: ExampleSettings,
    attributes: Collection[str],
    seed: int,
) -> list[Style]:
    """The surface's own way, then as many others as the settings ask for, drawn by `seed`."""
    rng = np.random.default_rng((seed, 7))
    asked = (spec.prompt.instruction, f"{spec.description}.", *settings.instructions.get(spec.surface, ()))
    free = sorted(set(attributes) - NAMES - {"item_id"})
    found = [Style(spec, form, engine)]
    for _ in range(settings.styles):
        said = asked[int(rng.integers(len(asked)))]
        prompt = spec.prompt.model_copy(update={"instruction": said})
        words = {action: str(rng.choice([form.actions.get(action, action), *others]))
                 for action, others in settings.words.items()}  # fmt: skip
        unsaid = frozenset(name for name in free if rng.random() < settings.field_dropout)
        found.append(
            Style(
                spec.model_copy(update={"prompt": prompt}),
                replace(form, actions={**form.actions, **words}),
                engine,
                unsaid,
            )
        )
    return found
