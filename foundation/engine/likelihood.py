"""How much more likely a leaf is behind its trunk than without it, per token: a head for models never trained to rank.

log p(leaf | trunk, stem) - log p(leaf | stem), divided by the leaf's tokens: pointwise mutual information (Church and
Hanks 1990), so a leaf is not preferred for being common or short. The second term is the same for every member.
Shapes: R rows, V vocabulary, P pairs of a row and the token that follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.forest import Forest
from foundation.engine.run import States, Whose
from prompts.errors import TreeError

BLOCK = 256
"""Rows of the whole LM head at a time: 50 MB for a vocabulary of 49,152."""


class Follows(NamedTuple):
    """A token, and the slot that predicts it."""

    whose: Whose
    token: int


def without_trunk(tree: TokenTree, leaf: int, begin: tuple[int, ...]) -> TokenTree:
    """A leaf behind `begin` and its stem. Raises TreeError for a leaf that has no trunk."""
    if tree.nodes[leaf].parent < 0:
        raise TreeError("a likelihood is asked of a leaf that hangs from a trunk, not of a tree's root")
    chain = [leaf]
    while tree.nodes[chain[-1]].parent > 0:
        chain.append(tree.nodes[chain[-1]].parent)
    nodes = [TokenNode(begin)]
    for index in reversed(chain):
        after = None if len(nodes) == 1 else tree.nodes[index].after
        nodes.append(replace(tree.nodes[index], parent=len(nodes) - 1, after=after, answers=()))
    return TokenTree(tuple(nodes), tree.salt)


def tokens_of(forest: Forest, node: int) -> list[Follows]:
    """The tokens of a leaf that something before them predicts; vectors have no likelihood."""
    leaf = forest.nodes[node]
    before = [Whose(leaf.parent, leaf.seen - 1)] if leaf.parent >= 0 else []
    before += [Whose(node, slot) for slot in range(leaf.size - 1)]
    return [
        Follows(whose, token) for whose, token in zip(before, leaf.slots[-len(before) :], strict=True) if token >= 0
    ]


def mean_logp(
    leaves: Sequence[Sequence[Follows]], states: States, logits: Callable[[torch.Tensor], torch.Tensor]
) -> npt.NDArray[np.float64]:
    """[leaves]: the mean log-probability of each leaf's tokens; 0 for one without. `logits` is [R, D] to [R, V]."""
    rows = list(dict.fromkeys(one.whose for leaf in leaves for one in leaf))
    place = {whose: row for row, whose in enumerate(rows)}
    pairs = sorted((place[one.whose], one.token, number) for number, leaf in enumerate(leaves) for one in leaf)
    total, count = np.zeros(len(leaves)), np.array([max(1, len(leaf)) for leaf in leaves])
    if pairs:
        row_P, token_P, leaf_P = (np.array(column) for column in zip(*pairs, strict=True))
        np.add.at(total, leaf_P, np.concatenate(list(_logp(states.of(rows), row_P, token_P, logits))))
    means: npt.NDArray[np.float64] = total / count
    return means


def _logp(
    hidden_RD: torch.Tensor, row_P: npt.NDArray[np.int64], token_P: npt.NDArray[np.int64],
    logits: Callable[[torch.Tensor], torch.Tensor],
) -> Iterator[npt.NDArray[np.float64]]:  # fmt: skip
    """Of each pair, whose rows rise."""
    for at in range(0, len(hidden_RD), BLOCK):
        first, end = np.searchsorted(row_P, (at, at + BLOCK))
        logp_RV = logits(hidden_RD[at : at + BLOCK]).log_softmax(dim=-1)
        rows, tokens = (torch.from_numpy(each[first:end]).to(logp_RV.device) for each in (row_P - at, token_P))
        yield logp_RV[rows, tokens].double().cpu().numpy()
