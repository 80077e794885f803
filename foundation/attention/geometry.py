"""Which slots of a packed batch see which keys, as rectangles; no kernel is known here.

N new slots are computed in a forward; the keys and values of other slots may be remembered from an earlier one. A slot
sees its own node up to itself, and every ancestor up to where the branch hangs. Along any run of slots that a rectangle
names as keys, positions rise one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]


class Rectangle(NamedTuple):
    """Queries `q_start … q_start+q_size` over keys `k_start … k_start+k_size`, of the new slots or the remembered."""

    q_start: int
    q_size: int
    k_start: int
    k_size: int
    remembered: bool = False


@dataclass(frozen=True, slots=True)
class Geometry:
    """The attention of one forward.

    `own` are nodes over themselves: causal, the last query sees the last key. `above` are descendants over ancestors:
    every query sees every key. Positions: of the queries, of the new slots as keys, and of the remembered ones.
    """

    own: Sequence[Rectangle]
    above: Sequence[Rectangle]
    q_positions: Positions
    k_positions: Positions
    remembered_positions: Positions

    def only(self, rows: Positions) -> Geometry:
        """The same with no queries but `rows`, which rise; they are numbered 0, 1, … in the result."""
        own = [
            Rectangle(place, 1, one.k_start, int(rows[place]) - one.q_start + 1 + one.k_size - one.q_size)
            for one, (first, end) in zip(self.own, _places(rows, self.own), strict=True)
            for place in range(first, end)
        ]
        above = [
            one._replace(q_start=first, q_size=end - first)
            for one, (first, end) in zip(self.above, _places(rows, self.above), strict=True)
            if end > first
        ]
        return Geometry(own, above, self.q_positions[rows], self.k_positions, self.remembered_positions)

    def windowed(self, window: int | None) -> Geometry:
        """Without the keys that lie outside the sliding window of every query of their rectangle."""
        if window is None:
            return self
        return Geometry(
            [one if one.q_size > 1 else self._trimmed(one, window) for one in self.own],
            [trimmed for one in self.above if (trimmed := self._trimmed(one, window)).k_size > 0],
            self.q_positions, self.k_positions, self.remembered_positions,
        )  # fmt: skip

    def _trimmed(self, one: Rectangle, window: int) -> Rectangle:
        queries, keys = self.positions(one)
        outside = min(one.k_size, max(0, int(queries.min()) - window + 1 - int(keys[0])))
        return one._replace(k_start=one.k_start + outside, k_size=one.k_size - outside)

    def positions(self, one: Rectangle) -> tuple[Positions, Positions]:
        """Of a rectangle's queries and of its keys."""
        keys = self.remembered_positions if one.remembered else self.k_positions
        queries = self.q_positions[one.q_start : one.q_start + one.q_size]
        return queries, keys[one.k_start : one.k_start + one.k_size]

    def needs_mask(self, one: Rectangle, window: int | None) -> bool:
        """Whether some query of a rectangle has some of its keys outside the window."""
        if window is None:
            return False
        queries, keys = self.positions(one)
        return int(queries.max()) - int(keys[0]) >= window


def _places(rows: Positions, rectangles: Sequence[Rectangle]) -> list[tuple[int, int]]:
    """For each rectangle, which of `rows` are among its queries: from, to."""
    bounds = [(one.q_start, one.q_start + one.q_size) for one in rectangles]
    return [(first, end) for first, end in np.searchsorted(rows, np.array(bounds).reshape(-1, 2)).tolist()]


def without_shared_queries(group: Sequence[Rectangle]) -> list[list[Rectangle]]:
    """Split a group so that no slot is a query twice in one part (a slot may have two ancestors of one shape)."""
    levels: list[list[Rectangle]] = []
    ends: list[int] = []
    for rectangle in sorted(group):
        for level, end in enumerate(ends):
            if end <= rectangle.q_start:
                levels[level].append(rectangle)
                ends[level] = rectangle.q_start + rectangle.q_size
                break
        else:
            levels.append([rectangle])
            ends.append(rectangle.q_start + rectangle.q_size)
    return levels
