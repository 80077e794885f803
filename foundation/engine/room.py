"""Where the cache keeps keys and values: one block of memory, taken once, with a place for each slot.

Were each run of slots a tensor of its own, what is kept would lie scattered among the tensors of the forwards; a long
one that is asked for again would not fit between, and the memory of the process would grow for as long as it runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from prompts.errors import ConfigError

KeyValues = torch.Tensor
"""[layers, 2, slots, heads, size of a head]: keys, then values, of a run of slots."""
Places = npt.NDArray[np.int64]


class Room:
    """At most `limit_bytes` of keys and values. The system gives the memory when a place is first used.

    All of them have the layers, heads, kind and device of the first.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.slot_bytes = self.free = 0
        self._block: KeyValues | None = None
        self._free: Places = np.zeros(0, np.int64)

    def fits(self, held: KeyValues) -> bool:
        """Whether it could take as many slots, were it empty."""
        return held.numel() * held.element_size() <= self.limit_bytes

    def open(self, held: KeyValues) -> None:
        """Takes the memory, of which `held` is to be a part. Raises ConfigError where there is not so much."""
        if self._block is not None:
            return
        slot_bytes = held[:, :, :1].numel() * held.element_size()
        count = self.limit_bytes // slot_bytes
        try:
            self._block = held.new_empty(*held.shape[:2], count, *held.shape[3:])
        except RuntimeError:
            told = f"the cache of trunks may hold {self.limit_bytes >> 20:,} MB, but there is not so much memory"
            raise ConfigError(f"{told}: give it less, with --cache-mb or cache_bytes") from None
        self.slot_bytes, self.free, self._free = slot_bytes, count, np.arange(count)[::-1].copy()

    def take(self, held: KeyValues) -> Places:
        """Copies keys and values in, for which there is room; returns where they are, slot by slot."""
        assert self._block is not None  # noqa: S101  it was opened
        self.free -= held.shape[2]
        places = self._free[self.free : self.free + held.shape[2]].copy()
        self._block.index_copy_(2, self._index(places), held)
        return places

    def give_back(self, places: Places) -> None:
        """What was there is needed no longer."""
        self._free[self.free : self.free + len(places)] = places
        self.free += len(places)

    def read(self, places: Sequence[Places]) -> KeyValues:
        """A copy of what is there, run by run, end to end."""
        assert self._block is not None  # noqa: S101  there are places
        return self._block.index_select(2, self._index(np.concatenate(places)))

    def clear(self) -> None:
        """Gives the memory back."""
        self.slot_bytes = self.free = 0
        self._block = None

    def _index(self, places: Places) -> torch.Tensor:
        assert self._block is not None  # noqa: S101  see above
        return torch.from_numpy(places).to(self._block.device)
