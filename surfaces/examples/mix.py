"""Several surfaces as one run's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from foundation.training.labels import LabelledTree
from surfaces.spec import SurfaceSpec


class Part(Protocol):
    """One surface's trees."""

    spec: SurfaceSpec

    @property
    def size(self) -> int:
        """How many spots there are to learn from."""
        ...

    def drawn(self, rng: np.random.Generator) -> LabelledTree:
        """A tree at random."""
        ...


class Mix:
    """Trees of several surfaces, each as often as its share says. Implements `foundation.training.trainer.Data`."""

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        trees_per_step: int,
        seed: int,
        temperature: float = 1.0,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """A surface's share is its weight times its number of spots to the power 1 / temperature.

        Temperature sampling: N. Arivazhagan et al., "Massively multilingual neural machine translation in the wild",
        2019, section 4.1. At 1 every spot counts the same, at a high one every surface does.
        """
        self.parts, self.trees_per_step, self.seed = parts, trees_per_step, seed
        sizes = np.array([part.size for part in parts], dtype=np.float64) ** (1.0 / temperature)
        given = np.array([(weights or {}).get(part.spec.surface, 1.0) for part in parts])
        self.shares = sizes * given / (sizes * given).sum()

    def batch(self, step: int) -> list[LabelledTree]:
        """The trees of one step; the same step gives the same trees."""
        rng = np.random.default_rng((self.seed, step))
        return [self.drawn(rng) for _ in range(self.trees_per_step)]

    def drawn(self, rng: np.random.Generator) -> LabelledTree:
        """A tree of a part at random."""
        return self.parts[int(rng.choice(len(self.parts), p=self.shares))].drawn(rng)
