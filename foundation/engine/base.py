"""What every engine does, and the form in which trees reach it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from prompts.tree import Piece, PromptTree


@dataclass(frozen=True, slots=True)
class Summed:
    """The vectors of these texts (token ids), added up."""

    texts: tuple[tuple[int, ...], ...]


Vector = tuple[int, ...] | Summed | torch.Tensor
"""One input vector: the token ids of a text that the model compresses, a sum of such, or a tensor of shape [d]."""


@dataclass(frozen=True, slots=True)
class TokenNode:
    """A node as the model reads it.

    `slots` are token ids; a negative slot -1-i stands for `vectors[i]`. `after` counts the parent's slots it sees.
    `answers` are the token ids read at the last slot; `likelihood` asks how much its trunk makes its tokens more
    likely. A node that is asked anything is a leaf. `adapter` names whose update its slots get ("": the base's own).
    """

    slots: tuple[int, ...]
    parent: int = -1
    after: int | None = None
    answers: tuple[int, ...] = ()
    vectors: tuple[Vector, ...] = ()
    likelihood: bool = False
    adapter: str = ""

    @property
    def asked(self) -> bool:
        """Whether anything is read at it."""
        return bool(self.answers) or self.likelihood


@dataclass(frozen=True, slots=True)
class TokenTree:
    """Nodes with parents first, and the number of slots in all.

    `salt` bounds what is shared: keys and values computed for a tree serve only trees of the same salt. Who calls the
    engine sets it (a server by tenant), never who wrote the text.
    """

    nodes: tuple[TokenNode, ...]
    salt: str = ""
    size: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", sum(len(node.slots) for node in self.nodes))

    def adapted(self, adapter: str) -> TokenTree:
        """The tree with all but its root under one adapter: its trunk is the one that every adapter has."""
        if all(node.adapter == adapter for node in self.nodes[1:]):
            return self
        return replace(self, nodes=tuple(replace(n, adapter=adapter) if n.parent >= 0 else n for n in self.nodes))


class LeafScores(NamedTuple):
    """Answer log-probabilities of one tree's leaves, in node order: one array [answers of that leaf] a leaf.

    They are normalised over the leaf's own answers. `likelihood` [leaves] is log p(leaf | trunk, stem) - log p(leaf |
    stem) in nats a token, NaN where it was not asked.
    """

    logp: list[npt.NDArray[np.float32]]
    likelihood: npt.NDArray[np.float64]

    def table(self) -> npt.NDArray[np.float32]:
        """[leaves, answers], when every leaf has the same answers."""
        return np.stack(self.logp)


@dataclass(slots=True)
class CacheStats:
    """Slots of trunks and stems that were found, and that were computed; edges dropped; bytes held now."""

    hit_slots: int = 0
    missed_slots: int = 0
    evictions: int = 0
    bytes: int = 0


class Engine(Protocol):
    """Scores trees and embeds texts. Calls are thread-safe; `read` is cheap and may run beside `score`."""

    name: str
    model_version: str

    @property
    def cache_stats(self) -> CacheStats:
        """What its cache of trunks and stems did so far."""
        ...

    def count(self, piece: Piece) -> int:
        """How many slots a piece takes."""
        ...

    def read(self, tree: PromptTree) -> TokenTree:
        """Text to slots."""
        ...

    def score(self, trees: Sequence[TokenTree]) -> list[LeafScores]:
        """All trees in one forward."""
        ...

    def embed(self, texts: Sequence[str], salt: str = "") -> npt.NDArray[np.float32]:
        """[texts, d], each row of length one. What is kept of them serves only the same salt (see `TokenTree`)."""
        ...
