"""A forest through the model: what is remembered is looked up, the rest is computed in chunks of bounded size.

Trunks and stems (nodes that something hangs from) come first; their keys and values stay until the call is done, and in
the cache after it. Leaves fill up the chunks, and keep nothing.
Shapes: N slots, D hidden size, R rows that are read, K heads of keys and values, E size of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch

from foundation.attention.merge import Plan, Remembered
from foundation.attention.parts import Kernel
from foundation.attention.registry import Asked, Hear
from foundation.engine.cache import PrefixCache
from foundation.engine.forest import Forest
from foundation.engine.pack import Integers, Layout, Work, lay_out
from foundation.engine.recall import Paths, Recall, Wanted, recalled
from foundation.engine.room import KeyValues
from foundation.lowrank import UNADAPTED, Adapted, Adapter, check_known


class Reader(Protocol):
    """A decoder as a run sees it."""

    @property
    def layers(self) -> int:
        """How many layers it has."""
        ...

    def hidden(
        self, x_ND: torch.Tensor, positions: torch.Tensor, plan: Plan, rows: torch.Tensor, hear: Hear,
        adapted: Adapted = UNADAPTED,
    ) -> torch.Tensor:  # fmt: skip
        """Last hidden states [R, D] of `rows`, which rise; `hear` is called in every layer, in order.

        The rows of adapters get their updates.
        """
        ...


@dataclass(slots=True)
class Ear:
    """Listens to the layers of one forward: tells them what is remembered, and keeps the rows `keep`."""

    layers: int
    held: KeyValues | None
    keep: torch.Tensor
    kept: KeyValues | None = None

    def __call__(self, layer: int, _: Asked, k_NKE: torch.Tensor, v_NKE: torch.Tensor) -> Remembered | None:
        """See `Hear`."""
        if len(self.keep):
            if self.kept is None:
                self.kept = k_NKE.new_empty(self.layers, 2, len(self.keep), *k_NKE.shape[1:])
            self.kept[layer, 0] = k_NKE[self.keep]
            self.kept[layer, 1] = v_NKE[self.keep]
        return None if self.held is None else Remembered(self.held[layer, 0], self.held[layer, 1])


class Whose(NamedTuple):
    """A slot of a node."""

    node: int
    slot: int


@dataclass(frozen=True, slots=True)
class States:
    """Last hidden states, and the row of each slot."""

    rows: dict[Whose, int]
    states_RD: torch.Tensor

    def of(self, whose: Sequence[Whose]) -> torch.Tensor:
        """[slots, D] of these."""
        rows = torch.tensor([self.rows[slot] for slot in whose], dtype=torch.long, device=self.states_RD.device)
        return self.states_RD[rows]


@dataclass(slots=True)
class Runner:
    """Runs forests through one model; `embed` makes the input vectors [N, D] of a layout, `adapters` are by name."""

    reader: Reader
    embed: Callable[[Layout], torch.Tensor]
    kernel: Kernel
    device: torch.device
    cache: PrefixCache
    chunk_slots: int
    adapters: Mapping[str, Adapter] = field(default_factory=dict)

    def hidden(self, forest: Forest, wanted: Wanted) -> States:
        """The last hidden states of the wanted slots. Raises TreeError for an adapter that is not there."""
        check_known(sorted(forest.adapters), self.adapters)
        order = forest.depth_first()
        paths = {node: forest.path(node) for node in order if forest.nodes[node].children}
        recall = recalled(self.cache, forest, paths, wanted)
        chunks = list(_chunks(forest, order, recall, self.chunk_slots))
        self._count(forest, paths, chunks)
        states, whose = [], []
        for number, chunk in enumerate(chunks):
            keep = bool(self.cache.limit_bytes) or number + 1 < len(chunks)
            found, slots = self._forward(forest, chunk, recall, wanted, keep=keep)
            states.append(found)
            whose += slots
        if self.cache.limit_bytes:
            self._hold(forest, paths, recall)
        return States({slot: row for row, slot in enumerate(whose)}, torch.cat(states))

    def _forward(
        self, forest: Forest, chunk: Sequence[Work], recall: Recall, wanted: Wanted, *, keep: bool
    ) -> tuple[torch.Tensor, list[Whose]]:
        """One chunk: states [R, D], and whose they are. What stays of it is remembered from then on."""
        laid = lay_out(forest, chunk, recall.memory)
        rows, whose = _read(chunk, laid.first, wanted)
        stays = [(w, f) for w, f in zip(chunk, laid.first, strict=True) if keep and _stays(forest, w)]
        ear = Ear(self.reader.layers, recall.held, self._rows([np.arange(f, f + w.size) for w, f in stays]))
        plan = Plan(laid.geometry, self.kernel)
        positions = torch.from_numpy(laid.positions).to(self.device)
        adapted = Adapted.of(laid.adapted, self.adapters, self.device)
        states = self.reader.hidden(self.embed(laid), positions, plan, self._rows([rows]), ear, adapted)
        for work, _ in stays:
            recall.memory.add(work, len(recall.memory.positions), forest.nodes[work.node].depth)
        if ear.kept is not None:
            recall.add(ear.kept)
        return states, whose

    def _rows(self, rows: Sequence[Integers | Sequence[int]]) -> torch.Tensor:
        joined = np.concatenate([np.asarray(each, dtype=np.int64) for each in rows]) if rows else np.zeros(0, np.int64)
        return torch.from_numpy(joined).to(self.device)

    def _count(self, forest: Forest, paths: Paths, chunks: Sequence[Sequence[Work]]) -> None:
        missed = sum(work.size for chunk in chunks for work in chunk if work.node in paths)
        self.cache.stats.missed_slots += missed
        self.cache.stats.hit_slots += sum(forest.nodes[node].size for node in paths) - missed

    def _hold(self, forest: Forest, paths: Paths, recall: Recall) -> None:
        """Trunks and stems into the cache."""
        for node, path in paths.items():
            rows = recall.path(forest, node)

            def rest(known: int, rows: Integers = rows) -> KeyValues:
                assert recall.held is not None  # noqa: S101  a node that something hangs from always stays
                return recall.held.index_select(2, self._rows([rows[known:]]))

            self.cache.insert(forest.nodes[node].salt, path, rest)


def _stays(forest: Forest, work: Work) -> bool:
    """Whether something will see a work's slots: a branch, or the rest of a node that is too long for a chunk."""
    node = forest.nodes[work.node]
    return bool(node.children) or work.stop < node.size


def _read(chunk: Sequence[Work], first: Sequence[int], wanted: Wanted) -> tuple[list[int], list[Whose]]:
    """The rows that are read, rising, and whose they are."""
    rows, whose = [], []
    for work, row in zip(chunk, first, strict=True):
        for slot in wanted.get(work.node, ()):
            if work.start <= slot < work.stop:
                rows.append(row + slot - work.start)
                whose.append(Whose(work.node, slot))
    return rows, whose


def _chunks(forest: Forest, order: Sequence[int], recall: Recall, limit: int) -> Iterator[list[Work]]:
    """What is not remembered, trunks and stems first, at most `limit` slots at a time, each chunk depth first.

    Only a node longer than a chunk is cut, and a trunk or stem where a chunk is full.
    """
    rank = {node: place for place, node in enumerate(order)}
    chunk: list[Work] = []
    room = limit
    for node in sorted(order, key=lambda node: (not forest.nodes[node].children, rank[node])):
        start, size = recall.memory.known(node), forest.nodes[node].size
        while start < size:
            cut = forest.nodes[node].children or size > limit
            if room == 0 or (room < size - start and not cut):
                yield sorted(chunk, key=lambda work: rank[work.node])
                chunk, room = [], limit
            stop = min(size, start + room)
            chunk.append(Work(node, start, stop))
            room -= stop - start
            start = stop
    if chunk:
        yield sorted(chunk, key=lambda work: rank[work.node])
