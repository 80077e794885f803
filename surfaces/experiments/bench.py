"""All that is measured of experiments on the simulated network, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table

from surfaces.experiments import peeking, replay, simulate
from surfaces.experiments.peeking import Stopping
from surfaces.experiments.replay import Recovered
from surfaces.experiments.simulate import Row


class Measured(NamedTuple):
    """What came out."""

    designs: list[Row]
    off_policy: list[Recovered]
    peeking: list[Stopping]

    def to_json(self) -> dict[str, object]:
        """As JSON can hold it: a list of objects for each part."""
        return {name: [_plain(row) for row in rows] for name, rows in self._asdict().items()}

    def to_tables(self) -> list[Table]:
        """For a terminal, in the order of the fields."""
        return [simulate.table(self.designs), replay.table(self.off_policy), peeking.table(self.peeking)]


def measure(members: int, seed: int, surfaces: Sequence[str]) -> Measured:
    """About a minute for 1,000 members and two surfaces.

    Raises ConfigError for a surface that is not simulated, and whatever `Network` raises.
    """
    asked = (members, seed, surfaces)
    return Measured(simulate.compare(*asked), replay.recover(*asked), peeking.stopping(*asked))


def _plain(row: tuple[object, ...]) -> dict[str, object]:
    """A named tuple, and those in it, as dictionaries."""
    names: Sequence[str] = getattr(row, "_fields", ())
    return {name: _plain(part) if isinstance(part, tuple) else part for name, part in zip(names, row, strict=True)}
