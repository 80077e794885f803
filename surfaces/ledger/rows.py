"""Items and members as rows of their tables, and back; exposures have their own module."""

from __future__ import annotations

import json
from functools import lru_cache

from surfaces.ledger.records import (
    ITEM_FIELDS,
    MEMBER_FIELDS,
    Item,
    Member,
    check_name,
    dump_attributes,
    named,
    quoted,
)

Row = dict[str, object]

KEPT, KEPT_CAP = 16_384, 1_000
"""So many items with attributes of so many characters are kept as they were read: they are read again and again."""


def item_of(item_id: str, kind: str, attributes: str, member_id: str | None) -> Item:
    """The item of a row of its table."""
    return Item(item_id, kind, json.loads(attributes), member_id)


def recalled(item_id: str, kind: str, attributes: str, member_id: str | None) -> Item:
    """As `item_of`; the same row is the same object for a while."""
    return (_recalled if len(attributes) <= KEPT_CAP else item_of)(item_id, kind, attributes, member_id)


_recalled = lru_cache(maxsize=KEPT)(item_of)


def forget() -> None:
    """Drops every item that is kept."""
    _recalled.cache_clear()


def member_of(member_id: str, profile: str) -> Member:
    """The member of a row of their table."""
    return Member(member_id, json.loads(profile))


def member_row(member: Member) -> Row:
    """A member as a row. Raises LedgerError for what cannot be one."""
    name = named("member_id", check_name, member.member_id)
    return {"member_id": name, "profile": dump_attributes(member.profile, f"member {quoted(name)}", MEMBER_FIELDS)}


def item_row(item: Item) -> Row:
    """An item as a row. Raises LedgerError for what cannot be one."""
    name = named("item_id", check_name, item.item_id)
    what = f"item {quoted(name)}"
    return {
        "item_id": name,
        "kind": named(f"{what}: kind", check_name, item.kind),
        "attributes": dump_attributes(item.attributes, what, ITEM_FIELDS),
        "member_id": None if item.member_id is None else named(f"{what}: member_id", check_name, item.member_id),
    }
