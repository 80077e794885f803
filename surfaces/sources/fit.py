"""From what a surface file asks for to sources that have learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from foundation.engine.base import Engine
from foundation.wheels import cache_folder
from surfaces.filters.base import FilterKind
from surfaces.filters.seen import SeenFilter
from surfaces.kinds import kinds
from surfaces.ledger.records import Item
from surfaces.ledger.store import Ledger
from surfaces.policies.seen import SeenPolicy
from surfaces.sources.base import NOTHING, Based, Interactions, Learner, Materials, Source, SourceKind
from surfaces.sources.kept import key_of
from surfaces.sources.merge import Adviser, Fitted, Retrieval
from surfaces.sources.overall import CASES, OVERALL, Case, Overall, keep, kept, learned
from surfaces.sources.popular import Popular
from surfaces.spec import SurfaceSpec
from surfaces.visit import Visit


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


def fit_anew(before: Retrieval, materials: Materials) -> Retrieval:
    """The same sources for another model: what asks no model is taken from `before`.

    Where items came or went since, all are fitted. Raises ConfigError as `fit_sources` does.
    """
    surface = materials.surface
    if tuple(before.item_ids) != materials.data.item_ids:
        return fit_sources(materials)
    pairs = zip(surface.sources, before.sources, strict=True)
    fitted = tuple(fit_source(kind, materials) if kind.of_model else fit for kind, fit in pairs)
    vectors = materials.vectors if surface.reads_vectors else None
    told = evidence_only(materials) if any(map(_of_model, surface.evidence)) else before
    found = replace(before, sources=fitted, vectors=vectors, advisers=told.advisers)
    return replace(found, overall=told.overall, opinions=told.opinions)


def fit_to(items: Sequence[Item], surface: SurfaceSpec, ledger: Ledger, engine: Engine) -> Retrieval:
    """The surface's sources over these items alone, of which nobody has chosen any: such as a request brings.

    Raises ConfigError as `fit_sources` does.
    """
    names = tuple(item.item_id for item in items)
    data = Interactions(names, {name: place for place, name in enumerate(names)}, (), (), (), ledger.clock)
    return fit_sources(Materials(surface, data, ledger, engine).reads(items))


def fit_source(kind: SourceKind, materials: Materials) -> Fitted:
    """One source, made and fitted. Raises ConfigError as `fit_sources` does."""
    return Fitted(kind.called, _fitted(kind, materials), kind.k, kind.weight)


def _fitted(kind: SourceKind, materials: Materials) -> Source:
    source = kind.build(materials if kind.of_model else materials.without_model())
    source.fit(materials.data)
    return source


def _of_model(name: str) -> bool:
    """Whether a word of the evidence depends on the model."""
    return name != OVERALL and cast("type[SourceKind]", kinds("sources")[name]).of_model


def interactions_of(surface: SurfaceSpec, ledger: Ledger) -> Interactions:
    """What the surface's sources learn from: every choice of an item of its kind."""
    return Interactions.of(ledger, surface.item_kind, unwanted=surface.unwanted)


def evidence_only(materials: Materials) -> Retrieval:
    """A surface's evidence without its candidate sources."""
    data, last_resort = materials.data, Popular()
    last_resort.fit(data)
    learned = Retrieval(data.item_ids, data.index, (), last_resort, advisers(materials))
    together = weigh(materials, learned.advisers)
    return replace(learned, unwanted=materials.surface.unwanted, people=data.people, overall=together)


def advisers(materials: Materials) -> tuple[Adviser, ...]:
    """The sources behind a surface's evidence, fitted, in the order of their names.

    They are the sources as they come, whatever the surface's own are set to, so that their words mean the same on
    every surface; only where a source finds what it needs is the surface's to say. One that learned nothing is none of
    them: a `none` in every leaf would read as if the member were a stranger.
    """
    found = []
    for name in materials.surface.evidence:
        if name == OVERALL:
            continue
        kind = cast("type[SourceKind]", kinds("sources")[name])
        own = next((source for source in materials.surface.sources if source.type == name), None)
        where = {key: getattr(own, key) for key in kind.where} if own else {}
        source = _fitted(kind.model_validate({"type": name, "k": 1, **where}), materials)
        if not isinstance(source, Learner) or source.learned:
            based = source if isinstance(source, Based) else None
            found.append(Adviser(name, kind.label, source, kind.of_new, kind.of_history, based))
    return tuple(found)


def weigh(materials: Materials, known: Sequence[Adviser]) -> Overall | None:
    """How the advisers count together; None where the surface's evidence does not ask for it, or has none of them.

    It is learned from members' last choices, by the same sources without these: every source is fitted once more. What
    was learned is kept in the cache folder.
    """
    if OVERALL not in materials.surface.evidence or not known:
        return None
    past, names = materials.data.without_last(1), tuple(adviser.name for adviser in known)
    asked = [number for number, sequence in enumerate(past.sequences) if len(sequence)]
    if len(asked) > CASES:
        asked = sorted(np.random.default_rng(0).choice(asked, CASES, replace=False).tolist())
    if not asked:
        return learned(names, ())
    says = str(materials.surface.prompt.item.source)
    model = materials.engine.model_version if materials.engine and any(map(_of_model, names)) else ""
    about = {"names": names, "items": len(past.item_ids), "says": says, "clock": past.clock, "model": model}
    path = cache_folder() / "overall" / f"{key_of(about, materials.data.sequences)}.json"
    found = kept(path)
    if found is None:
        found = learned(names, _cases(materials, past, asked, names))
        keep(path, found)
    return found


def _cases(materials: Materials, past: Interactions, asked: Sequence[int], names: Sequence[str]) -> Iterator[Case]:
    """The last choices of some members, and what sources that did not know them said before."""
    data, early = materials.data, {adviser.name: adviser.source for adviser in advisers(materials.over(past))}
    for number in asked:
        seen_H, last = past.sequences[number], float(data.times[number][-1])
        visit = Visit(member_id=data.member_ids[number], now=last if data.clock == "time" else 0.0)
        silent_I = np.full(len(data.item_ids), NOTHING)
        said = [early[name].scores(seen_H, visit) if name in early else silent_I for name in names]
        yield Case(np.stack(said), seen_H, int(data.sequences[number][-1]))


def _filters(surface: SurfaceSpec) -> tuple[FilterKind, ...]:
    """The surface's filters. Where a policy drops what was seen, it is left out early: no place goes to waste."""
    seen = [SeenFilter(type="seen") for policy in surface.policies if isinstance(policy, SeenPolicy)]
    return (*surface.filters, *seen[:1])
