"""Trees and scores as messages between two of our own processes."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from itertools import accumulate, chain, pairwise
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from foundation.engine.base import LeafScores, Summed, TokenNode, TokenTree, Vector

Text = tuple[int, ...]
"""The token ids of a text."""
Fields = tuple[Text, int, int | None, Text, tuple[Vector, ...], bool, str]
"""Those of a node, in their order."""
Trees = list[tuple[str, list[Fields]]]
"""Of each tree its salt and its nodes."""


class Scores(NamedTuple):
    """The scores of some trees: of each tree the sizes of its leaves' answers, and all figures one after the other."""

    sizes: list[list[int]]
    logp: npt.NDArray[np.float32]
    likelihood: npt.NDArray[np.float64]


def send(connection: Connection, message: object) -> None:
    """Sends anything. Raises OSError where nobody is there to hear it."""
    connection.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))


def receive(connection: Connection) -> Any:
    """What was sent: only ever by our own process at the other end. Raises EOFError where that has ended."""
    return pickle.loads(connection.recv_bytes())  # noqa: S301 - nobody else holds the other end


def from_trees(trees: Sequence[TokenTree]) -> Trees:
    """Trees as a message. A text that several of them hold is sent once."""
    return [
        (tree.salt, [(n.slots, n.parent, n.after, n.answers, n.vectors, n.likelihood, n.adapter) for n in tree.nodes])
        for tree in trees
    ]


def to_trees(message: Trees, same: Callable[[Text], Text] = lambda text: text) -> list[TokenTree]:
    """The trees of a message; of equal texts, `same` gives one that may be kept."""

    def vector(told: Vector) -> Vector:
        if isinstance(told, tuple):
            return same(told)
        return Summed(tuple([same(text) for text in told.texts])) if isinstance(told, Summed) else told

    def node(fields: Fields) -> TokenNode:
        slots, parent, after, answers, vectors, likelihood, adapter = fields
        return TokenNode(slots, parent, after, answers, tuple([vector(each) for each in vectors]), likelihood, adapter)

    return [TokenTree(tuple(map(node, nodes)), salt) for salt, nodes in message]


def from_scores(scores: Sequence[LeafScores]) -> Scores:
    """Scores as a message: few large arrays, since many small ones take longer than a forward."""
    return Scores(
        [[len(logp) for logp in each.logp] for each in scores],
        np.concatenate([np.zeros(0, np.float32), *chain.from_iterable(each.logp for each in scores)]),
        np.concatenate([np.zeros(0), *(each.likelihood for each in scores)]),
    )


def to_scores(message: Scores) -> list[LeafScores]:
    """The scores of a message."""
    cuts = pairwise(accumulate(chain.from_iterable(message.sizes), initial=0))
    leaves = pairwise(accumulate(map(len, message.sizes), initial=0))
    return [
        LeafScores([message.logp[slice(*next(cuts))] for _ in sizes], message.likelihood[slice(*next(leaves))])
        for sizes in message.sizes
    ]
