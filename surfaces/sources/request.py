"""The candidates that a request brought itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from surfaces.sources.base import Indices, Interactions, Materials, Scores, SourceKind
from surfaces.sources.named import by_rank
from surfaces.visit import NOBODY, Visit


class Request:
    """Brings what the caller gave, in the caller's order."""

    def __init__(self) -> None:
        self._index: dict[str, int] = {}

    def fit(self, data: Interactions) -> None:
        """Keeps which items there are."""
        self._index = data.index

    def named(self, visit: Visit) -> Sequence[str]:
        """The given ids, each once."""
        return list(dict.fromkeys(visit.given))

    def scores(self, history_H: Indices, visit: Visit = NOBODY) -> Scores:  # noqa: ARG002 - the request says it all
        """[items]: minus the rank among the given; `NOTHING` for every other item."""
        return by_rank(self.named(visit), self._index)


class RequestSource(SourceKind):
    """The candidates that the request brought, to be ranked together with those of other sources."""

    type: Literal["request"]

    def build(self, materials: Materials) -> Request:  # noqa: ARG002 - the request says it all
        """A source that is to be fitted."""
        return Request()
