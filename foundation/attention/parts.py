"""Parts: the calls of an attention kernel that a geometry comes to, and the rows that go into them.

Shapes: N slots, H heads, D head size; a part has B rectangles of Q queries and K keys each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from foundation.attention.geometry import Geometry


@dataclass(frozen=True, slots=True)
class Rows:
    """`number` runs of `size` slots: from `start` on where they follow each other, else by an index of slots.

    Runs that are shorter than `size` are padded by slots that stand in; `real` says which of the index are their own.
    """

    start: int
    number: int
    size: int
    index: torch.Tensor | None = None
    real: torch.Tensor | None = None

    @classmethod
    def of(cls, starts: Sequence[int], sizes: Sequence[int], size: int, device: torch.device | None = None) -> Rows:
        """Runs of `sizes` (each at most `size`) from `starts` on."""
        first, whole = starts[0], all(each == size for each in sizes)
        if whole and all(start == first + place * size for place, start in enumerate(starts)):
            return cls(first, len(starts), size)
        places, given = torch.arange(size), torch.tensor(sizes)[:, None]
        index = torch.tensor(starts)[:, None] + torch.minimum(places, given - 1)
        real = None if whole else (places < given).flatten().to(device)
        return cls(first, len(starts), size, index.flatten().to(device), real)

    def flat(self, x: torch.Tensor) -> torch.Tensor:
        """The rows of `x`, one after another; a view where they are contiguous."""
        if self.index is not None:
            return x.index_select(0, self.index)
        return x[self.start : self.start + self.number * self.size]

    def take(self, x_NHD: torch.Tensor) -> torch.Tensor:
        """[B, H, size, D] of [N, H, D]."""
        return self.flat(x_NHD).view(self.number, self.size, *x_NHD.shape[1:]).transpose(1, 2)

    def put(self, target: torch.Tensor, value: torch.Tensor) -> None:
        """Write rows back, flat; rows of one `Rows` never overlap when they are queries."""
        if self.index is None:
            target[self.start : self.start + self.number * self.size] = value
        elif self.real is None:
            target.index_copy_(0, self.index, value)
        else:
            target.index_copy_(0, self.index[self.real], value[self.real])

    def add(self, target: torch.Tensor, value: torch.Tensor) -> None:
        """Add to rows, flat; rows that occur twice are added twice."""
        if self.index is not None:
            target.index_add_(0, self.index, value)
        else:
            target[self.start : self.start + self.number * self.size] += value

    def silenced(self, x: torch.Tensor) -> torch.Tensor:
        """`x`, flat rows, with zeros where a slot only stands in."""
        return x if self.real is None else x * self.real.view(-1, *[1] * (x.ndim - 1))


class Part(Protocol):
    """One call of a kernel. `opens`: its queries are in no part before it."""

    @property
    def queries(self) -> Rows: ...
    @property
    def opens(self) -> bool: ...
    @property
    def remembered(self) -> bool: ...

    def attend(
        self, q_NHD: torch.Tensor, k_NHD: torch.Tensor, v_NHD: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Output [rows, H, D] and log-sum-exp [rows, H] of its queries over its keys; k and v may have fewer heads."""
        ...


class Kernel(Protocol):
    """Makes the parts of a geometry, each slot first in a part that `opens` it."""

    name: str

    def parts(self, geometry: Geometry, window: int | None) -> tuple[Part, ...]:
        """For layers whose slots see at most the last `window` positions. Raises CheckpointError for what it cannot."""
        ...
