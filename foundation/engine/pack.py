"""Work of any shape, laid end to end: one row a slot, no padding.

Nodes are laid out depth first, children in the order in which they hang, so the descendants that see the same run of an
ancestor follow each other and attend to it in one rectangle. Part of a node may have been computed before: its keys and
values are remembered, and the rest of it is laid out behind them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from foundation.attention.geometry import Geometry, Rectangle
from foundation.attention.merge import Plan
from foundation.engine.base import TokenTree, Vector
from foundation.engine.forest import Forest, Node

Integers = npt.NDArray[np.int64]


class Work(NamedTuple):
    """Slots `start … stop` of a node, to be computed."""

    node: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


class Run(NamedTuple):
    """Rows of the remembered keys and values."""

    start: int
    size: int


@dataclass(slots=True)
class Memory:
    """Where the computed slots of each node are: by node, runs that hold its slots in order. Positions by row."""

    runs: dict[int, list[Run]] = field(default_factory=dict)
    positions: Integers = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def known(self, node: int) -> int:
        """How many of a node's first slots are remembered."""
        return sum(run.size for run in self.runs.get(node, ()))

    def upto(self, node: int, slots: int) -> Iterator[Run]:
        """The rows of a node's first `slots` slots, as far as they are remembered."""
        for run in self.runs.get(node, ()):
            if slots <= 0:
                return
            yield Run(run.start, min(run.size, slots))
            slots -= run.size

    def add(self, work: Work, start: int, depth: int) -> None:
        """Note that the slots of `work` are in the rows from `start` on."""
        runs = self.runs.setdefault(work.node, [])
        if runs and runs[-1].start + runs[-1].size == start:
            runs[-1] = Run(runs[-1].start, runs[-1].size + work.size)
        else:
            runs.append(Run(start, work.size))
        self.positions = np.concatenate([self.positions, np.arange(depth + work.start, depth + work.stop)])


@dataclass(frozen=True, slots=True)
class Layout:
    """Rows of one forward. `slots` [N] are token ids, or -1-i for `vectors[i]`; `positions` [N] restart at each child.

    `first` is the row of each work's first slot; `adapted` are the rows of each adapter, rising. `salt` is the one that
    all works have; None where they have several.
    """

    slots: Integers
    positions: Integers
    vectors: list[Vector]
    first: list[int]
    geometry: Geometry
    adapted: dict[str, Integers]
    salt: str | None


@dataclass(frozen=True, slots=True)
class Packed:
    """A batch of whole trees. N slots, L leaves in the order of their trees and nodes.

    `rows` [L] are the slots that answer; `answers` holds each leaf's answer ids; `leaves` counts those of each tree;
    `adapted` are the slots of each adapter, rising.
    """

    slots: Integers
    positions: Integers
    vectors: list[Vector]
    rows: Integers
    answers: list[tuple[int, ...]]
    leaves: list[int]
    plan: Plan
    adapted: dict[str, Integers]


def pack(trees: Sequence[TokenTree]) -> Packed:
    """Lay trees out for one forward, each whole and for itself. Raises TreeError."""
    forest = Forest.of(trees, merge=False)
    works = [Work(index, 0, forest.nodes[index].size) for index in forest.depth_first()]
    laid = lay_out(forest, works, Memory())
    end = {work.node: first + work.size - 1 for work, first in zip(works, laid.first, strict=True)}
    rows, answers, leaves = [], [], []
    for tree, place in zip(trees, forest.places, strict=True):
        answering = [index for index, node in enumerate(tree.nodes) if node.answers]
        rows += [end[place[index]] for index in answering]
        answers += [tree.nodes[index].answers for index in answering]
        leaves.append(len(answering))
    return Packed(
        laid.slots, laid.positions, laid.vectors, np.asarray(rows, dtype=np.int64), answers, leaves,
        Plan(laid.geometry), laid.adapted,
    )  # fmt: skip


def lay_out(forest: Forest, works: Sequence[Work], memory: Memory) -> Layout:
    """One forward over `works`, which stand in depth-first order; what they see besides is remembered."""
    slots: list[int] = []
    vectors: list[Vector] = []
    positions: list[Integers] = []
    first: list[int] = []
    for work in works:
        node = forest.nodes[work.node]
        first.append(len(slots))
        slots.extend(_taken(node, work, vectors))
        positions.append(np.arange(node.depth + work.start, node.depth + work.stop))
    own = [Rectangle(row, work.size, row, work.size) for work, row in zip(works, first, strict=True)]
    above = [each for each in _above(forest, works, first, memory) if each.k_size]
    placed = np.concatenate(positions)
    geometry = Geometry(own, above, placed, placed, memory.positions)
    salts = {forest.nodes[work.node].salt for work in works}
    salt = salts.pop() if len(salts) == 1 else None
    adapted = _adapted(forest, works, first)
    return Layout(np.asarray(slots, dtype=np.int64), placed, vectors, first, geometry, adapted, salt)


def _adapted(forest: Forest, works: Sequence[Work], first: Sequence[int]) -> dict[str, Integers]:
    """By adapter, the rows of its works."""
    found: dict[str, list[Integers]] = {}
    for work, row in zip(works, first, strict=True):
        if adapter := forest.nodes[work.node].adapter:
            found.setdefault(adapter, []).append(np.arange(row, row + work.size))
    return {adapter: np.concatenate(rows) for adapter, rows in found.items()}


def _taken(node: Node, work: Work, vectors: list[Vector]) -> Sequence[int]:
    """The slots of a work, its vectors numbered behind those that there are."""
    taken = node.slots[work.start : work.stop]
    if not node.vectors:
        return taken
    renumbered = []
    for slot in taken:
        if slot < 0:
            vectors.append(node.vectors[-1 - slot])
            slot = -len(vectors)
        renumbered.append(slot)
    return renumbered


def _above(forest: Forest, works: Sequence[Work], first: Sequence[int], memory: Memory) -> Iterator[Rectangle]:
    """The works over what came before in their nodes; and what hangs behind one slot over the node up to there."""
    own = dict(zip((work.node for work in works), zip(works, first, strict=True), strict=True))
    for work, row in zip(works, first, strict=True):
        for run in memory.upto(work.node, work.start):
            yield Rectangle(row, work.size, *run, remembered=True)
    for parent, branches in _branches(forest, works, first).items():
        for seen, hanging in groupby(branches.items(), key=lambda each: forest.nodes[each[0]].seen):
            rows = [row for _, span in hanging for row in span]
            queries, size = rows[0], rows[-1] - rows[0]
            yield from (Rectangle(queries, size, *run, remembered=True) for run in memory.upto(parent, seen))
            if parent in own:
                work, row = own[parent]
                yield Rectangle(queries, size, row, max(0, min(seen, work.stop) - work.start))


def _branches(forest: Forest, works: Sequence[Work], first: Sequence[int]) -> dict[int, dict[int, list[int]]]:
    """By parent and child, the rows [from, to] that the child's branch takes up in this forward."""
    found: dict[int, dict[int, list[int]]] = {}
    for work, row in zip(works, first, strict=True):
        for index in forest.ancestors(work.node):
            parent = forest.nodes[index].parent
            if parent >= 0:
                found.setdefault(parent, {}).setdefault(index, [row, row])[1] = row + work.size
    return found
