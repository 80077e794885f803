"""What is asked of a ledger again and again.

Queries are put together once: that takes longer than the reading, and leaves hundreds of objects that hold each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BindParameter,
    Column,
    ColumnElement,
    Select,
    Text,
    any_,
    bindparam,
    func,
    literal,
    select,
    true,
    type_coerce,
)

from surfaces.ledger import schema
from surfaces.ledger.records import Event

ITEM = tuple(schema.items.c[name] for name in ("item_id", "kind", "attributes", "member_id"))
MEMBER = (schema.members.c.member_id, schema.members.c.profile)
EVENT = tuple(schema.events.c[field] for field in Event._fields)
RANKED = (*EVENT[:-1], schema.events.c.arrival)
"""An event's fields without its id, and its arrival."""
ITEMS, ERASED = "items", "erased"
"""Settings that hold a version: a write to the items changes the one, and erasing both."""

_Query = Select[*tuple[Any, ...]]


class Asked:
    """One tenant's queries; `postgres`: for PostgreSQL, and not for SQLite."""

    def __init__(self, tenant: str, *, postgres: bool) -> None:
        self._tenant = tenant
        item, member, event = schema.items.c, schema.members.c, schema.events.c
        one: BindParameter[str] = bindparam("member_id")
        latest = (event.timestamp.desc(), event.arrival.desc())
        newest: BindParameter[int] = bindparam("newest")
        self.items: _Query = select(*ITEM).where(
            item.tenant == tenant, among(item.item_id, bindparam("ids"), postgres=postgres)
        )
        """By `ids`, which are `listed`."""
        self.member: _Query = select(*MEMBER).where(member.tenant == tenant, member.member_id == one)
        """By `member_id`, as all that follow."""
        theirs = (event.tenant == tenant, event.member_id == one)
        self.timeline: _Query = select(*EVENT).where(*theirs).order_by(*latest).limit(newest)
        """The `newest` events, newest first."""
        self.ranked: _Query = select(*RANKED).where(*theirs).order_by(*latest).limit(newest)
        """The same, as rankings read them."""
        self.later: _Query = (
            select(*RANKED).where(*theirs, event.arrival > bindparam("arrival")).order_by(event.arrival)
        )
        """Events that came after an `arrival`, as they came."""
        told = select(func.count().label("count"), func.max(event.arrival).label("latest")).where(*theirs).subquery()
        versions = (self.setting(name).scalar_subquery() for name in (ITEMS, ERASED))
        visitor = select(member.profile, *versions, told.c.count, told.c.latest)
        visitor = visitor.select_from(schema.members.join(told, true()))
        self.visitor: _Query = visitor.where(member.tenant == tenant, member.member_id == one)
        """A member's profile, the version of the items, and the parts of the `Stamp` of their timeline."""
        self.known: Mapping[Column[str], _Query] = {
            column: self._by_ids(column, postgres=postgres)
            for column in (member.member_id, item.item_id, event.event_id)
        }
        """Those of `ids` that a column has."""
        self.version = self.setting(ITEMS)
        """The version of the items."""

    def _by_ids(self, column: Column[str], *, postgres: bool) -> _Query:
        asked = among(column, bindparam("ids"), postgres=postgres)
        return select(column).where(column.table.c.tenant == self._tenant, asked)

    def setting(self, name: str) -> Select[Any]:
        """The value of a setting."""
        column = schema.settings.c
        return select(column.value).where(column.tenant == self._tenant, column.name == name)


def among(column: Column[str], ids: BindParameter[Any] | Sequence[str], *, postgres: bool) -> ColumnElement[bool]:
    """Whether the column has one of the ids, which are one parameter: a list of hundreds is slow."""
    found = ids if isinstance(ids, BindParameter) else literal(listed(ids, postgres=postgres))
    if postgres:
        return column == any_(type_coerce(found, ARRAY(Text())))
    return column.in_(select(func.json_each(found).table_valued("value").c.value))


def listed(ids: Sequence[str], *, postgres: bool) -> Any:
    """The ids as one parameter."""
    return list(ids) if postgres else json.dumps(ids)
