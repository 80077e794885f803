"""What a policy does: it takes a slate, best first, and returns one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field

from surfaces.fields import Strict
from surfaces.visit import Visit

if TYPE_CHECKING:
    from surfaces.sources.base import Materials

Vector = npt.NDArray[np.float32]

Attribute = Annotated[str, Field(min_length=1, max_length=256)]
"""The name of an attribute of items."""

Share = Annotated[float, Field(ge=0, le=1)]
"""From 0, nothing, to 1, everything."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A candidate on its way to the slate.

    `relevance` begins in [0, 1] over the whole slate, 1 the best: from utilities, or from places where the model did
    not answer. It is what policies work with, and what they change; a boost may take it beyond these bounds. `vector`
    is the item's, of length one, where there is one. `propensity` is the probability with which the candidate got its
    place, as far as policies drew it.
    """

    item_id: str
    relevance: float
    attributes: Mapping[str, object] = field(default_factory=dict)
    vector: Vector | None = None
    propensity: float = 1.0


class Policy(Protocol):
    """Reorders or drops entries; it never adds one. Of an entry it may change the relevance and the propensity."""

    def apply(self, slate: Sequence[Entry], visit: Visit, k: int) -> list[Entry]:
        """The slate after the policy; its first `k` entries are what the caller gets."""
        ...


class PolicyKind(Strict):
    """An entry of `policies`, and its own policy unless `build` gives another."""

    drops: ClassVar[bool] = False
    """Whether it takes entries away: then it has no say over a list that the caller gave."""
    reads_vectors: ClassVar[bool] = False
    """Whether it works with the items' vectors, which the model makes when the surface comes online."""
    single: ClassVar[bool] = False
    """Whether a surface has it at most once, because twice would say the same."""
    type: str

    @property
    def brings(self) -> tuple[str, ...]:
        """Ids of items that must be among the candidates."""
        return ()

    def build(self, materials: Materials) -> Policy:  # noqa: ARG002 - most policies know enough
        """The policy, made ready. Raises ConfigError for what is not to be had."""
        return self

    def apply(self, slate: Sequence[Entry], visit: Visit, k: int) -> list[Entry]:  # noqa: ARG002
        """See `Policy`. A kind that builds another policy needs none of its own: this one changes nothing."""
        return list(slate)


def relevances(utilities: Sequence[float] | npt.NDArray[np.float64]) -> list[float]:
    """Utilities moved into [0, 1]; where all are equal, 1."""
    values = np.asarray(utilities, dtype=np.float64)
    if not len(values):
        return []
    low, high = float(values.min()), float(values.max())
    return [1.0] * len(values) if high <= low else [float(value) for value in (values - low) / (high - low)]


def by_place(count: int) -> list[float]:
    """Relevances of a slate whose order is all that is known: falling evenly from 1."""
    return [1.0 - place / count for place in range(count)]


def best_first(slate: Sequence[Entry]) -> list[Entry]:
    """By relevance; entries that are level keep their order."""
    return sorted(slate, key=lambda entry: -entry.relevance)


def in_this_order(slate: Sequence[Entry]) -> list[Entry]:
    """The same entries, none of them less relevant than one that comes after it: a later policy keeps the order.

    An entry that was moved up is raised to the best of those that it passed; the others stay what they are.
    """
    kept, best = list[Entry](), -np.inf
    for entry in reversed(slate):
        best = max(best, entry.relevance)
        kept.append(entry if entry.relevance == best else replace(entry, relevance=best))
    return kept[::-1]
