"""What a call remembers: keys and values from the cache, and those that its own forwards computed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from foundation.engine.cache import Edge, PrefixCache, Step
from foundation.engine.forest import Elements, Forest
from foundation.engine.pack import Integers, Memory, Run
from foundation.engine.room import KeyValues

Paths = Mapping[int, Elements]
"""By node that something hangs from: what it and all that it sees say."""
Wanted = Mapping[int, Sequence[int]]
"""By node, the slots whose last hidden state is read, rising."""


@dataclass(slots=True)
class Recall:
    """Where the slots of each node are, and their keys and values."""

    memory: Memory = field(default_factory=Memory)
    held: KeyValues | None = None

    def add(self, kept: KeyValues) -> None:
        """More rows behind those that there are."""
        self.held = kept if self.held is None else torch.cat([self.held, kept], dim=2)

    def path(self, forest: Forest, node: int) -> Integers:
        """The rows of a node and of all that it sees, from the root on."""
        found: list[Integers] = []
        slots = forest.nodes[node].size
        for above in forest.ancestors(node):
            found = [np.arange(run.start, run.start + run.size) for run in self.memory.upto(above, slots)] + found
            slots = forest.nodes[above].seen
        return np.concatenate(found)


def recalled(cache: PrefixCache, forest: Forest, paths: Paths, wanted: Wanted) -> Recall:
    """What the cache holds of these nodes. A slot that is read is computed anew: only keys and values are held."""
    recall = Recall()
    if not len(cache):
        return recall
    steps = {node: cache.find(forest.nodes[node].salt, path) for node, path in paths.items()}
    starts = _gather(recall, cache, steps.values())
    for node, path in steps.items():
        depth = forest.nodes[node].depth
        known = min([forest.nodes[node].size, *wanted.get(node, ())])
        runs = list(_between(path, starts, depth, depth + known))
        if runs:
            recall.memory.runs[node] = runs
    return recall


def _gather(recall: Recall, cache: PrefixCache, paths: Collection[Sequence[Step]]) -> dict[Edge, int]:
    """Every edge of the paths once, end to end; returns the row of its first slot."""
    taken: dict[Edge, int] = {}
    first: dict[Edge, int] = {}
    for path in paths:
        at = 0
        for edge, slots in path:
            taken[edge] = max(slots, taken.get(edge, 0))
            first[edge] = at
            at += slots
    if taken:
        recall.held = cache.read(Step(edge, slots) for edge, slots in taken.items())
        positions = [np.arange(first[edge], first[edge] + slots) for edge, slots in taken.items()]
        recall.memory.positions = np.concatenate(positions)
    ends = np.cumsum([0, *taken.values()]).tolist()
    return dict(zip(taken, ends, strict=False))


def _between(path: Sequence[Step], starts: Mapping[Edge, int], first: int, end: int) -> Iterator[Run]:
    """The rows of a path's slots `first … end`, as far as they are held; runs that follow each other are one."""
    at, run = 0, Run(0, 0)
    for edge, slots in path:
        low, high = max(first, at), min(end, at + slots)
        if low < high:
            start = starts[edge] + low - at
            if run.size and run.start + run.size != start:
                yield run
                run = Run(start, 0)
            run = Run(run.start if run.size else start, run.size + high - low)
        at += slots
    if run.size:
        yield run
