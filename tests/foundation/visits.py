"""Calls as an engine meets them: members who come again, with more behind them, for other surfaces, in any company."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.torch import SERVING, EngineSettings
from tests.foundation.reference import random_node, random_tree

SALTS = ("", "a", "b")


class Visits:
    """Draws calls of one to six trees, of which more than half say again, in part, what earlier trees said."""

    def __init__(self, rng: random.Random, vocabulary: int, hidden: int = 0) -> None:
        self.rng, self.vocabulary, self.hidden = rng, vocabulary, hidden
        self.trees = 0
        self._seen: list[TokenTree] = []

    def call(self) -> list[TokenTree]:
        """The next call."""
        trees = [self._tree() for _ in range(self.rng.randint(1, 6))]
        self.trees += len(trees)
        return trees

    def _tree(self) -> TokenTree:
        if not self._seen or self.rng.random() < 0.4:
            tree = random_tree(self.rng, self.vocabulary, self.hidden, salt=self.rng.choice(SALTS))
        else:
            ways = (
                self._moved, self._grown, self._cut, self._forked, self._other_stems, self._told_as_one,
                self._told_in_pieces, self._echo,
            )  # fmt: skip
            tree = self.rng.choice(ways)(self.rng.choice(self._seen[-12:]))
        self._seen.append(tree)
        return tree

    def _moved(self, tree: TokenTree) -> TokenTree:
        """Its nodes in another order, perhaps under another salt."""
        return replace(leaves_moved(tree, self.rng)[0], salt=self.rng.choice(SALTS))

    def _grown(self, tree: TokenTree) -> TokenTree:
        """Its trunk has more at its end, behind which some children hang now."""
        more = joined(tree.nodes[0], random_node(self.rng, self.vocabulary, self.hidden))
        return self._under(more, tree.nodes)

    def _cut(self, tree: TokenTree) -> TokenTree:
        """Its trunk is the beginning of what it was."""
        root = tree.nodes[0]
        return self._under(replace(root, slots=root.slots[: self.rng.randint(1, len(root.slots))]), tree.nodes)

    def _forked(self, tree: TokenTree) -> TokenTree:
        """One slot of one of its nodes says something else."""
        index = self.rng.randrange(len(tree.nodes))
        slots = list(tree.nodes[index].slots)
        slots[self.rng.randrange(len(slots))] = self.rng.randrange(3, self.vocabulary)
        nodes = [*tree.nodes]
        nodes[index] = replace(nodes[index], slots=tuple(slots))
        return replace(tree, nodes=tuple(nodes))

    def _other_stems(self, tree: TokenTree) -> TokenTree:
        """Its trunk with the stems and leaves of a tree that was not met yet."""
        return self._under(tree.nodes[0], random_tree(self.rng, self.vocabulary, self.hidden).nodes)

    def _told_as_one(self, tree: TokenTree) -> TokenTree:
        """Its trunk and a child of it as one node, with new children: one run of slots, cut into nodes elsewhere."""
        child = self.rng.choice([node for node in tree.nodes if node.parent == 0])
        root = tree.nodes[0]
        trunk = joined(replace(root, slots=root.slots[: child.after]), child)
        return self._under(trunk, random_tree(self.rng, self.vocabulary, self.hidden).nodes)

    def _told_in_pieces(self, tree: TokenTree) -> TokenTree:
        """Its trunk as two nodes, of which the second hangs from the first."""
        root, place = tree.nodes[0], self.rng.randrange(len(tree.nodes[0].slots))
        if place == 0:
            return tree
        pieces = [
            replace(root, slots=root.slots[:place], answers=()),
            replace(root, slots=root.slots[place:], parent=0),
        ]
        return replace(tree, nodes=(*pieces, *(_behind(node, place) for node in tree.nodes[1:])))

    def _echo(self, tree: TokenTree) -> TokenTree:
        """With two leaves more that say the same: how one of its inner nodes begins."""
        like = self.rng.choice([node for node in tree.nodes if node.parent >= 0])
        size = self.rng.randint(1, len(like.slots))
        leaf = replace(like, slots=like.slots[:size], answers=(3, 4, 5))
        return replace(tree, nodes=(*tree.nodes, leaf, leaf))

    def _under(self, root: TokenNode, nodes: Sequence[TokenNode]) -> TokenTree:
        """The nodes below another root; where they hang from it is drawn anew if it has to be."""
        size, moved = len(root.slots), []
        for node in nodes[1:]:
            if node.parent == 0 and (node.after or 0) > size:
                node = replace(node, after=self.rng.choice([None, self.rng.randint(1, size)]))
            moved.append(node)
        return TokenTree((root, *moved), self.rng.choice(SALTS))


def _behind(node: TokenNode, place: int) -> TokenNode:
    """A node of a tree whose trunk is cut in two at a slot."""
    if node.parent != 0 or (node.after is not None and node.after <= place):
        return replace(node, parent=node.parent and node.parent + 1)
    return replace(node, parent=1, after=node.after and node.after - place)


def joined(one: TokenNode, other: TokenNode) -> TokenNode:
    """One node that says what both say."""
    behind = tuple(slot if slot >= 0 else slot - len(one.vectors) for slot in other.slots)
    return replace(one, slots=one.slots + behind, vectors=one.vectors + other.vectors)


def leaves_moved(tree: TokenTree, rng: random.Random) -> tuple[TokenTree, list[int]]:
    """The tree with its nodes in another order that still has parents first; where each node went."""
    waiting, placed, places = set(range(1, len(tree.nodes))), [0], [0] * len(tree.nodes)
    while waiting:
        ready = sorted(index for index in waiting if tree.nodes[index].parent in placed)
        index = rng.choice(ready)
        waiting.remove(index)
        places[index] = len(placed)
        placed.append(index)
    nodes = [
        replace(node, parent=places[node.parent] if node.parent >= 0 else -1)
        for node in (tree.nodes[index] for index in placed)
    ]
    return replace(tree, nodes=tuple(nodes)), places


def drawn_settings(rng: random.Random, slot_bytes: int) -> list[EngineSettings]:
    """Engines for the same calls: as served, small chunks, a cache that is always too small, none at all."""
    return [
        SERVING,
        EngineSettings(chunk_slots=rng.randint(5, 60)),
        EngineSettings(rng.randint(10, 120) * slot_bytes, rng.randint(20, 200)),
        EngineSettings(0, rng.randint(30, 300)),
    ]
