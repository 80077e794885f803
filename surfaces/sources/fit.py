"""From what a surface file asks for to sources that have learned."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from surfaces.filters.base import FilterKind
from surfaces.filters.seen import SeenFilter
from surfaces.kinds import kinds
from surfaces.ledger.store import Ledger
from surfaces.policies.seen import SeenPolicy
from surfaces.sources.base import Interactions, Learner, Materials, SourceKind
from surfaces.sources.merge import Adviser, Fitted, Retrieval
from surfaces.sources.popular import Popular
from surfaces.spec import SurfaceSpec


def fit_sources(materials: Materials) -> Retrieval:
    """The surface's sources, made of the materials and fitted to its interactions.

    Raises ConfigError for what the ledger's clock or an absent model rules out.
    """
    surface = materials.surface
    for each in surface.filters:
        each.check(materials.data.clock)
    fitted = tuple(fit_source(kind, materials) for kind in surface.sources)
    vectors = materials.vectors if surface.reads_vectors else None
    return replace(evidence_only(materials), sources=fitted, filters=_filters(surface), vectors=vectors)


def fit_source(kind: SourceKind, materials: Materials) -> Fitted:
    """One source, made and fitted. Raises ConfigError as `fit_sources` does."""
    source = kind.build(materials)
    source.fit(materials.data)
    return Fitted(kind.called, source, kind.k, kind.weight)


def interactions_of(surface: SurfaceSpec, ledger: Ledger) -> Interactions:
    """What the surface's sources learn from: every choice of an item of its kind."""
    return Interactions.of(ledger, surface.item_kind, unwanted=surface.unwanted)


def evidence_only(materials: Materials) -> Retrieval:
    """A surface's evidence without its candidate sources."""
    data, last_resort = materials.data, Popular()
    last_resort.fit(data)
    learned = Retrieval(data.item_ids, data.index, (), last_resort, advisers(materials))
    return replace(learned, unwanted=materials.surface.unwanted, people=data.people)


def advisers(materials: Materials) -> tuple[Adviser, ...]:
    """The sources behind a surface's evidence, fitted, in the order of their names.

    They are the sources as they come, whatever the surface's own are set to, so that their words mean the same on
    every surface; only where a source finds what it needs is the surface's to say. One that learned nothing is none of
    them: a `none` in every leaf would read as if the member were a stranger.
    """
    found = []
    for name in materials.surface.evidence:
        kind = cast("type[SourceKind]", kinds("sources")[name])
        own = next((source for source in materials.surface.sources if source.type == name), None)
        where = {key: getattr(own, key) for key in kind.where} if own else {}
        source = kind.model_validate({"type": name, "k": 1, **where}).build(materials)
        source.fit(materials.data)
        if not isinstance(source, Learner) or source.learned:
            found.append(Adviser(name, kind.label, source))
    return tuple(found)


def _filters(surface: SurfaceSpec) -> tuple[FilterKind, ...]:
    """The surface's filters. Where a policy drops what was seen, it is left out early: no place goes to waste."""
    seen = [SeenFilter(type="seen") for policy in surface.policies if isinstance(policy, SeenPolicy)]
    return (*surface.filters, *seen[:1])
