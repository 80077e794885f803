"""Not too many of a kind."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from surfaces.policies.base import Attribute, Entry, PolicyKind
from surfaces.visit import Visit

DEPTH = 8
"""Lists and mappings within one another that are told apart."""


class CapPolicy(PolicyKind):
    """At most `max` entries with the same value of an attribute, say two of a company; the best of them stay.

    Of an attribute that holds a list, every value counts. An entry without the attribute is never dropped.
    """

    drops: ClassVar[bool] = True
    type: Literal["cap"]
    by: Attribute = Field(description="The attribute whose values are counted.")
    max: int = Field(ge=1, le=1_000, description="How many entries may have the same value.")

    def apply(self, slate: Sequence[Entry], visit: Visit, k: int) -> list[Entry]:  # noqa: ARG002 - of any length
        """The entries that find room, in their order."""
        counts, kept = Counter[Hashable](), list[Entry]()
        for entry in slate:
            values = _values(entry.attributes.get(self.by))
            if all(counts[value] < self.max for value in values):
                counts.update(values)
                kept.append(entry)
        return kept


def _values(value: object) -> frozenset[Hashable]:
    """What of an attribute is counted: the entries of a list, else the value; nothing of what is absent or empty."""
    entries = value if isinstance(value, list | tuple | set | frozenset) else [value]
    return frozenset(_frozen(entry, DEPTH) for entry in entries if not _absent(entry))


def _absent(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _frozen(value: object, depth: int) -> Hashable:
    """The value as something that can be counted: equal values stay equal, and what lies deeper counts as equal."""
    if isinstance(value, dict | list | tuple) and not depth:
        return ()
    if isinstance(value, dict):
        return frozenset((key, _frozen(entry, depth - 1)) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return tuple(_frozen(entry, depth - 1) for entry in value)
    return value if isinstance(value, str | int | float | bool) else repr(value)
