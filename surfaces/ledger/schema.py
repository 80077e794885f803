"""The tables of a ledger, in SQL that SQLite and PostgreSQL both speak.

Every row carries its tenant. `arrival` numbers a member's events in the order in which they came, and so breaks
ties in time.
Rows of an import that is under way stand in tables of their own, which no other part of the ledger reads.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

# The order of ids must not depend on the locale of a database: by code point, as SQLite and Python have it.
_NAME = Text().with_variant(Text(collation="C"), "postgresql")

metadata = MetaData()

settings = Table(
    "prismrank_settings",
    metadata,
    Column("tenant", _NAME, nullable=False),
    Column("name", _NAME, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "name"),
)

members = Table(
    "prismrank_members",
    metadata,
    Column("tenant", _NAME, nullable=False),
    Column("member_id", _NAME, nullable=False),
    Column("profile", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "member_id"),
)

items = Table(
    "prismrank_items",
    metadata,
    Column("tenant", _NAME, nullable=False),
    Column("item_id", _NAME, nullable=False),
    Column("kind", _NAME, nullable=False),
    Column("attributes", Text, nullable=False),
    Column("member_id", _NAME),
    PrimaryKeyConstraint("tenant", "item_id"),
    ForeignKeyConstraint(["tenant", "member_id"], ["prismrank_members.tenant", "prismrank_members.member_id"]),
    Index("prismrank_items_by_kind", "tenant", "kind", "item_id"),
)

events = Table(
    "prismrank_events",
    metadata,
    Column("arrival", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("tenant", _NAME, nullable=False),
    Column("event_id", _NAME, nullable=False),
    Column("member_id", _NAME, nullable=False),
    Column("item_id", _NAME, nullable=False),
    Column("surface", _NAME, nullable=False),
    Column("action", _NAME, nullable=False),
    Column("timestamp", Double, nullable=False),
    Column("value", Double),
    Column("position", Integer),
    Column("propensity", Double),
    UniqueConstraint("tenant", "event_id"),
    ForeignKeyConstraint(["tenant", "member_id"], ["prismrank_members.tenant", "prismrank_members.member_id"]),
    ForeignKeyConstraint(["tenant", "item_id"], ["prismrank_items.tenant", "prismrank_items.item_id"]),
    Index("prismrank_events_by_member", "tenant", "member_id", "timestamp", "arrival"),
)

exposures = Table(
    "prismrank_exposures",
    metadata,
    Column("tenant", _NAME, nullable=False),
    Column("exposure_id", _NAME, nullable=False),
    Column("member_id", _NAME, nullable=False),
    Column("surface", _NAME, nullable=False),
    Column("experiment", _NAME, nullable=False),
    Column("kind", _NAME, nullable=False),
    Column("arm", _NAME),
    Column("degraded", Boolean, nullable=False),
    Column("timestamp", Double, nullable=False),
    Column("slate", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "exposure_id"),
    Index("prismrank_exposures_by_experiment", "tenant", "experiment", "timestamp", "exposure_id"),
)
"""Slates that members got in experiments. A caller's candidates need not be the ledger's, so no id is bound."""

imports = Table(
    "prismrank_imports",
    metadata,
    Column("tenant", _NAME, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("owner", Text, nullable=False),
    PrimaryKeyConstraint("tenant"),
)
"""The import that is under way: what it brings, and which process may write its rows."""


def _staged(table: Table, *more: Column[Any]) -> Table:
    """Rows of an import on their way to `table`, numbered as in the file, and bound by no constraint yet."""
    own = [Column(column.name, column.type) for column in table.c if column.name not in ("tenant", "arrival")]
    return Table(
        table.name.replace("prismrank_", "prismrank_staged_"),
        metadata,
        Column("tenant", _NAME, nullable=False),
        Column("number", BigInteger, nullable=False),
        *own,
        *more,
        PrimaryKeyConstraint("tenant", "number"),
        sqlite_with_rowid=False,
    )


staged_items = _staged(items)
staged_members = _staged(members)
staged_events = _staged(
    events,
    Column("named", Integer, nullable=False),  # 1: the event came with its id; 0: the id is a hash of its content
    Column("content", Text),  # what is hashed, where the columns do not keep every bit of it
    Column("occurrence", Integer, nullable=False),
    Column("draw", BigInteger, nullable=False),  # the order of events of the same time
)
