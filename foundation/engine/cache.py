"""Keys and values of trunks and stems, kept between requests in a radix tree over what they say.

An edge holds a run of slots; a node of text that begins like another shares its edges, and is split where they part. So
every surface finds the same trunk, and a member's next visit finds all of it but the events that came since. What was
not used for longest goes first when the bytes are full. Candidates never get here.
Keys begin with a salt: runs of different salts have no edge in common (see `TokenTree.salt`). A slot under an adapter
is another than the same slot without, so that stems of many adapters hang from one trunk.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

import numpy as np

from foundation.engine.base import CacheStats
from foundation.engine.forest import Elements, Under
from foundation.engine.room import KeyValues, Places, Room

_NOWHERE: Places = np.zeros(0, np.int64)


@dataclass(eq=False, slots=True)
class Edge:
    """A run of slots behind its parent's, and where they are held; `used` is when it was last found."""

    says: Elements
    held: Places
    parent: Edge | None
    children: dict[Hashable, Edge] = field(default_factory=dict)
    used: int = 0


class Step(NamedTuple):
    """An edge of a path, and how many of its slots the path takes."""

    edge: Edge
    slots: int


class PrefixCache:
    """A radix tree of keys and values, at most `limit_bytes` of them (0: none).

    Not thread-safe: an engine uses it inside its own lock.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.stats = CacheStats()
        self._room = Room(limit_bytes)
        self._roots: dict[str, Edge] = {}
        self._edges: set[Edge] = set()
        self._oldest: list[tuple[int, int, Edge]] = []  # a heap; entries of edges that were used since are stale
        self._clock, self._order = count(1), count()

    def __len__(self) -> int:
        return len(self._edges)

    def find(self, salt: str, path: Elements) -> list[Step]:
        """The longest run of `path` that is held, edge by edge."""
        steps: list[Step] = []
        edge, at = self._roots.get(salt), 0
        while edge is not None and at < len(path) and (below := edge.children.get(path[at])) is not None:
            common = _common(below.says, path[at : at + len(below.says)])
            steps.append(Step(below, common))
            at += common
            edge = below if common == len(below.says) else None
        self._touch(step.edge for step in steps)
        return steps

    def insert(self, salt: str, path: Elements, rest: Callable[[int], KeyValues]) -> None:
        """Hold `path`; `rest(n)` gives the keys and values of its slots from `n` on."""
        steps = self.find(salt, path)
        known = sum(step.slots for step in steps)
        if known == len(path):
            return
        held = rest(known)
        if not self._room.fits(held):
            return
        self._room.open(held)
        parent = self._split(*steps[-1]) if steps else self._root(salt)
        edge = Edge(path[known:], _NOWHERE, parent)
        parent.children[edge.says[0]] = edge  # so that the parent stays, whatever has to go
        fits = self._make_room(len(edge.says))
        self._edges.add(edge)
        if not fits:
            self._drop(edge)
            return
        edge.held = self._room.take(held)
        self.stats.bytes += len(edge.held) * self._room.slot_bytes
        self._touch([edge])

    def read(self, runs: Iterable[Step]) -> KeyValues:
        """Keys and values of the first slots of edges, end to end."""
        return self._room.read([edge.held[:slots] for edge, slots in runs])

    def clear(self) -> None:
        """Forget everything; the counters go on."""
        self._roots.clear()
        self._edges.clear()
        self._oldest.clear()
        self._room.clear()
        self.stats.bytes = 0

    def forget(self, adapter: str) -> None:
        """Drop what was computed under an adapter, and what hangs from it; trunks stay."""
        edges: list[Edge] = []
        for edge in list(self._edges):
            at = next(
                (n for n, said in enumerate(edge.says) if isinstance(said, Under) and said.adapter == adapter), None
            )
            if at is not None:
                edges += self._split(edge, at).children.values() if at else [edge]
        for edge in edges:
            edges.extend(edge.children.values())
        for edge in reversed(edges):
            if edge in self._edges:
                self._drop(edge)
        self._oldest = [entry for entry in self._oldest if entry[2] in self._edges]
        heapq.heapify(self._oldest)

    def _root(self, salt: str) -> Edge:
        """What the first edges of a salt hang from; it holds nothing, and goes with the last of them."""
        return self._roots.setdefault(salt, Edge((salt,), _NOWHERE, None))

    def _split(self, edge: Edge, slots: int) -> Edge:
        """The edge, cut down to its first `slots` slots; the rest of it hangs below."""
        if slots == len(edge.says):
            return edge
        tail = Edge(edge.says[slots:], edge.held[slots:].copy(), edge, edge.children, edge.used)
        for child in tail.children.values():
            child.parent = tail
        edge.says, edge.held = edge.says[:slots], edge.held[:slots].copy()
        edge.children = {tail.says[0]: tail}
        self._edges.add(tail)
        self._expose(tail)
        return edge

    def _touch(self, edges: Iterable[Edge]) -> None:
        now = next(self._clock)
        for edge in edges:
            edge.used = now
            self._expose(edge)

    def _expose(self, edge: Edge) -> None:
        """Let it be dropped when its time comes: only edges that nothing hangs from are."""
        if not edge.children:
            heapq.heappush(self._oldest, (edge.used, next(self._order), edge))
        if len(self._oldest) > 64 + 4 * len(self._edges):
            self._oldest = [(one.used, next(self._order), one) for one in self._edges if not one.children]
            heapq.heapify(self._oldest)

    def _make_room(self, slots: int) -> bool:
        """Drops what was not used for longest until so many slots are free; whether they are."""
        while self._room.free < slots and self._oldest:
            used, _, edge = heapq.heappop(self._oldest)
            if used == edge.used and not edge.children and edge in self._edges:
                self._drop(edge)
        return self._room.free >= slots

    def _drop(self, edge: Edge) -> None:
        self._edges.remove(edge)
        self._room.give_back(edge.held)
        self.stats.bytes -= len(edge.held) * self._room.slot_bytes
        self.stats.evictions += 1
        parent = edge.parent
        if parent is not None:
            del parent.children[edge.says[0]]
            if parent in self._edges:
                self._expose(parent)
            elif not parent.children:
                del self._roots[str(parent.says[0])]


def _common(one: Elements, other: Elements) -> int:
    """How many elements two runs begin with alike; halving beats a loop over them."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
