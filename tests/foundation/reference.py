"""The reference that trees are held against: every leaf alone, one plain causal sequence, another attention.

A leaf's path is its ancestors up to where the branch hangs, and itself. Experts are compared slot by slot: routing is
discontinuous, so where a choice differs by less than the router's margin, the reference's experts are forced upon the
packed forward and the bound must hold again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.models.mixtral.modeling_mixtral import MixtralRMSNorm, MixtralTopKRouter

from foundation.attention.registry import IMPLEMENTATION
from foundation.bench.naive import Path, path
from foundation.engine.base import TokenNode, TokenTree, Vector
from foundation.engine.pack import Packed, pack
from foundation.model import Ranker

MARGIN = 1e-5
"""A router's choice may differ where the probabilities of the last expert in and the first one out are this close."""


def random_tree(rng: random.Random, vocabulary: int, hidden: int = 0, depth: int = 4) -> TokenTree:
    """Nodes of ids and, with `hidden`, of vectors and of texts to compress; children at any slot of their parents."""
    nodes = [_node(rng, vocabulary, hidden, -1, None)]
    level = {0: 0}
    for index in range(1, rng.randint(3, 14)):
        parent = rng.choice([n for n in range(index) if level[n] < depth - 1])
        size = len(nodes[parent].slots)
        after = rng.randint(1, size) if rng.random() < 0.6 else None
        level[index] = level[parent] + 1
        nodes.append(_node(rng, vocabulary, hidden, parent, after, answers=(3, 4, 5)[: rng.randint(1, 3)]))
    return TokenTree(tuple(nodes))


def _node(
    rng: random.Random, vocabulary: int, hidden: int, parent: int, after: int | None, answers: tuple[int, ...] = ()
) -> TokenNode:
    slots: list[int] = []
    vectors: list[Vector] = []
    for _ in range(rng.choice([1, 2, 3, 7, rng.randint(1, 40)])):
        kind = rng.random() if hidden else 1.0
        if kind < 0.2:
            vectors.append(tuple(rng.randrange(3, vocabulary) for _ in range(rng.randint(1, 9))))
        elif kind < 0.3:
            vectors.append(torch.randn(hidden, generator=torch.Generator().manual_seed(rng.randrange(1 << 30))))
        if kind < 0.3:
            slots.append(-len(vectors))
        else:
            slots.append(rng.randrange(3, vocabulary))
    return TokenNode(tuple(slots), parent, after, answers, tuple(vectors))


class Routing(NamedTuple):
    """What the routers of one forward chose: by layer, probabilities [N, experts] and indices [N, k]."""

    probabilities: list[torch.Tensor]
    chosen: list[torch.Tensor]


@contextmanager
def routed(ranker: Ranker, forced: Sequence[torch.Tensor] | None = None) -> Iterator[Routing]:
    """Listens to the routers; with `forced` ([N, k] a layer, -1: as it likes), decides in their place."""
    routing = Routing([], [])

    def hook(_module: nn.Module, _inputs: object, output: Any) -> Any:
        logits, scores, indices = output
        probabilities = logits.softmax(dim=-1)
        if forced is not None:
            wanted = forced[len(routing.chosen)]
            indices = torch.where(wanted >= 0, wanted, indices)
            scores = probabilities.gather(1, indices)
            scores = (scores / scores.sum(dim=-1, keepdim=True)).to(output[1].dtype)
        routing.probabilities.append(probabilities)
        routing.chosen.append(indices)
        return logits, scores, indices

    routers = [module for module in ranker.modules() if isinstance(module, MixtralTopKRouter)]
    hooks = [router.register_forward_hook(hook) for router in routers]
    try:
        yield routing
    finally:
        for each in hooks:
            each.remove()


@torch.inference_mode()
def alone(ranker: Ranker, tree: TokenTree, leaf: int) -> tuple[torch.Tensor, Routing, Path]:
    """Answer log-probabilities of one leaf by plain causal attention, its routing, and its path."""
    found = path(tree, leaf)
    packed = pack([TokenTree((TokenNode(found.slots, answers=tree.nodes[leaf].answers, vectors=found.vectors),))])
    ranker.lm.set_attn_implementation("sdpa")
    try:
        with routed(ranker) as routing:
            logp = ranker(packed).log_softmax(dim=-1)[0]
    finally:
        ranker.lm.set_attn_implementation(IMPLEMENTATION)
    return logp, routing, found


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


class Comparison(NamedTuple):
    """Leaves compared, the largest difference, and how many had an expert chosen otherwise within the margin."""

    leaves: int
    largest: float
    rerouted: int


@torch.inference_mode()
def compare(ranker: Ranker, trees: Sequence[TokenTree]) -> Comparison:
    """All leaves of all trees in one forward, against each alone. Raises AssertionError for a choice of experts that
    differs beyond the margin."""
    packed = pack(trees)
    with routed(ranker) as routing:
        logp_LA = ranker(packed).log_softmax(dim=-1)
    slots = slot_places(trees)
    largest, rerouted, row = 0.0, 0, 0
    for tree_index, tree in enumerate(trees):
        for leaf in (index for index, node in enumerate(tree.nodes) if node.answers):
            expected, reference, found = alone(ranker, tree, leaf)
            rows = torch.tensor([slots[tree_index][origin] for origin in found.origin])
            actual = logp_LA[row, : len(expected)]
            if _differs(routing, reference, rows):
                rerouted += 1
                actual = _forced(ranker, packed, reference, rows)[row, : len(expected)]
            largest = max(largest, float((actual - expected).abs().max()))
            row += 1
    return Comparison(row, largest, rerouted)


def _differs(packed: Routing, reference: Routing, rows: torch.Tensor) -> bool:
    for layer, chosen in enumerate(reference.chosen):
        same = (packed.chosen[layer][rows].sort(dim=-1).values == chosen.sort(dim=-1).values).all(dim=-1)
        if not same.all():  # what follows in deeper layers follows from this one
            ordered = reference.probabilities[layer][~same].sort(dim=-1, descending=True).values
            margin = float((ordered[:, chosen.shape[-1] - 1] - ordered[:, chosen.shape[-1]]).max())
            assert margin <= MARGIN, f"another expert was chosen although the router's margin is {margin:.1e}"
            return True
    return False


def _forced(ranker: Ranker, packed: Packed, reference: Routing, rows: torch.Tensor) -> torch.Tensor:
    forced = []
    for chosen in reference.chosen:
        wanted = torch.full((len(packed.slots), chosen.shape[-1]), -1)
        wanted[rows] = chosen
        forced.append(wanted)
    with routed(ranker, forced):
        return torch.as_tensor(ranker(packed)).log_softmax(dim=-1)


def widen(ranker: Ranker) -> Ranker:
    """The ranker in fp64 throughout: transformers' norm and router round to fp32 on the way, which is replaced here."""
    ranker.double()
    ranker.lm.set_experts_implementation("eager")
    for module in ranker.modules():
        if isinstance(module, MixtralRMSNorm):
            module.forward = _wide_norm(module)  # type: ignore[method-assign]
        elif isinstance(module, MixtralTopKRouter):
            module.forward = _wide_router(module)  # type: ignore[method-assign]
    return ranker


def _wide_norm(module: MixtralRMSNorm) -> Any:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return module.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon)

    return forward


def _wide_router(module: MixtralTopKRouter) -> Any:
    def forward(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = nn.functional.linear(x.reshape(-1, module.hidden_dim), module.weight)
        values, indices = logits.softmax(dim=-1).topk(module.top_k, dim=-1)
        return logits, values / values.sum(dim=-1, keepdim=True), indices

    return forward
