"""The embedded engine: PyTorch, fp32, all trees of a call in one forward."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from foundation import model as models
from foundation.compressor import MAX_TOKENS
from foundation.engine.base import LeafScores, TokenNode, TokenTree, Vector
from foundation.engine.pack import pack
from foundation.tokenizer import TextEncoder
from prompts.tree import Piece, PromptTree

VECTOR_CACHE = 65_536
"""Texts whose vectors are kept: 64 MB at most for vectors of 256."""


class TorchEngine:
    """Implements `Engine`. Forwards run one at a time; a vector made from a text is kept for the next request."""

    name = "torch"

    def __init__(self, ranker: models.Ranker, encoder: TextEncoder, model_version: str = "unsaved") -> None:
        self.ranker, self.encoder, self.model_version = ranker.eval(), encoder, model_version
        self.compresses = ranker.compressor is not None
        self._vectors: OrderedDict[tuple[int, ...], torch.Tensor] = OrderedDict()
        self._forward = threading.Lock()

    @classmethod
    def load(cls, folder: Path) -> TorchEngine:
        """From a Hugging Face folder. Raises CheckpointError."""
        ranker, encoder = models.load(folder)
        return cls(ranker, encoder, f"{folder.name}@{models.version(folder)}")

    def count(self, piece: Piece) -> int:
        """How many slots a piece takes."""
        return 1 if piece.compress and self.compresses else len(self.encoder.encode(piece.text))

    def read(self, tree: PromptTree) -> TokenTree:
        """Text to slots; the root begins with the model's begin token. Raises ConfigError for ambiguous answers."""
        return read(tree, self.encoder, compresses=self.compresses)

    def score(self, trees: Sequence[TokenTree]) -> list[LeafScores]:
        """Answer log-probabilities of every leaf, normalised over the leaf's own answers."""
        if not trees:
            return []
        packed = pack(trees)
        if not packed.answers:
            return [LeafScores([]) for _ in trees]
        with self._forward, torch.inference_mode():
            logp_LA = self.ranker(packed, self._compress).log_softmax(dim=-1).numpy()
        scores, at = [], 0
        for leaves in packed.leaves:
            rows = range(at, at + leaves)
            scores.append(LeafScores([logp_LA[row, : len(packed.answers[row])] for row in rows]))
            at += leaves
        return scores

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """[texts, D], rows of length one: the compressor's vectors, or the mean of the last hidden states."""
        if not texts:
            return np.zeros((0, self.ranker.hidden_size), np.float32)
        with self._forward, torch.inference_mode():
            rows = [self._embed(texts[at : at + 256]) for at in range(0, len(texts), 256)]
        return np.asarray(torch.nn.functional.normalize(torch.cat(rows), dim=-1).numpy(), dtype=np.float32)

    def _embed(self, texts: Sequence[str]) -> torch.Tensor:
        ids = [self.encoder.encode(text) or (0,) for text in texts]
        if self.compresses:
            return self._compress(ids)
        packed = pack([TokenTree((TokenNode(text, answers=(0,)),)) for text in ids])
        return self.ranker.hidden(packed)

    def _compress(self, texts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        texts = [text[:MAX_TOKENS] for text in texts]
        unknown = [text for text in texts if text not in self._vectors]
        if unknown:
            # one text a call would be exact too, but slow; rows of a matrix product do not mix
            for text, vector in zip(unknown, self.ranker.compress(unknown), strict=True):
                self._vectors[text] = vector.clone()  # a view would keep its whole batch alive
        found = []
        for text in texts:
            self._vectors.move_to_end(text)
            found.append(self._vectors[text])
        while len(self._vectors) > VECTOR_CACHE:
            self._vectors.popitem(last=False)
        return torch.stack(found)


def read(tree: PromptTree, encoder: TextEncoder, *, compresses: bool) -> TokenTree:
    """A tree of text as the model reads it: every piece encoded alone."""
    nodes: list[TokenNode] = []
    ends: list[list[int]] = []
    for node in tree.nodes:
        slots: list[int] = list(encoder.begin) if node.parent < 0 else []
        vectors: list[Vector] = []
        end = []
        for piece in node.pieces:
            ids = encoder.encode(piece.text)
            if piece.compress and compresses:
                vectors.append(ids)
                slots.append(-len(vectors))
            else:
                slots.extend(ids)
            end.append(len(slots))
        if not slots:
            slots.extend(encoder.encode(" ") or (0,))
            end[-1] = len(slots)
        ends.append(end)
        after = None if node.parent < 0 or node.after is None else max(1, ends[node.parent][node.after - 1])
        nodes.append(TokenNode(tuple(slots), node.parent, after, encoder.words(node.answers), tuple(vectors)))
    return TokenTree(tuple(nodes))
