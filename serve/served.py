"""A surface that is ready to be ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from foundation.engine.base import Engine
from prompts.verbalize import TrunkForm
from surfaces.calibrated import CalibratedSurface
from surfaces.ledger.store import Ledger
from surfaces.policies.base import Entry, Policy, PolicyKind
from surfaces.registry import Declared
from surfaces.routing import Router
from surfaces.sources.base import Interactions, Materials
from surfaces.sources.fit import fit_sources, interactions_of
from surfaces.sources.merge import Retrieval
from surfaces.spec import SurfaceSpec
from surfaces.visit import Visit


class Ordered(NamedTuple):
    """A policy, and the entry of the file that asked for it."""

    kind: PolicyKind
    policy: Policy


@dataclass(frozen=True, slots=True)
class ServedSurface:
    """A surface whose sources are fitted to the ledger; `text` is the file that declares it.

    `calibration` belongs to the weights of the engine that the surface was made ready for; None: it has none.
    """

    spec: SurfaceSpec
    form: TrunkForm
    version: str
    retrieval: Retrieval
    policies: Sequence[Ordered]
    text: str
    router: Router
    calibration: CalibratedSurface | None = None

    @property
    def brought(self) -> list[str]:
        """Items that policies want among the candidates."""
        return [item_id for each in self.policies for item_id in each.kind.brings]

    @property
    def takes_candidates(self) -> bool:
        """Whether what a caller brings is one source among others, and not the whole list."""
        return any(source.type == "request" for source in self.spec.sources)

    def after_policies(self, slate: Sequence[Entry], visit: Visit, k: int, *, whole: bool) -> list[Entry]:
        """The slate after every policy of the surface, in their order; `whole`: nothing may be dropped."""
        kept = list(slate)
        for each in self.policies:
            if not (whole and each.kind.drops):
                kept = each.policy.apply(kept, visit, k)
        return kept


def make_ready(
    declared: Declared,
    ledger: Ledger,
    engine: Engine,
    interactions: Interactions | None = None,
    calibration: CalibratedSurface | None = None,
) -> ServedSurface:
    """The surface with everything that it needs fitted to the ledger as it is now.

    Raises SpecError or ConfigError for a surface that cannot be ranked with this ledger and this model.
    """
    spec = declared.spec
    data = interactions or interactions_of(spec, ledger)
    materials = Materials(spec, data, ledger, engine)
    retrieval = fit_sources(materials)
    policies = [Ordered(kind, kind.build(materials)) for kind in spec.policies]
    router = Router.of(spec, retrieval, data.clock)
    return ServedSurface(spec, declared.form, declared.version, retrieval, policies, declared.text, router, calibration)
