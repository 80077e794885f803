"""From trees to what is asked of their leaves: which slots are read, and what is made of their hidden states."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from foundation.engine.base import LeafScores, TokenNode, TokenTree
from foundation.engine.forest import Elements, Forest
from foundation.engine.likelihood import Follows, mean_logp, tokens_of, without_trunk
from foundation.engine.run import Runner, States, Whose
from foundation.model import Ranker

PRIORS = 262_144
"""Leaves whose likelihood without a trunk is kept."""


class Leaf(NamedTuple):
    """A leaf of a tree, and the node of the forest that it became."""

    tree: TokenTree
    place: int
    node: int

    @property
    def said(self) -> TokenNode:
        """The leaf as it was given."""
        return self.tree.nodes[self.place]


Prior = tuple[str, Elements]
"""A leaf behind its stem, without its trunk: the key of its likelihood there."""


class Readout:
    """Answers and likelihoods of one model; `begin` stands where a trunk would. Not thread-safe."""

    def __init__(self, ranker: Ranker, runner: Runner, begin: tuple[int, ...]) -> None:
        self._ranker, self._runner, self._begin = ranker, runner, begin
        self._priors: OrderedDict[Prior, float] = OrderedDict()

    def score(self, trees: Sequence[TokenTree]) -> list[LeafScores]:
        """All trees together."""
        alone = {(n, i): without_trunk(t, i, self._begin) for n, t in enumerate(trees) for i in _likely(t)}
        keys = {place: _key(tree) for place, tree in alone.items()}
        unknown = {key: alone[place] for place, key in keys.items() if key not in self._priors}
        forest = Forest.of([*trees, *unknown.values()])
        leaves = [
            [Leaf(tree, index, place[index]) for index, node in enumerate(tree.nodes) if node.asked]
            for tree, place in zip(trees, forest.places, strict=False)
        ]
        priors = [tokens_of(forest, place[-1]) for place in forest.places[len(trees) :]]
        flat = [leaf for each in leaves for leaf in each]
        likely = [tokens_of(forest, leaf.node) for leaf in flat if leaf.said.likelihood]
        states = self._runner.hidden(forest, _wanted(flat, [*likely, *priors]))
        logp = self._answers(flat, states)
        self._learn(unknown, mean_logp(priors, states, self._ranker.logits))
        gained = mean_logp(likely, states, self._ranker.logits) - self._without(keys.values())
        return list(_by_tree(leaves, logp, gained))

    def forget(self) -> None:
        """Forgets likelihoods without a trunk."""
        self._priors.clear()

    def _answers(self, leaves: Sequence[Leaf], states: States) -> list[npt.NDArray[np.float32]]:
        """Of each leaf [its answers]."""
        answering = [leaf for leaf in leaves if leaf.said.answers]
        if not answering:
            return [np.zeros(0, np.float32) for _ in leaves]
        hidden_LD = states.of([_end(leaf) for leaf in answering])
        logits_LA = self._ranker.answer_logits(hidden_LD, [leaf.said.answers for leaf in answering])
        rows = iter(logits_LA.log_softmax(dim=-1).cpu().numpy())
        none = np.zeros(0, logits_LA.cpu().numpy().dtype)
        return [next(rows)[: len(leaf.said.answers)] if leaf.said.answers else none for leaf in leaves]

    def _learn(self, unknown: Iterable[Prior], logp: npt.NDArray[np.float64]) -> None:
        self._priors.update(zip(unknown, logp.tolist(), strict=True))

    def _without(self, keys: Iterable[Prior]) -> npt.NDArray[np.float64]:
        """[likely leaves]: without their trunks; the oldest are forgotten after it."""
        keys = list(keys)
        for key in keys:
            self._priors.move_to_end(key)
        found = np.array([self._priors[key] for key in keys])
        while len(self._priors) > PRIORS:
            self._priors.popitem(last=False)
        return found


def _likely(tree: TokenTree) -> list[int]:
    return [index for index, node in enumerate(tree.nodes) if node.likelihood]


def _key(alone: TokenTree) -> Prior:
    forest = Forest.of([alone])
    return alone.salt, forest.path(len(forest.nodes) - 1)


def _end(leaf: Leaf) -> Whose:
    return Whose(leaf.node, len(leaf.said.slots) - 1)


def _wanted(leaves: Sequence[Leaf], tokens: Sequence[Sequence[Follows]]) -> dict[int, list[int]]:
    """By node, the slots that are read."""
    found: dict[int, set[int]] = {}
    ends = [_end(leaf) for leaf in leaves if leaf.said.answers]
    for node, slot in [*ends, *(one.whose for each in tokens for one in each)]:
        found.setdefault(node, set()).add(slot)
    return {node: sorted(slots) for node, slots in found.items()}


def _by_tree(
    leaves: Sequence[Sequence[Leaf]], logp: Sequence[npt.NDArray[np.float32]], gained: npt.NDArray[np.float64]
) -> Iterable[LeafScores]:
    rows, gains = iter(logp), iter(gained.tolist())
    for each in leaves:
        likelihood = [next(gains) if leaf.said.likelihood else float("nan") for leaf in each]
        yield LeafScores([next(rows) for _ in each], np.array(likelihood, dtype=np.float64))
