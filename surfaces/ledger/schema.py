"""The four tables of a ledger, in SQL that SQLite and PostgreSQL both speak.

Every row carries its tenant. `arrival` numbers events in the order in which they came, and so breaks ties in time.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
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
