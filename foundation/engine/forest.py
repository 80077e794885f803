"""The trees of a call as one forest, in which nodes that say the same behind the same are one.

Two surfaces of the same member share their trunk here, and equal candidates of one request are computed once. What may
be shared is bounded by the trees' salts and the nodes' adapters: nodes of different ones are never the same.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from foundation.engine.base import TokenNode, TokenTree, Vector
from prompts.errors import TreeError

Elements = tuple[Hashable, ...]
"""What a run of slots says, slot by slot: ids, texts to compress, the bytes of given vectors; `Under` an adapter."""


class Under(NamedTuple):
    """What a slot says, and the adapter under which it does."""

    adapter: str
    said: Hashable


@dataclass(slots=True)
class Node:
    """A node of the forest. It sees `seen` slots of its parent (-1: a root); its first slot has position `depth`."""

    slots: tuple[int, ...]
    vectors: tuple[Vector, ...]
    parent: int
    seen: int
    depth: int
    salt: str
    adapter: str = ""
    children: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.slots)

    def elements(self) -> Elements:
        """What its slots say, under its adapter."""
        said = elements(self.slots, self.vectors)
        return tuple(Under(self.adapter, each) for each in said) if self.adapter else said


@dataclass(slots=True)
class Forest:
    """Nodes with parents first, and for each tree the node that each node of the tree became."""

    nodes: list[Node] = field(default_factory=list)
    places: list[list[int]] = field(default_factory=list)

    @classmethod
    def of(cls, trees: Sequence[TokenTree], *, merge: bool = True) -> Forest:
        """Raises TreeError for no trees, or for one that does not hold together."""
        if not trees or not all(tree.nodes for tree in trees):
            raise TreeError("a batch needs at least one tree, and a tree at least one node")
        forest = cls()
        known: dict[Hashable, int] = {}
        for tree in trees:
            place: list[int] = []
            for index, node in enumerate(tree.nodes):
                _check(index, node)
                place.append(forest._plant(tree.salt, node, place, known if merge else None))
            forest.places.append(place)
        return forest

    def _plant(self, salt: str, node: TokenNode, place: Sequence[int], known: dict[Hashable, int] | None) -> int:
        parent = place[node.parent] if node.parent >= 0 else -1
        seen = self._sees(node, parent)
        if known is not None:
            said = elements(node.slots, node.vectors)
            identity = (salt if parent < 0 else parent, seen, node.adapter, node.slots, said)
            if (found := known.setdefault(identity, len(self.nodes))) < len(self.nodes):
                return found
        depth = self.nodes[parent].depth + seen if parent >= 0 else 0
        if parent >= 0:
            self.nodes[parent].children.append(len(self.nodes))
        self.nodes.append(Node(node.slots, node.vectors, parent, seen, depth, salt, node.adapter))
        return len(self.nodes) - 1

    def _sees(self, node: TokenNode, parent: int) -> int:
        if parent < 0:
            return 0
        size = self.nodes[parent].size
        after = size if node.after is None else node.after
        if not 1 <= after <= size:
            raise TreeError(f"a node hangs after slot {after} of a parent with {size} slots")
        return after

    @property
    def adapters(self) -> set[str]:
        """All that its nodes name."""
        return {node.adapter for node in self.nodes} - {""}

    def depth_first(self) -> list[int]:
        """Every node, parents first, children in the order in which they hang."""
        order: list[int] = []
        stack = [index for index in range(len(self.nodes) - 1, -1, -1) if self.nodes[index].parent < 0]
        while stack:
            index = stack.pop()
            order.append(index)
            below = self.nodes[index].children
            below.sort(key=lambda child: self.nodes[child].seen)
            stack.extend(reversed(below))
        return order

    def ancestors(self, index: int) -> Iterator[int]:
        """The node itself, then those above it, nearest first."""
        while index >= 0:
            yield index
            index = self.nodes[index].parent

    def path(self, index: int) -> Elements:
        """What a node and all that it sees say, from the root on."""
        said: Elements = ()
        seen = self.nodes[index].size
        for above in self.ancestors(index):
            said = self.nodes[above].elements()[:seen] + said
            seen = self.nodes[above].seen
        return said


def elements(slots: tuple[int, ...], vectors: tuple[Vector, ...]) -> Elements:
    """What slots say; ids where there are no vectors."""
    if not vectors:
        return slots
    return tuple(slot if slot >= 0 else _said(vectors[-1 - slot]) for slot in slots)


def _said(vector: Vector) -> Hashable:
    if isinstance(vector, torch.Tensor):
        return vector.dtype, vector.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
    return vector


def _check(index: int, node: TokenNode) -> None:
    if not node.slots:
        raise TreeError(f"node {index}: it has no slots")
    if (node.parent < 0) != (index == 0) or node.parent >= index:
        raise TreeError(f"node {index}: its parent must be an earlier node; node 0 alone is the root")
    if index == 0 and node.adapter:
        raise TreeError(f"node 0: a trunk has no adapter, not '{node.adapter}': the base computes it for all of them")
    if min(node.slots) < -len(node.vectors):
        raise TreeError(f"node {index}: slot {min(node.slots)}, but it has {len(node.vectors)} vectors")
