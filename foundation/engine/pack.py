"""Trees of any shape, laid end to end: one row a slot, no padding.

A tree is laid out depth first, children in the order in which they hang, so the descendants that see the same run of an
ancestor follow each other and attend to it in one rectangle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from foundation.attention import Plan, Rectangle
from foundation.engine.base import TokenNode, TokenTree, Vector
from prompts.errors import TreeError


@dataclass(frozen=True, slots=True)
class Packed:
    """A batch of trees. N slots, L leaves in the order of their trees and nodes.

    `slots` [N] are token ids, or -1-i for `vectors[i]`; `positions` [N] restart at each child; `rows` [L] are the
    slots that answer; `answers` holds each leaf's answer ids; `leaves` counts the leaves of each tree.
    """

    slots: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    vectors: list[Vector]
    rows: npt.NDArray[np.int64]
    answers: list[tuple[int, ...]]
    leaves: list[int]
    plan: Plan


class _Layout:
    """Where each node of one tree comes to lie, from `base` on."""

    def __init__(self, tree: TokenTree, base: int) -> None:
        self.nodes = tree.nodes
        self.children: list[list[int]] = [[] for _ in tree.nodes]
        for index, node in enumerate(tree.nodes):
            _check(index, node)
            if index:
                self.children[node.parent].append(index)
        self.seen = [self._sees(node) for node in tree.nodes]
        self.start, self.end = [0] * len(tree.nodes), [0] * len(tree.nodes)
        self.depth = [0] * len(tree.nodes)
        self.order: list[int] = []
        self._place(base)

    def _sees(self, node: TokenNode) -> int:
        if node.parent < 0:
            return 0
        size = len(self.nodes[node.parent].slots)
        after = size if node.after is None else node.after
        if not 1 <= after <= size:
            raise TreeError(f"a node hangs after slot {after} of a parent with {size} slots")
        return after

    def _place(self, base: int) -> None:
        stack, at = [0], base
        while stack:
            index = stack.pop()
            node = self.nodes[index]
            if index:
                self.depth[index] = self.depth[node.parent] + self.seen[index]
            self.order.append(index)
            self.start[index], at = at, at + len(node.slots)
            self.end[index] = at
            below = self.children[index]
            below.sort(key=lambda child: self.seen[child])
            stack.extend(reversed(below))
        for index in reversed(self.order):
            if self.children[index]:
                self.end[index] = self.end[self.children[index][-1]]

    def rectangles(self) -> Iterator[Rectangle]:
        """The descendants that hang behind the same slot of a node, over that node's slots up to there."""
        for index in self.order:
            for seen, hanging in groupby(self.children[index], key=lambda child: self.seen[child]):
                branch = list(hanging)
                first = self.start[branch[0]]
                yield Rectangle(first, self.end[branch[-1]] - first, self.start[index], seen)


def _check(index: int, node: TokenNode) -> None:
    if not node.slots:
        raise TreeError(f"node {index}: it has no slots")
    if (node.parent < 0) != (index == 0) or node.parent >= index:
        raise TreeError(f"node {index}: its parent must be an earlier node; node 0 alone is the root")
    if min(node.slots) < -len(node.vectors):
        raise TreeError(f"node {index}: slot {min(node.slots)}, but it has {len(node.vectors)} vectors")


def pack(trees: Sequence[TokenTree]) -> Packed:
    """Lay trees out for one forward. Raises TreeError for none, or for one that does not hold together."""
    if not trees or not all(tree.nodes for tree in trees):
        raise TreeError("a batch needs at least one tree, and a tree at least one node")
    slots: list[int] = []
    positions: list[npt.NDArray[np.int64]] = []
    vectors: list[Vector] = []
    rows: list[int] = []
    answers: list[tuple[int, ...]] = []
    nodes: list[tuple[int, int]] = []
    rectangles: list[Rectangle] = []
    leaves: list[int] = []
    for tree in trees:
        layout = _Layout(tree, len(slots))
        for index in layout.order:
            node = tree.nodes[index]
            nodes.append((layout.start[index], len(node.slots)))
            positions.append(np.arange(layout.depth[index], layout.depth[index] + len(node.slots)))
            slots.extend(_renumbered(node, len(vectors)))
            vectors.extend(node.vectors)
        answering = [index for index, node in enumerate(tree.nodes) if node.answers]
        rows.extend(layout.start[index] + len(tree.nodes[index].slots) - 1 for index in answering)
        answers.extend(tree.nodes[index].answers for index in answering)
        leaves.append(len(answering))
        rectangles.extend(layout.rectangles())
    return Packed(
        np.asarray(slots, dtype=np.int64), np.concatenate(positions), vectors, np.asarray(rows, dtype=np.int64),
        answers, leaves, Plan.of(nodes, rectangles),
    )  # fmt: skip


def _renumbered(node: TokenNode, offset: int) -> Sequence[int]:
    if not node.vectors:
        return node.slots
    return [slot if slot >= 0 else slot - offset for slot in node.slots]
