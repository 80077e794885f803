"""A ranking is a tree of text: trunk (the member), stem (the surface), leaves (the candidates).

A node holds pieces; every piece is encoded alone, so no token ever spans two of them. A node sees its ancestors
up to where it hangs, and itself; never a sibling.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from prompts.errors import TreeError


class Piece(NamedTuple):
    """Text that is encoded alone; `compress` asks for one vector in place of its tokens, where the model can.

    The vector of a text that says several things may be the sum of theirs, its `parts`: then what each part says stays
    apart from the others.
    """

    text: str
    compress: bool = False
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptNode:
    """One node. `parent` is an earlier index of the tree (-1: the root); `after` counts the parent's pieces it sees.

    `answers` are the words whose log-probability is read at the node's last token; `likelihood` asks how much its trunk
    makes its own text more likely. A node that is asked anything is a leaf.
    """

    pieces: tuple[Piece, ...]
    parent: int = -1
    after: int | None = None
    answers: tuple[str, ...] = ()
    likelihood: bool = False


@dataclass(frozen=True, slots=True)
class PromptTree:
    """Nodes in an order where parents come first; the first node is the root."""

    nodes: tuple[PromptNode, ...]

    def __post_init__(self) -> None:
        if not self.nodes:
            raise TreeError("a tree needs at least one node")
        for index, node in enumerate(self.nodes):
            self._check(index, node)

    def _check(self, index: int, node: PromptNode) -> None:
        if (node.parent < 0) != (index == 0) or node.parent >= index:
            raise TreeError(f"node {index}: its parent must be an earlier node; node 0 alone is the root")
        if not node.pieces:
            raise TreeError(f"node {index}: it has no pieces")
        if node.parent >= 0 and node.after is not None:
            size = len(self.nodes[node.parent].pieces)
            if not 1 <= node.after <= size:
                raise TreeError(f"node {index}: after={node.after}, but its parent has {size} pieces")

    @property
    def leaves(self) -> tuple[int, ...]:
        """Indices of the nodes that are asked anything, in order."""
        return tuple(index for index, node in enumerate(self.nodes) if node.answers or node.likelihood)

    def ancestors(self, index: int) -> Iterator[int]:
        """The nodes above `index`, nearest first."""
        while (index := self.nodes[index].parent) >= 0:
            yield index
