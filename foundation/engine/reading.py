"""Trees of text as an engine reads them: every piece encoded alone."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from foundation.engine.base import Summed, TokenNode, TokenTree, Vector
from foundation.tokenizer import TextEncoder
from prompts.tree import Piece, PromptTree

KEPT, KEPT_CAP = 512, 1_024
"""So many trunks of so many pieces are kept as they were read."""


class _Read(NamedTuple):
    """The pieces of a node as slots, the vectors, and where each piece ends."""

    slots: tuple[int, ...]
    vectors: tuple[Vector, ...]
    ends: tuple[int, ...]


class Reading:
    """What an engine can tell with its tokenizer alone; `compresses`: the model makes vectors of texts."""

    def __init__(self, encoder: TextEncoder, *, compresses: bool) -> None:
        self.encoder, self.compresses = encoder, compresses
        self._recalled = lru_cache(maxsize=KEPT)(self._root)

    def count(self, piece: Piece) -> int:
        """How many slots a piece takes."""
        return 1 if piece.compress and self.compresses else len(self.encoder.encode(piece.text))

    def read(self, tree: PromptTree) -> TokenTree:
        """Text to slots; the root begins with the model's begin token. Raises ConfigError for ambiguous answers."""
        nodes, ends = list[TokenNode](), list[tuple[int, ...]]()
        for node in tree.nodes:
            if node.parent >= 0 or node.likelihood:  # a vector has no tokens to be likely
                begin = self.encoder.begin if node.parent < 0 else ()
                found = self._pieces(node.pieces, begin, compresses=self.compresses and not node.likelihood)
            else:
                found = (self._recalled if len(node.pieces) <= KEPT_CAP else self._root)(node.pieces)
            after = None if node.parent < 0 or node.after is None else max(1, ends[node.parent][node.after - 1])
            ends.append(found.ends)
            words = self.encoder.words(node.answers)
            nodes.append(TokenNode(found.slots, node.parent, after, words, found.vectors, node.likelihood))
        return TokenTree(tuple(nodes))

    def forget_texts(self) -> None:
        """Forgets what was read."""
        self.encoder.encode.cache_clear()
        self._recalled.cache_clear()

    def _root(self, pieces: tuple[Piece, ...]) -> _Read:
        return self._pieces(pieces, self.encoder.begin, compresses=self.compresses)

    def _pieces(self, pieces: tuple[Piece, ...], begin: tuple[int, ...], *, compresses: bool) -> _Read:
        slots, vectors, ends, encode = list(begin), list[Vector](), list[int](), self.encoder.encode
        for text, compress, parts in pieces:
            if compress and compresses:
                vectors.append(Summed(tuple(map(encode, parts))) if parts else encode(text))
                slots.append(-len(vectors))
            else:
                slots.extend(encode(text))
            ends.append(len(slots))
        if not slots:
            slots.extend(encode(" ") or (0,))
            ends[-1] = len(slots)
        return _Read(tuple(slots), tuple(vectors), tuple(ends))
