"""The embedded engine: PyTorch, all trees of a call packed together, trunks and stems remembered."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from foundation import adapters
from foundation import model as models
from foundation.attention.gpu import kernel_for
from foundation.compressor import MAX_TOKENS
from foundation.engine.base import CacheStats, LeafScores, TokenNode, TokenTree
from foundation.engine.cache import PrefixCache
from foundation.engine.forest import Forest
from foundation.engine.heap import keep_freed_memory
from foundation.engine.reading import Reading
from foundation.engine.readout import Readout
from foundation.engine.run import Runner, Whose
from foundation.precision import Precision, reader_at
from foundation.product import Plain, packed_where_faster
from foundation.tokenizer import TextEncoder
from foundation.tryout import asked_by, knows
from prompts.errors import ConfigError

VECTOR_CACHE = 65_536
"""Texts whose vectors are kept: 64 MB at most for vectors of 256."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """`cache_bytes` bounds what is remembered of trunks and stems (0: nothing), `chunk_slots` a forward's slots.

    `packed`: large weights are held once more, in the layout that is multiplied fastest. Not for a model in training:
    its changes would not be seen. `precision`: of the decoder's products; bf16 holds every weight of them once more.
    """

    cache_bytes: int = 512 << 20
    chunk_slots: int = 4096
    packed: bool = False
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if self.chunk_slots < 1:
            raise ConfigError(f"chunk_slots is {self.chunk_slots}; a chunk holds at least one slot")


SERVING = EngineSettings(packed=True)
"""For a model that is loaded to serve."""


class TorchEngine(Reading):
    """Implements `Engine`. Forwards run one at a time; a vector made from a text is kept for requests of its salt."""

    name = "torch"

    def __init__(
        self,
        ranker: models.Ranker,
        encoder: TextEncoder,
        model_version: str = "unsaved",
        settings: EngineSettings | None = None,
        device: torch.device | None = None,
    ) -> None:
        """`device`: where the model goes; None: it stays. Raises ConfigError for a precision that is not to be had."""
        super().__init__(encoder, compresses=ranker.compressor is not None)
        self.ranker, self.model_version = ranker.eval(), model_version
        self.settings = settings or EngineSettings()
        self._vectors: OrderedDict[tuple[str, tuple[int, ...]], torch.Tensor] = OrderedDict()
        self._forward = threading.Lock()
        self._cache = PrefixCache(self.settings.cache_bytes)
        self._adapters = ranker.attached
        exact = packed_where_faster if self.settings.packed else Plain
        asked = asked_by(ranker)
        known = knows(ranker, asked, exact)  # in fp32: bf16 is too coarse to tell a missing part of an architecture by
        if device is not None:
            halved = self.settings.precision == "bf16" and device.type == "cuda"  # flash-attn wants all of it in bf16
            ranker.to(device, torch.bfloat16 if halved else torch.float32)
        kernel = kernel_for(ranker.device, ranker.lm.dtype, [each.window for each in asked])
        self._runner = Runner(
            reader=reader_at(self.settings.precision, ranker, asked, known=known, exact=exact),
            embed=lambda laid: ranker.embed_slots(laid.slots, laid.vectors, partial(self._compress, salt=laid.salt)),
            kernel=kernel,
            device=ranker.device,
            cache=self._cache,
            chunk_slots=self.settings.chunk_slots,
            adapters=self._adapters,
        )
        self._readout = Readout(ranker, self._runner, encoder.begin or encoder.encode("\n")[:1] or (0,))

    @classmethod
    def load(cls, folder: Path, settings: EngineSettings = SERVING) -> TorchEngine:
        """From a Hugging Face folder, onto a GPU where there is one.

        Raises CheckpointError, and ConfigError for a precision that is not to be had here.
        """
        keep_freed_memory()
        ranker, encoder = models.load(folder)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(ranker, encoder, f"{folder.name}@{models.version(folder)}", settings, device)

    @property
    def elsewhere(self) -> bool:
        """Whether it computes on another device than the processor."""
        return self.ranker.device.type != "cpu"

    @property
    def cache_stats(self) -> CacheStats:
        """What the cache of trunks and stems did so far."""
        return self._cache.stats

    def forget(self) -> None:
        """Forgets trunks, stems, likelihoods without a trunk, vectors, and texts as tokens."""
        self.forget_texts()
        with self._forward:
            self._cache.clear()
            self._vectors.clear()
            self._readout.forget()

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names that a tree may give to its nodes: those of the ranker, and those added since."""
        return tuple(sorted(self._adapters))

    def add_adapter(self, name: str, folder: Path) -> None:
        """From peft's folder, while others score; an adapter of the same name is replaced at once.

        Raises CheckpointError for anything but plain LoRA of this very model, and ConfigError for no name.
        """
        if not name:
            raise ConfigError("an adapter needs a name; without one, a node is the base's own")
        adapter = adapters.load(folder, name, self.ranker, self.model_version)
        with self._forward:
            self._forget_adapter(name)
            self._adapters[name] = adapter

    def remove_adapter(self, name: str) -> None:
        """Forgets an adapter and what was computed under it. Raises ConfigError for one that is not there."""
        with self._forward:
            if name not in self._adapters:
                raise ConfigError(f"no adapter '{name}' is loaded (loaded: {', '.join(self.adapters) or 'none'})")
            self._forget_adapter(name)

    def _forget_adapter(self, name: str) -> None:
        if self._adapters.pop(name, None) is not None:
            self._cache.forget(name)
            self._readout.forget()

    def score(self, trees: Sequence[TokenTree]) -> list[LeafScores]:
        """What is asked of every leaf: log-probabilities of its answers, normalised over them, and its likelihood."""
        if not any(node.asked for tree in trees for node in tree.nodes):
            return [LeafScores([], np.zeros(0)) for _ in trees]
        with self._forward, torch.inference_mode():
            return self._readout.score(trees)

    def embed(self, texts: Sequence[str], salt: str = "") -> npt.NDArray[np.float32]:
        """[texts, D], rows of length one: the compressor's vectors, or the last hidden state of each text."""
        if not texts:
            return np.zeros((0, self.ranker.hidden_size), np.float32)
        with self._forward, torch.inference_mode():
            rows = [self._embed(texts[at : at + 256], salt) for at in range(0, len(texts), 256)]
            unit_TD = torch.nn.functional.normalize(torch.cat(rows).float(), dim=-1)
        return cast(npt.NDArray[np.float32], unit_TD.cpu().numpy())

    def _embed(self, texts: Sequence[str], salt: str) -> torch.Tensor:
        ids = [self.encoder.encode(text) or (0,) for text in texts]
        if self.compresses:
            return self._compress(ids, salt)
        forest = Forest.of([TokenTree((TokenNode(text),), salt) for text in ids])
        ends = [Whose(place[0], len(text) - 1) for place, text in zip(forest.places, ids, strict=True)]
        return self._runner.hidden(forest, {node: (slot,) for node, slot in ends}).of(ends)

    def _compress(self, texts: Sequence[tuple[int, ...]], salt: str | None) -> torch.Tensor:
        """[texts, D]. A vector is kept for texts of the same salt; where there are several (None), none is."""
        texts = [text[:MAX_TOKENS] for text in texts]
        if salt is None:
            return self.ranker.compress(texts)
        keys = [(salt, text) for text in texts]
        unknown = [key for key in dict.fromkeys(keys) if key not in self._vectors]
        if unknown:
            # one text a call would be exact too, but slow; rows of a matrix product do not mix
            for key, vector in zip(unknown, self.ranker.compress([text for _, text in unknown]), strict=True):
                self._vectors[key] = vector.clone()  # a view would keep its whole batch alive
        found = []
        for key in keys:
            self._vectors.move_to_end(key)
            found.append(self._vectors[key])
        while len(self._vectors) > VECTOR_CACHE:
            self._vectors.popitem(last=False)
        return torch.stack(found)
