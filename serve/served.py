"""A surface that is ready to be ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prompts.verbalize import TrunkForm
from surfaces.ledger.records import Event
from surfaces.policies.base import Entry, Policy
from surfaces.sources.merge import Retrieval
from surfaces.spec import SurfaceSpec


@dataclass(frozen=True, slots=True)
class ServedSurface:
    """A surface whose sources are fitted to the ledger."""

    spec: SurfaceSpec
    form: TrunkForm
    retrieval: Retrieval
    policies: Sequence[Policy]

    def after_policies(self, slate: Sequence[Entry], history: Sequence[Event]) -> list[Entry]:
        """The slate after every policy of the surface, in their order."""
        kept = list(slate)
        for policy in self.policies:
            kept = policy.apply(kept, history)
        return kept
