"""The reference that trees are held against: every leaf alone, one plain causal sequence, another attention.

A leaf's path is its ancestors up to where the branch hangs, and itself. Experts are compared slot by slot: routing is
discontinuous, so where a choice differs by less than the router's margin, the reference's experts are forced upon the
same trees, scored the same way from nothing, and the bound must hold again.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from foundation.attention.registry import IMPLEMENTATION
from foundation.bench.naive import Path, path
from foundation.engine import pack as packing
from foundation.engine import run as running
from foundation.engine.base import TokenNode, TokenTree, Vector
from foundation.engine.forest import Forest, elements
from foundation.engine.pack import Layout, Memory, Work, pack
from foundation.engine.torch import EngineSettings, TorchEngine
from foundation.model import Ranker
from foundation.tokenizer import TextEncoder

MARGIN = 1e-5
"""A router's choice may differ where the probabilities of the last expert in and the first one out are this close."""


def random_tree(rng: random.Random, vocabulary: int, hidden: int = 0, depth: int = 4, salt: str = "") -> TokenTree:
    """Nodes of ids and, with `hidden`, of vectors and of texts to compress; children at any slot of their parents.

    Every node but the root answers, and sometimes the root, too.
    """
    nodes = [random_node(rng, vocabulary, hidden, answers=(3, 4) if rng.random() < 0.2 else ())]
    level = {0: 0}
    for index in range(1, rng.randint(3, 14)):
        parent = rng.choice([n for n in range(index) if level[n] < depth - 1])
        size = len(nodes[parent].slots)
        after = rng.randint(1, size) if rng.random() < 0.6 else None
        level[index] = level[parent] + 1
        nodes.append(random_node(rng, vocabulary, hidden, parent, after, (3, 4, 5, 6)[: rng.randint(2, 4)]))
    return TokenTree(tuple(nodes), salt)


def random_node(
    rng: random.Random, vocabulary: int, hidden: int = 0, parent: int = -1, after: int | None = None,
    answers: tuple[int, ...] = (),
) -> TokenNode:  # fmt: skip
    """One to forty slots, short ones more often."""
    slots: list[int] = []
    vectors: list[Vector] = []
    for _ in range(rng.choice([1, 2, 3, 7, rng.randint(1, 40)])):
        kind = rng.random() if hidden else 1.0
        if kind < 0.2:
            vectors.append(tuple(rng.randrange(3, vocabulary) for _ in range(rng.randint(1, 9))))
        elif kind < 0.3:
            vectors.append(torch.randn(hidden, generator=torch.Generator().manual_seed(rng.randrange(1 << 30))))
        slots.append(-len(vectors) if kind < 0.3 else rng.randrange(3, vocabulary))
    return TokenNode(tuple(slots), parent, after, answers, tuple(vectors))


class Leaf(NamedTuple):
    """A node that answers: the number of its tree and its own."""

    tree: int
    node: int


def leaves_of(trees: Sequence[TokenTree]) -> list[Leaf]:
    """In the order in which they are scored."""
    return [Leaf(n, index) for n, tree in enumerate(trees) for index, node in enumerate(tree.nodes) if node.answers]


def slot_places(trees: Sequence[TokenTree]) -> list[dict[tuple[int, int], int]]:
    """By tree, the packed slot of each (node, slot): read off a copy in which every slot has an id of its own."""
    marked, number, origins = [], 0, []
    for tree_index, tree in enumerate(trees):
        nodes = []
        for node_index, node in enumerate(tree.nodes):
            ids = range(number, number + len(node.slots))
            origins += [(tree_index, node_index, place) for place in range(len(node.slots))]
            number += len(node.slots)
            nodes.append(TokenNode(tuple(ids), node.parent, node.after, node.answers))
        marked.append(TokenTree(tuple(nodes)))
    found: list[dict[tuple[int, int], int]] = [{} for _ in trees]
    for at, mark in enumerate(pack(marked).slots.tolist()):
        tree_index, node_index, place = origins[mark]
        found[tree_index][node_index, place] = at
    return found


class Routing(NamedTuple):
    """What the routers of one forward chose: by layer, probabilities [N, experts] and indices [N, k]."""

    probabilities: list[torch.Tensor]
    chosen: list[torch.Tensor]


def routers_of(ranker: Ranker) -> list[nn.Module]:
    """By layer; none where the decoder is dense."""
    return [module for module in ranker.modules() if type(module).__name__.endswith("TopKRouter")]


def shares(router: nn.Module, probabilities: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """How much each chosen expert counts: Mixtral's add up to one, Qwen's where its configuration says so."""
    found = probabilities.gather(1, chosen)
    return found / found.sum(dim=-1, keepdim=True) if getattr(router, "norm_topk_prob", True) else found


@contextmanager
def routed(ranker: Ranker) -> Iterator[Routing]:
    """Listens to the routers of one forward."""
    routing = Routing([], [])

    def hook(_module: nn.Module, _inputs: object, output: Any) -> None:
        routing.probabilities.append(output[0].softmax(dim=-1))
        routing.chosen.append(output[2])

    hooks = [router.register_forward_hook(hook) for router in routers_of(ranker)]
    try:
        yield routing
    finally:
        for each in hooks:
            each.remove()


class Alone(NamedTuple):
    """Answer log-probabilities of one leaf by plain causal attention, its routing, and its path."""

    logp: torch.Tensor
    routing: Routing
    path: Path


@torch.inference_mode()
def alone(ranker: Ranker, tree: TokenTree, leaf: int) -> Alone:
    """One leaf by transformers' own forward of its path, from the ids on where there are no vectors."""
    found = path(tree, leaf)
    if found.vectors:
        given: dict[str, Any] = {"inputs_embeds": ranker.embed_slots(np.array(found.slots), found.vectors)[None]}
    else:
        given = {"input_ids": torch.tensor([found.slots])}
    ranker.lm.set_attn_implementation("sdpa")
    try:
        with routed(ranker) as routing:
            logits = ranker.lm(**given, use_cache=False, logits_to_keep=1).logits[0, -1]
    finally:
        ranker.lm.set_attn_implementation(IMPLEMENTATION)
    return Alone(logits[list(tree.nodes[leaf].answers)].log_softmax(dim=-1), routing, found)


class References:
    """Leaves alone, each computed once however often it is met."""

    def __init__(self, ranker: Ranker) -> None:
        self.ranker = ranker
        self._known: dict[object, Alone] = {}

    def of(self, tree: TokenTree, leaf: int) -> Alone:
        """Of one leaf."""
        forest = Forest.of([tree], merge=False)
        key = (forest.path(leaf), tree.nodes[leaf].answers)
        if key not in self._known:
            self._known[key] = alone(self.ranker, tree, leaf)
        return self._known[key]


class Numbers:
    """Slots by what they say: two have one number where they and all that they see say the same, under one salt."""

    def __init__(self) -> None:
        self._known: dict[object, int] = {}

    def of(self, salt: str, said: Iterable[object]) -> list[int]:
        """Of the slots of a path, from the root on."""
        at, found = self._known.setdefault(salt, len(self._known)), []
        for each in said:
            at = self._known.setdefault((at, each), len(self._known))
            found.append(at)
        return found


Forced = Mapping[int, Sequence[Sequence[int]]]
"""By the number of a slot, its experts in each layer."""


class Trace:
    """What the routers chose for each slot, whenever it was computed; in place of them, others may decide."""

    def __init__(self, ranker: Ranker) -> None:
        self.routers = routers_of(ranker)
        self.numbers = Numbers()
        self.chosen: list[dict[int, set[tuple[int, ...]]]] = [{} for _ in self.routers]
        self._rows: list[int] = []
        self._read: list[int] = []

    @contextmanager
    def listening(self, trees: Sequence[TokenTree], forced: Forced | None = None) -> Iterator[None]:
        """While these trees are scored."""
        hooks = [
            router.register_forward_hook(partial(self._hear, layer, forced or {}))
            for layer, router in enumerate(self.routers)
        ]
        try:
            with self._knowing_rows(trees):
                yield
        finally:
            for each in hooks:
                each.remove()

    @contextmanager
    def _knowing_rows(self, trees: Sequence[TokenTree]) -> Iterator[None]:
        """Notes whose the rows of each forward are, as it is laid out."""
        places = Forest.of(trees).places
        ends = {places[leaf.tree][leaf.node] for leaf in leaves_of(trees)}
        original = packing.lay_out

        def lay_out(forest: Forest, works: Sequence[Work], memory: Memory) -> Layout:
            self._rows, self._read = [], []
            for work in works:
                node = forest.nodes[work.node]
                numbers = self.numbers.of(node.salt, forest.path(work.node))[node.depth :]
                self._rows += numbers[work.start : work.stop]
                self._read += numbers[-1:] if work.node in ends and work.stop == node.size else []
            return original(forest, works, memory)

        with patch.object(packing, "lay_out", lay_out), patch.object(running, "lay_out", lay_out):
            yield

    def _hear(self, layer: int, forced: Forced, router: nn.Module, _inputs: object, output: Any) -> Any:
        logits, scores, indices = output
        rows = self._rows if len(indices) == len(self._rows) else self._read  # a last layer may do only what is read
        if forced:
            own = zip(rows, indices.tolist(), strict=True)
            indices = torch.tensor([forced[row][layer] if row in forced else each for row, each in own]).view_as(
                indices
            )
            scores = shares(router, logits.softmax(dim=-1), indices).to(scores.dtype)
        for row, each in zip(rows, indices.sort(dim=-1).values.tolist(), strict=True):
            self.chosen[layer].setdefault(row, set()).add(tuple(each))
        return logits, scores, indices

    def slots(self, salt: str, one: Alone) -> list[int]:
        """The numbers of a path's slots."""
        return self.numbers.of(salt, elements(one.path.slots, one.path.vectors))

    def differs(self, salt: str, one: Alone) -> bool:
        """Whether a slot of a path was ever sent to other experts. Raises AssertionError where that was no tie."""
        slots = self.slots(salt, one)
        for layer, chosen in enumerate(one.routing.chosen):
            first = len(slots) - 1 if layer == len(self.routers) - 1 else 0  # of the last layer, one slot matters
            expected = [{tuple(each)} for each in chosen.sort(dim=-1).values.tolist()]
            others = [n for n in range(first, len(slots)) if self.chosen[layer][slots[n]] != expected[n]]
            if others:  # what follows in deeper layers follows from this one
                ordered = one.routing.probabilities[layer][others].sort(dim=-1, descending=True).values
                margin = float((ordered[:, chosen.shape[-1] - 1] - ordered[:, chosen.shape[-1]]).max())
                assert margin <= MARGIN, f"another expert was chosen although the router's margin is {margin:.1e}"
                return True
        return False

    def as_in(self, salt: str, one: Alone) -> Forced:
        """The experts of a leaf alone, for the slots of its path."""
        by_slot = zip(*(chosen.tolist() for chosen in one.routing.chosen), strict=True)
        return dict(zip(self.slots(salt, one), by_slot, strict=True))


class Way(Protocol):
    """A way to score trees that is held against the reference."""

    trace: Trace

    def score(self, trees: Sequence[TokenTree], forced: Forced | None = None) -> list[torch.Tensor]:
        """Log-probabilities of each leaf's answers."""
        ...

    def fresh(self) -> Way:
        """The same way, with nothing remembered."""
        ...


class Packed:
    """All trees whole in one forward of transformers' model, as training does it."""

    def __init__(self, ranker: Ranker) -> None:
        self.ranker, self.trace = ranker, Trace(ranker)

    @torch.inference_mode()
    def score(self, trees: Sequence[TokenTree], forced: Forced | None = None) -> list[torch.Tensor]:
        """See `Way`."""
        with self.trace.listening(trees, forced):
            packed = pack(trees)
            logp_LA = self.ranker(packed).log_softmax(dim=-1)
        return [logp[: len(answers)] for logp, answers in zip(logp_LA, packed.answers, strict=True)]

    def fresh(self) -> Packed:
        """See `Way`."""
        return Packed(self.ranker)


class Served:
    """The engine: trees merged, trunks and stems remembered from call to call, chunks, a forward of its own."""

    def __init__(self, ranker: Ranker, encoder: TextEncoder, settings: EngineSettings | None = None) -> None:
        self.engine = TorchEngine(ranker, encoder, settings=settings)
        self.trace = Trace(ranker)

    def score(self, trees: Sequence[TokenTree], forced: Forced | None = None) -> list[torch.Tensor]:
        """See `Way`."""
        with self.trace.listening(trees, forced):
            found = self.engine.score(trees)
        return [torch.from_numpy(logp) for scores in found for logp in scores.logp]

    def fresh(self) -> Served:
        """See `Way`."""
        return Served(self.engine.ranker, self.engine.encoder, self.engine.settings)


class Comparison(NamedTuple):
    """Leaves compared, the largest difference, and how many had an expert chosen otherwise within the margin."""

    leaves: int = 0
    largest: float = 0.0
    rerouted: int = 0

    def __or__(self, other: Comparison) -> Comparison:
        return Comparison(self.leaves + other.leaves, max(self.largest, other.largest), self.rerouted + other.rerouted)


def compare(way: Way, references: References, trees: Sequence[TokenTree]) -> Comparison:
    """All leaves of all trees, scored together, against each alone. Raises AssertionError for a choice of experts that
    differs beyond the margin."""
    found, largest, rerouted = way.score(trees), 0.0, 0
    for number, (tree, node) in enumerate(leaves_of(trees)):
        salt, expected = trees[tree].salt, references.of(trees[tree], node)
        actual = found[number]
        if way.trace.differs(salt, expected):
            rerouted += 1
            again = way.fresh()
            actual = again.score(trees, again.trace.as_in(salt, expected))[number]
        assert actual.shape == expected.logp.shape
        difference = float((actual - expected.logp).abs().max())
        largest = max(largest, difference if difference == difference else math.inf)
    return Comparison(len(found), largest, rerouted)


def widen(ranker: Ranker) -> Ranker:
    """The ranker in fp64 throughout: transformers' norm and router round to fp32 on the way, which is replaced here."""
    ranker.double()
    if routers_of(ranker):
        ranker.lm.set_experts_implementation("eager")
    for module in ranker.lm.modules():
        name = type(module).__name__
        if name.endswith("RMSNorm"):
            module.forward = _wide_norm(module, 1.0 if name.startswith("Gemma") else 0.0)
        elif name.endswith("TopKRouter"):
            module.forward = _wide_router(module)
    return ranker


def _wide_norm(module: Any, offset: float) -> Any:
    eps = module.eps if offset else module.variance_epsilon

    def forward(x: torch.Tensor) -> torch.Tensor:
        weight: torch.Tensor = module.weight + offset
        return weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)

    return forward


def _wide_router(module: Any) -> Any:
    def forward(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = nn.functional.linear(x.reshape(-1, module.hidden_dim), module.weight)
        probabilities = logits.softmax(dim=-1)
        indices = probabilities.topk(module.top_k, dim=-1).indices
        return logits, shares(module, probabilities, indices), indices

    return forward
