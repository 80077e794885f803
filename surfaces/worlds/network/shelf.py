"""One kind of simulated items as columns of numbers, one row an item, and the calendar that they live in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from surfaces.worlds.network.arrays import Floats, Index, Ints

DAY = 86_400
START = 1_767_225_600
"""The beginning of the simulated period: 2026-01-01 00:00 UTC, in seconds since 1970."""
DAYS = 120
LAST = DAYS * DAY - DAY // 2
"""The seconds into the period at which the last session begins; items posted later are cold."""

ANYWHERE = -1
"""The city of what is everywhere at home, such as a remote job."""
COMPANY = -1
"""The author of what a company wrote, and no member."""


@dataclass(frozen=True)
class Shelf:
    """Items of one kind. `start` and `end` are in seconds since the period began; `weight` is the popularity.

    `topic` is an occupation's place, for a company its industry's; `author` is the member who wrote a post, or
    COMPANY.
    """

    prefix: str
    exponent: float
    vectors: Floats
    topic: Ints
    city: Ints
    level: Ints
    company: Ints
    author: Ints
    start: Ints
    end: Ints
    weight: Floats
    industry_of: Ints
    """For each topic, its industry."""

    def __len__(self) -> int:
        return len(self.topic)

    @cached_property
    def anywhere(self) -> Index:
        """All items as one group."""
        return Index.build(np.zeros(len(self), np.int8), self.start, self.weight)

    @cached_property
    def by_topic(self) -> Index:
        """Groups are topics."""
        return Index.build(self.topic, self.start, self.weight)

    @cached_property
    def by_industry(self) -> Index:
        """Groups are the topics' industries."""
        return Index.build(self.industry_of[self.topic], self.start, self.weight)

    @cached_property
    def by_city(self) -> Index:
        """Groups are cities; what is at home everywhere counts as the first city's."""
        return Index.build(np.maximum(self.city, 0), self.start, self.weight)

    @cached_property
    def longest(self) -> int:
        """The longest time in seconds from start to end."""
        return int((self.end - self.start).max())

    def popularity(self, items: Ints) -> Floats:
        """The logarithm of the weights, with mean 0 and deviation 1 (a Pareto variable's is exponential)."""
        return np.asarray(np.log(self.weight[items]) * self.exponent - 1.0)
