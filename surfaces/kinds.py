"""The kinds that a surface file can name by `type`: sources, filters, heads, policies.

A kind is a small pydantic model: its fields are the keys that an entry of the file may have. Shipped kinds stand in the
table below; another package adds its own through an entry point, whose name is the `type`:

    [project.entry-points."prismrank.sources"]
    nearest = "mypackage.nearest:NearestSource"

The families' bases say what a kind must do: `surfaces.sources.base.SourceKind`, `surfaces.filters.base.FilterKind`,
`surfaces.heads.base.HeadKind`, `surfaces.policies.base.PolicyKind`. Nothing is imported before a file is read.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract
from typing import Any, Literal, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from surfaces.fields import Strict

logger = logging.getLogger(__name__)

Family = Literal["sources", "filters", "heads", "policies"]
FAMILIES: tuple[Family, ...] = get_args(Family)

SHIPPED: Mapping[Family, Mapping[str, str]] = {
    "sources": {
        "popular": "surfaces.sources.popular:PopularSource",
        "co_visitation": "surfaces.sources.co_visitation:CoVisitationSource",
        "itemknn": "surfaces.sources.itemknn:ItemKnnSource",
        "ease": "surfaces.sources.ease:EaseSource",
        "als": "surfaces.sources.als:AlsSource",
        "slist": "surfaces.sources.slist:SlistSource",
        "sasrec": "surfaces.sources.sasrec:SasRecSource",
        "embedding": "surfaces.sources.embedding:EmbeddingSource",
        "bm25": "surfaces.sources.bm25:Bm25Source",
        "recent": "surfaces.sources.recent:RecentSource",
        "sql": "surfaces.sources.sql:SqlSource",
        "request": "surfaces.sources.request:RequestSource",
    },
    "filters": {
        "seen": "surfaces.filters.seen:SeenFilter",
        "available": "surfaces.filters.available:AvailableFilter",
        "blocked": "surfaces.filters.blocked:BlockedFilter",
        "where": "surfaces.filters.where:WhereFilter",
    },
    "heads": {
        "choice": "surfaces.heads.choice:ChoiceHead",
        "pointwise": "surfaces.heads.pointwise:PointwiseHead",
        "likelihood": "surfaces.heads.likelihood:LikelihoodHead",
        "value": "surfaces.heads.value:ValueHead",
        "embedding": "surfaces.heads.embedding:EmbeddingHead",
    },
    "policies": {
        "seen": "surfaces.policies.seen:SeenPolicy",
        "cap": "surfaces.policies.cap:CapPolicy",
        "diversity": "surfaces.policies.diversity:DiversityPolicy",
        "freshness": "surfaces.policies.freshness:FreshnessPolicy",
        "boost": "surfaces.policies.boost:BoostPolicy",
        "explore": "surfaces.policies.explore:ExplorePolicy",
        "pin": "surfaces.policies.pin:PinPolicy",
        "match": "surfaces.policies.match:MatchPolicy",
    },
}
"""Where each shipped kind is, by family and `type`."""


@cache
def kinds(family: Family) -> Mapping[str, type[Strict]]:
    """Every kind of the family by its `type`: the shipped ones, then those of installed packages.

    A package whose kind cannot be loaded, is none, or takes a name that is taken, is left out with a warning: what it
    offers is unknown then, and everything else works.
    """
    found = {name: _shipped(place) for name, place in SHIPPED[family].items()}
    for point in sorted(entry_points(group=f"prismrank.{family}"), key=lambda point: point.name):
        kind = _installed(point, family)
        if kind is None or point.name in found:
            reason = "is taken" if kind else "cannot be used"
            logger.warning("prismrank.%s: the kind '%s' (%s) %s", family, point.name, point.value, reason)
        else:
            found[point.name] = kind
    return found


def _shipped(place: str) -> type[Strict]:
    module, _, name = place.partition(":")
    kind: type[Strict] = getattr(import_module(module), name)
    return kind


def _installed(point: EntryPoint, family: Family) -> type[Strict] | None:
    """The kind behind an entry point; None when it is not one of the family, under its own name."""
    base = _base(family)
    try:
        kind = point.load()
        named = get_args(kind.model_fields["type"].annotation) == (point.name,)
        return kind if named and issubclass(kind, base) and not isabstract(kind) else None
    except Exception:  # another package's code: whatever it raises, the rest must work
        logger.exception("prismrank.%s: the kind '%s' (%s) cannot be loaded", family, point.name, point.value)
        return None


def _base(family: Family) -> type[Strict]:
    names = {"sources": "SourceKind", "filters": "FilterKind", "heads": "HeadKind", "policies": "PolicyKind"}
    return _shipped(f"surfaces.{family}.base:{names[family]}")


class OneOf:
    """Marks a field whose value is one of the kinds of a family; `type` says which. A word alone is its `type`."""

    def __init__(self, family: Family) -> None:
        self.family = family

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The union of the kinds, told apart by `type`."""
        choices = {name: handler.generate_schema(kind) for name, kind in kinds(self.family).items()}
        union = core_schema.tagged_union_schema(choices, discriminator="type")
        return core_schema.no_info_before_validator_function(_entry, union)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The union, or a word alone: the type of a kind that needs no other key."""
        union = handler(schema)
        short = [name for name, kind in kinds(self.family).items() if _needs_nothing(kind)]
        return {"anyOf": [union, {"enum": short}]} if short else union


def _needs_nothing(kind: type[Strict]) -> bool:
    return {name for name, field in kind.model_fields.items() if field.is_required()} == {"type"}


def _entry(value: object) -> object:
    return {"type": value} if isinstance(value, str) else value
