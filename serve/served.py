"""A surface that is ready to be ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from prompts.verbalize import TrunkForm
from serve.models import ServedModel
from surfaces.calibrated import CalibratedSurface
from surfaces.ledger.records import Item
from surfaces.ledger.store import Ledger
from surfaces.policies.base import Entry, Policy, PolicyKind
from surfaces.registry import Declared
from surfaces.routing import Router
from surfaces.sources.base import Materials
from surfaces.sources.fit import fit_anew, fit_sources, fit_to, interactions_of
from surfaces.sources.merge import Retrieval
from surfaces.spec import SurfaceSpec
from surfaces.visit import Visit


class Ordered(NamedTuple):
    """A policy, and the entry of the file that asked for it."""

    kind: PolicyKind
    policy: Policy


@dataclass(frozen=True, slots=True)
class ServedSurface:
    """A surface whose sources are fitted to the ledger, ready for one model; `text` is the file that declares it.

    `calibration` belongs to the weights of the model; None: it has none.
    """

    spec: SurfaceSpec
    form: TrunkForm
    version: str
    retrieval: Retrieval
    policies: Sequence[Ordered]
    text: str
    router: Router
    model: ServedModel
    calibration: CalibratedSurface | None = None

    @property
    def deadline_s(self) -> float:
        """Seconds up to the deadline of a request that names none."""
        return self.spec.fallback.deadline_ms / 1000

    @property
    def asks_model(self) -> bool:
        """Whether the model may be asked on a visit, and is there."""
        return self.router.asks_model and not self.model.batcher.breaker.open

    @property
    def brought(self) -> list[str]:
        """Items that policies want among the candidates."""
        return [item_id for each in self.policies for item_id in each.kind.brings]

    @property
    def takes_candidates(self) -> bool:
        """Whether what a caller brings is one source among others, and not the whole list."""
        return any(source.type == "request" for source in self.spec.sources)

    def knows(self, member_id: str) -> bool:
        """Whether the member is one of the items."""
        return member_id in self.retrieval.people

    def after_policies(self, slate: Sequence[Entry], visit: Visit, k: int, *, whole: bool) -> list[Entry]:
        """The slate after every policy of the surface, in their order; `whole`: nothing may be dropped."""
        kept = list(slate)
        for each in self.policies:
            if not (whole and each.kind.drops):
                kept = each.policy.apply(kept, visit, k)
        return kept


def make_ready(
    declared: Declared, ledger: Ledger, model: ServedModel, before: ServedSurface | None = None
) -> ServedSurface:
    """The surface with everything that it needs fitted to the ledger as it is now.

    What asks no model is taken from `before`, the same surface as it was ready for another model. Raises SpecError or
    ConfigError for a surface that cannot be ranked with this ledger and this model, CheckpointError for a calibration
    that speaks of other heads.
    """
    spec = declared.spec
    calibration = model.calibrations.of(spec, declared.version) if model.calibrations else None
    materials = Materials(spec, interactions_of(spec, ledger), ledger, model.engine)
    retrieval = fit_anew(before.retrieval, materials) if before else fit_sources(materials)
    policies = [Ordered(kind, kind.build(materials)) for kind in spec.policies]
    router = Router.of(spec, retrieval, materials.data.clock)
    about = (spec, declared.form, declared.version, retrieval, policies, declared.text, router)
    return ServedSurface(*about, model, calibration)


def over(surface: ServedSurface, items: Sequence[Item], ledger: Ledger) -> ServedSurface:
    """The surface for one request that brings all there is to rank: its sources know these items and no others."""
    retrieval = fit_to(items, surface.spec, ledger, surface.model.engine)
    return replace(surface, retrieval=retrieval, router=Router.of(surface.spec, retrieval, ledger.clock))
