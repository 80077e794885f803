"""One ranking as a tree: the trunk, the surface's stem on it, a leaf for every candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prompts.disarm import disarmed
from prompts.tree import Piece, PromptNode, PromptTree
from prompts.verbalize import PIECE_CAP, Count, Trunk, TrunkForm
from surfaces.leaves import Leaves, leaf_piece
from surfaces.ledger.records import Item
from surfaces.sources.merge import Retrieval
from surfaces.spec import ExampleSpec, SurfaceSpec, Wording
from surfaces.trunks import Trunks
from surfaces.visit import Visit

TRUNK, STEM = 0, 1
"""Indices of the first two nodes; leaf i is node 2 + i."""


@dataclass(frozen=True, slots=True)
class Composer:
    """From a member and candidates to the tree that the model reads: the same for a request and for an evaluation."""

    spec: SurfaceSpec
    form: TrunkForm
    retrieval: Retrieval
    count: Count
    trunks: Trunks = field(default_factory=Trunks)
    leaves: Leaves = field(default_factory=Leaves)

    def tree(self, visit: Visit, items: Mapping[str, Item], candidates: Sequence[str]) -> PromptTree:
        """`items` holds every candidate and every event's item that the trunk may tell, by id."""
        trunk = self.trunks.of(self.spec.surface, self.form, visit, items, self.count)
        evidence = self.retrieval.evidence(visit, candidates, compress=self.spec.prompt.compress)
        locale = visit.context.get("locale")
        texts = [self.leaves.of(self.spec, items[name], locale) for name in candidates]
        return _tree(self.spec, trunk, texts, visit.context, evidence)


def compose(
    spec: SurfaceSpec,
    trunk: Trunk,
    items: Sequence[Mapping[str, object]],
    context: Mapping[str, object] | None = None,
    evidence: Sequence[Piece] = (),
) -> PromptTree:
    """Node 0 is the trunk, node 1 the stem, then one leaf an item (its attributes, then its evidence), in order."""
    locale = (context or {}).get("locale")
    return _tree(spec, trunk, [leaf_piece(spec, item, locale) for item in items], context, evidence)


def _tree(
    spec: SurfaceSpec,
    trunk: Trunk,
    texts: Sequence[Piece],
    context: Mapping[str, object] | None,
    evidence: Sequence[Piece],
) -> PromptTree:
    stem = PromptNode(stem_pieces(spec, context), parent=TRUNK)
    said = zip(evidence, strict=False) if evidence else ((),) * len(texts)
    leaves = (
        PromptNode((text, *more), parent=STEM, answers=spec.answers, likelihood=spec.likelihood)
        for text, more in zip(texts, said, strict=True)
    )
    return PromptTree((PromptNode(trunk.pieces), stem, *leaves))


def stem_pieces(spec: SurfaceSpec, context: Mapping[str, object] | None = None) -> tuple[Piece, ...]:
    """The instruction, and what the surface says of the request's context when there is something to say."""
    context = context or {}
    wording = spec.prompt.wording(context.get("locale"))
    examples = tuple(_example(wording, example) for example in spec.prompt.examples)
    said = disarmed(wording.stem({"locale": spec.locale, **context}))[:PIECE_CAP]
    return (Piece(f"{wording.instruction}\n"), *examples, *((Piece(f"{said}\n"),) if said else ()))


def _example(wording: Wording, example: ExampleSpec) -> Piece:
    """An example in the form of a small tree: a member, an item behind them, the answer behind the item."""
    item = wording.leaf(example.item)
    return Piece(f"{example.member} {item}"[:PIECE_CAP].rstrip() + f" {example.answer}\n")
