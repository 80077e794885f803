"""Candidates by a query over the ledger, written in the surface file or in a file beside it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from prompts.errors import ConfigError, LedgerError, SpecError
from surfaces.fields import from_file, text_schema, wrong
from surfaces.ledger.records import Item
from surfaces.sources.base import Indices, Interactions, Materials, Scores, SourceKind
from surfaces.sources.named import by_rank
from surfaces.sources.sql_run import Running, Values
from surfaces.sources.sql_text import ROWS_CAP, Query, checked
from surfaces.sources.sql_written import TENANT
from surfaces.visit import NOBODY, Visit

logger = logging.getLogger(__name__)

SPARE = 4
"""So many times more rows are read than the source may bring: filters will drop some."""
VALUE_CAP = 2_000
"""Characters of a parameter that is text."""


class Sql:
    """Brings the items that a query names, in the order of its rows. A query that fails brings nothing."""

    def __init__(self, spec: SqlSource, running: Running, tenant: str, item_kind: str) -> None:
        self._spec, self._running, self._tenant, self._item_kind = spec, running, tenant, item_kind
        self._index: dict[str, int] = {}

    def fit(self, data: Interactions) -> None:
        """Keeps which items there are."""
        self._index = data.index

    def check(self) -> None:
        """Raises LedgerError when the database refuses the query."""
        self._running.check(self.values(NOBODY))

    def named(self, visit: Visit) -> Sequence[str]:
        """Ids of items of the surface's kind, each once: those that were there in `fit`, and newer ones."""
        try:
            rows = self._running.rows(self.values(visit))
        except LedgerError as error:
            logger.warning("the source '%s' brings nothing: %s", self._spec.called, error)
            return []
        found = dict.fromkeys(row[0] for row in rows if isinstance(row[0], str))
        newer = visit.lookup([item_id for item_id in found if item_id not in self._index])
        return [item_id for item_id in found if item_id in self._index or self._is_mine(newer, item_id)]

    def _is_mine(self, items: Mapping[str, Item], item_id: str) -> bool:
        return item_id in items and items[item_id].kind == self._item_kind

    def scores(self, history_H: Indices, visit: Visit = NOBODY) -> Scores:  # noqa: ARG002 - the query says it all
        """[items]: minus the rank among the rows; `NOTHING` for every other item."""
        return by_rank(self.named(visit), self._index)

    def values(self, visit: Visit) -> Values:
        """What the query's parameters stand for; NULL for what the visit does not tell."""
        told: dict[str, str | int | float | None] = {
            "member_id": visit.member_id or None,
            "now": visit.now,
            "k": self._spec.k,
        }
        told |= {f"profile_{key}": _text(value) for key, value in visit.profile.items()}
        told |= {f"context_{key}": _text(value) for key, value in visit.context.items()}
        return {name: told.get(name) for name in self._spec.query.parameters} | {TENANT: self._tenant}


def _text(value: object) -> str | None:
    """A word, a number or true and false as the query sees it: as text, just as ->> gives it."""
    try:
        said = value if isinstance(value, str) else json.dumps(value) if isinstance(value, bool | int | float) else ""
        said.encode()
    except ValueError:  # half a character; a number of thousands of digits
        return None
    return said[:VALUE_CAP] if said and "\0" not in said else None


def _query(value: object) -> Query:
    if isinstance(value, Query):
        return value
    if not isinstance(value, str):
        raise wrong("should be a query; write SELECT item_id FROM items …, or {file: NAME.sql}")
    try:
        return checked(value)
    except SpecError as error:
        raise wrong(str(error)) from None


QueryText = Annotated[
    Query,
    PlainValidator(_query),
    BeforeValidator(from_file),
    PlainSerializer(lambda query: query.text, return_type=str),
    WithJsonSchema(text_schema("One SELECT over items, members and events; its first column is the item_id.")),
]
"""A query, checked when the file is read."""


class SqlSource(SourceKind):
    """Items that a query over the ledger names; the order of its rows is the order of candidates.

    It sees `items (item_id, kind, attributes, member_id)`, `members (member_id, profile)` and `events (member_id,
    item_id, surface, action, timestamp, value, position, propensity)`, and may use `:member_id`, `:now`, `:k`,
    `:profile_KEY` and `:context_KEY`; the last two are text. `attributes ->> 'NAME'` is text, too, and
    `CAST(attributes ->> 'NAME' AS REAL)` a number. Without a LIMIT there are spare rows for what filters drop.
    """

    type: Literal["sql"]
    query: QueryText = Field(description="One SELECT over items, members and events; its first column is the item_id.")

    def build(self, materials: Materials) -> Sql:
        """The source, its query planned once by the database. Raises ConfigError when that refuses."""
        ledger, surface = materials.ledger, materials.surface
        sql = self.query.written(ledger.engine.dialect.name, min(ROWS_CAP, SPARE * self.k))
        source = Sql(self, Running(ledger.engine, sql), ledger.tenant, surface.item_kind)
        try:
            source.check()
        except LedgerError as error:
            raise ConfigError(f"surface '{surface.surface}': the source '{self.called}': {error}") from None
        return source
