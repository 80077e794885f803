"""What flows had of something lately. Who had least is next, so that a flood is its own trouble."""

from __future__ import annotations

from collections.abc import Iterable

LITTLE = 0.8
"""A flow that had less than so much of an equal share asks for little."""


class Shares:
    """Amounts by flow, which fade; those of `least` and below are forgotten. For one thread at a time."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._had: dict[str, float] = {}

    def fade(self, kept: float) -> None:
        """Forgets all but the part `kept` of what flows had."""
        self._had = {flow: left for flow, had in self._had.items() if (left := kept * had) > self._least}

    def forgive(self, most: float) -> None:
        """Forgets what flows had beyond `most`."""
        self._had = {flow: min(had, most) for flow, had in self._had.items()}

    def add(self, flow: str, amount: float) -> None:
        """A flow had so much more."""
        self._had[flow] = self._had.get(flow, 0.0) + amount

    def of(self, flow: str) -> float:
        """What a flow had lately."""
        return self._had.get(flow, 0.0)

    def several(self, more: Iterable[str]) -> bool:
        """Whether more than one flow had something lately, or is among `more`."""
        return len(self._had.keys() | set(more)) > 1

    def asks_little(self, flow: str) -> bool:
        """Whether others had much more than this flow lately."""
        among = len(self._had) + (flow not in self._had)
        return self.of(flow) * among < LITTLE * sum(self._had.values())
