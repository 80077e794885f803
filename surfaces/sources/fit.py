"""From what a surface file asks for to sources that have learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from foundation.engine.base import Engine
from prompts.errors import ConfigError
from surfaces.compose import leaf_piece
from surfaces.happenings import attributes_of
from surfaces.ledger.store import Ledger
from surfaces.sources.base import Interactions, Source
from surfaces.sources.co_visitation import CoVisitation
from surfaces.sources.embedding import Embedding
from surfaces.sources.merge import Fitted, Retrieval
from surfaces.sources.popular import Popular
from surfaces.spec import CoVisitationSource, PopularSource, SourceSpec, SurfaceSpec


def fit_sources(surface: SurfaceSpec, data: Interactions, ledger: Ledger, engine: Engine | None) -> Retrieval:
    """The surface's sources, fitted to `data` (`Interactions.of(ledger, surface.item_kind)`, or an earlier part of it).

    Raises ConfigError for a source that the ledger's clock or an absent engine rules out.
    """
    fitted = []
    for spec in surface.sources:
        source = _build(spec, surface, data, ledger, engine)
        source.fit(data)
        fitted.append(Fitted(source, spec.k))
    return replace(evidence_only(surface, data), sources=tuple(fitted))


def evidence_only(surface: SurfaceSpec, data: Interactions) -> Retrieval:
    """A surface's evidence without its candidate sources, fitted to `data`."""
    last_resort = Popular()
    last_resort.fit(data)
    return Retrieval(data.item_ids, data.index, (), last_resort, advisers(surface.evidence, data))


def advisers(names: Sequence[str], data: Interactions) -> tuple[Source, ...]:
    """The sources behind a surface's evidence, fitted to `data`, in the order of their names.

    They are the sources as they come, whatever the surface's own are set to, so that their words mean the same on
    every surface.
    """
    found: list[Source] = [Popular() if name == "popular" else CoVisitation() for name in names]
    for source in found:
        source.fit(data)
    return tuple(found)


def _build(spec: SourceSpec, surface: SurfaceSpec, data: Interactions, ledger: Ledger, engine: Engine | None) -> Source:
    if isinstance(spec, PopularSource):
        return Popular(spec.half_life)
    if isinstance(spec, CoVisitationSource):
        return CoVisitation()
    if engine is None:
        raise ConfigError(f"surface '{surface.surface}': the source 'embedding' needs a model; name one")
    items = ledger.items(data.item_ids)
    texts = [leaf_piece(surface, attributes_of(item)).text for item in items.values()]
    return Embedding(engine.embed, texts)
