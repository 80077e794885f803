"""What a ledger holds of one kind of items, as far as somebody who writes a surface file wants to know it.

It stays quick on a large ledger: items and members are looked at up to a bound, events are counted by the database.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

from sqlalchemy import Connection, Subquery, func, select

from surfaces.authoring.columns import ColumnFacts, facts_of
from surfaces.ledger import schema
from surfaces.ledger.connection import reading
from surfaces.ledger.records import IMPRESSION, Clock, Item, Member
from surfaces.ledger.store import Ledger

ITEMS, MEMBERS, EVENTS = 5_000, 2_000, 1_000_000
"""So many items (the first by id) and members are looked at, and so many of the latest events are counted."""


@dataclass(frozen=True)
class Survey:
    """`count` items of the `kind` there are; `items` are those that were looked at.

    `actions` tells how many of the kind's events have an action, the most frequent first, impressions apart;
    `first` and `last` are the timestamps of the earliest and the latest of them. `acting` members did anything. `now`
    is the ledger's present, in seconds since 1970.
    """

    kind: str
    count: int
    items: Sequence[Item]
    columns: Mapping[str, ColumnFacts]
    profile: Mapping[str, ColumnFacts]
    actions: Mapping[str, int]
    shown: int
    acting: int
    first: float
    last: float
    clock: Clock
    now: float

    @cached_property
    def people(self) -> int:
        """How many of the items that were looked at are members."""
        return sum(item.member_id is not None for item in self.items)

    @property
    def acts(self) -> int:
        """Events that are no impressions."""
        return sum(self.actions.values())

    @property
    def span(self) -> float:
        """Seconds between the first and the last event; 0 where timestamps are no times."""
        return self.last - self.first if self.clock == "time" else 0.0

    @property
    def looked_at(self) -> str:
        """How many items what is said here rests on, in words."""
        return f"the {self.count:,} items" if len(self.items) == self.count else f"{len(self.items):,} items looked at"


def kinds_of(ledger: Ledger) -> dict[str, int]:
    """How many items of each kind there are, the most frequent kind first."""
    kind = schema.items.c.kind
    query = select(kind, func.count()).where(schema.items.c.tenant == ledger.tenant).group_by(kind)
    with reading(ledger.engine) as connection:
        rows = [(str(name), int(count)) for name, count in connection.execute(query)]
    return dict(sorted(rows, key=lambda row: (-row[1], row[0])))


def survey(ledger: Ledger, kind: str) -> Survey:
    """What the ledger holds of items of the kind; everything is empty when there are none."""
    with reading(ledger.engine) as connection:
        items = _items(connection, ledger.tenant, kind)
        profiles = _members(connection, ledger.tenant)
        events = _events(ledger.tenant, kind)
        grouped = select(events.c.action, func.count()).group_by(events.c.action)
        actions = {str(action): int(count) for action, count in connection.execute(grouped)}
        acts = select(
            func.count(func.distinct(events.c.member_id)), func.min(events.c.timestamp), func.max(events.c.timestamp)
        ).where(events.c.action != IMPRESSION)
        acting, first, last = connection.execute(acts).one()
    shown = actions.pop(IMPRESSION, 0)
    return Survey(
        kind=kind,
        count=kinds_of(ledger).get(kind, 0),
        items=items,
        columns=facts_of([item.attributes for item in items]),
        profile=facts_of([member.profile for member in profiles]),
        actions=dict(sorted(actions.items(), key=lambda pair: (-pair[1], pair[0]))),
        shown=shown,
        acting=acting,
        first=float(first or 0.0),
        last=float(last or 0.0),
        clock=ledger.clock,
        now=ledger.now or time.time(),
    )


def draw_members(ledger: Ledger, kind: str, count: int, seed: int) -> list[str]:
    """Members by lot, those who acted on items of the kind first; fewer where there are fewer, sorted."""
    events = _events(ledger.tenant, kind)
    query = select(events.c.member_id).where(events.c.action != IMPRESSION).distinct().order_by(events.c.member_id)
    with reading(ledger.engine) as connection:
        acting = [str(name) for name in connection.scalars(query)]
    lot = Random(seed)
    drawn = lot.sample(acting, min(count, len(acting)))
    if len(drawn) < count:
        others = sorted(set(ledger.member_ids()) - set(acting))
        drawn += lot.sample(others, min(count - len(drawn), len(others)))
    return sorted(drawn)


def _events(tenant: str, kind: str) -> Subquery:
    """The latest events, as far as they are with items of the kind."""
    events, items = schema.events.c, schema.items.c
    mine = select(events.member_id, events.item_id, events.action, events.timestamp).where(events.tenant == tenant)
    latest = mine.order_by(events.arrival.desc()).limit(EVENTS).subquery()
    known = select(items.item_id).where(items.tenant == tenant, items.kind == kind)
    return select(latest).where(latest.c.item_id.in_(known)).subquery()


def _items(connection: Connection, tenant: str, kind: str) -> list[Item]:
    column = schema.items.c
    query = select(column.item_id, column.kind, column.attributes, column.member_id)
    rows: Sequence[Any] = connection.execute(
        query.where(column.tenant == tenant, column.kind == kind).order_by(column.item_id).limit(ITEMS)
    ).all()
    return [Item(item_id, name, json.loads(text), person) for item_id, name, text, person in rows]


def _members(connection: Connection, tenant: str) -> list[Member]:
    column = schema.members.c
    query = select(column.member_id, column.profile).where(column.tenant == tenant)
    rows: Sequence[Any] = connection.execute(query.order_by(column.member_id).limit(MEMBERS)).all()
    return [Member(name, json.loads(text)) for name, text in rows]
