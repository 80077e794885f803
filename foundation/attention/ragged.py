"""Rectangles of any shapes in one call, their rows laid end to end: what kernels for GPUs take, and no padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from foundation.attention.geometry import Geometry, Positions, Rectangle, without_shared_queries
from foundation.attention.parts import Rows


@dataclass(frozen=True, slots=True)
class Call:
    """Rectangles over new keys or over remembered ones, in which no slot is a query twice.

    `own`: nodes over themselves, where the last query sees the last key. `q_sizes`, `k_sizes` [rectangles].
    """

    own: bool
    remembered: bool
    q_starts: Positions
    q_sizes: Positions
    k_starts: Positions
    k_sizes: Positions

    @classmethod
    def of(cls, rectangles: Sequence[Rectangle], *, own: bool) -> Call:
        """Rectangles that a geometry names."""
        table = np.array([one[:4] for one in rectangles], dtype=np.int64)
        return cls(own, rectangles[0].remembered, *table.T)

    def queries(self) -> Positions:
        """The slot of each query [Q]."""
        return end_to_end(self.q_starts, self.q_sizes)


def calls(geometry: Geometry) -> Iterator[Call]:
    """All nodes over themselves; then all over their ancestors, in as many calls as a slot has of them."""
    if geometry.own:
        yield Call.of(geometry.own, own=True)
    for remembered in (False, True):
        above = [one for one in geometry.above if one.remembered == remembered]
        for level in without_shared_queries(above):
            yield Call.of(level, own=False)


def end_to_end(starts: Positions, sizes: Positions) -> Positions:
    """The members of runs, one run after another."""
    before = np.cumsum(sizes) - sizes
    found: Positions = np.repeat(starts - before, sizes) + np.arange(sizes.sum())
    return found


def as_rows(slots: Positions, device: torch.device) -> Rows:
    """Rows of size one; a view where the slots follow each other."""
    first, number = int(slots[0]), len(slots)
    if np.array_equal(slots, np.arange(first, first + number)):
        return Rows(first, number, 1)
    return Rows(first, number, 1, torch.from_numpy(slots).to(device))
