"""Ways to rank that can be compared: what each of them does, and those that need no model."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from prompts.errors import ConfigError
from prompts.suggest import suggest
from surfaces.ledger.records import Event
from surfaces.sources.base import NOTHING, Interactions, Scores, Source
from surfaces.sources.co_visitation import CoVisitation
from surfaces.sources.popular import Popular

BASELINES = ("random", "popular", "co_visitation")


class Method(Protocol):
    """Scores items for a member, from what the member did before."""

    name: str

    def scores(self, history: Sequence[Event], items: Sequence[str]) -> Scores:
        """[items]: higher is better, never NaN. `history` is never empty, oldest first; it names the member."""
        ...


class FromSource:
    """A source as a method. Items that it does not know score `NOTHING`."""

    def __init__(self, name: str, source: Source, data: Interactions) -> None:
        """Fits the source to the data."""
        self.name = name
        self._source, self._data = source, data
        source.fit(data)

    def scores(self, history: Sequence[Event], items: Sequence[str]) -> Scores:
        """[items]: the source's scores."""
        all_I = np.append(self._source.scores(self._data.history(history)), NOTHING)
        return all_I[[self._data.index.get(item_id, -1) for item_id in items]]


class Random:
    """A shuffle, the same for the same member and seed: the floor under every figure."""

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def scores(self, history: Sequence[Event], items: Sequence[str]) -> Scores:
        """[items]: uniform draws."""
        member = zlib.crc32(history[0].member_id.encode())
        return np.random.default_rng([self._seed, member]).random(len(items))


def baseline(name: str, train: Interactions) -> Method:
    """The method of that name, fitted. Raises ConfigError for a name that is none of `BASELINES`."""
    if name == "random":
        return Random()
    if name == "popular":
        return FromSource(name, Popular(), train)
    if name == "co_visitation":
        return FromSource(name, CoVisitation(), train)
    raise ConfigError(f"no method is called '{name}'{suggest(name, BASELINES)}")
