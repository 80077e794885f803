"""What a draft switches on, and what it offers as a comment: sources, filters, policies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from surfaces.authoring.columns import ColumnFacts
from surfaces.authoring.quoting import word
from surfaces.authoring.survey import Survey
from surfaces.authoring.wording import texts
from surfaces.filters.available import AvailableFilter
from surfaces.visit import Visit

ENOUGH = 50
"""Events from which on what is chosen together says something."""
DAY = 86_400
HALF_LIVES = (90, 30, 14, 7, 3, 1)
"""Days; a draft takes the first that is at most a quarter of the time that the events span."""

_NUMBER = re.compile(r"\d{1,15}(\.\d{1,6})?")
_OWNERS = (
    "company", "brand", "author", "artist", "seller", "shop", "store", "publisher", "creator", "channel", "advertiser",
    "director", "employer", "maker", "vendor", "manufacturer", "owner",
)  # fmt: skip
_POSTED = ("posted_at", "published_at", "created_at", "added_at", "released_at", "release_date", "date", "timestamp")
_START = ("available_from", "starts_at", "start_date", "valid_from")
_UNTIL = ("expires_at", "expires", "valid_until", "ends_at", "end_date", "closes_at", "deadline", "available_until")
_FLAG = ("available", "in_stock", "active", "is_active", "enabled", "published", "is_available")
_STOCK = ("stock", "quantity", "inventory", "stock_quantity")


class Option(NamedTuple):
    """An entry of a list in the file, and what it does; one that is not `chosen` stands there as a comment."""

    entry: str
    note: str
    chosen: bool = True


class Offer(NamedTuple):
    """The entries of a draft. `sources` names those that are chosen, in the order of the fallback."""

    sources: list[Option]
    filters: list[Option]
    policies: list[Option]

    @property
    def order(self) -> list[str]:
        """The chosen sources by type."""
        return [option.entry.removeprefix("{type: ").partition(",")[0] for option in self.sources if option.chosen]


def offer(found: Survey) -> Offer:
    """What fits the ledger."""
    return Offer(list(_sources(found)), list(_filters(found)), list(_policies(found)))


def half_life(found: Survey) -> str | None:
    """How fast popularity should fade, where the events span long enough to say."""
    days = found.span / DAY
    return next((f"{life}d" for life in HALF_LIVES if life <= days / 4), None)


def _sources(found: Survey) -> Iterator[Option]:
    together = found.acts >= ENOUGH and found.acting >= 2 and found.acts >= 2 * found.acting
    why = "" if together else f" (needs more events than {found.acts:,})"
    yield Option("{type: co_visitation, k: 100}", f"what members with a similar timeline chose{why}", together)
    words = "items that share words with the query, or with what was chosen"
    yield Option("{type: bm25, k: 60}", words, texts(found.columns))
    life = half_life(found)
    fading = f", half_life: {life}" if life else ""
    yield Option(f"{{type: popular, k: 40{fading}}}", "the items with most events" + (", lately" if life else ""))
    posted = _column(found, _POSTED, lambda facts: facts.type == "time") or _any_time(found)
    by = posted or (None if found.clock == "time" else "posted_at")
    newest = f"{{type: recent, k: 40{f', by: {word(by)}' if by else ''}}}"
    yield Option(newest, f"the newest items, by {'an attribute' if by else 'their first event'}", bool(posted))
    yield Option("{type: embedding, k: 50}", "items whose text is like that of what the member chose", False)
    yield Option("{type: request, k: 200}", "the candidates that a request brings, among the others", False)


def _filters(found: Survey) -> Iterator[Option]:
    yield Option("{type: seen}", "nothing that the member acted on (lately: within: 30d)")
    entry = _available(found)
    open_now = entry is not None and _open(entry, found)
    if entry is not None:
        why = "only what can be had now" + ("" if open_now else " (by now, that is none of the items)")
        yield Option(_entry(entry), why, open_now)
    else:
        yield Option("{type: available, until: expires_at}", "only what can be had now, by an attribute", False)
    owner = _column(found, _OWNERS, _counts)
    hides = [action for action in found.actions if action in {"hide", "block", "report", "mute"}]
    by = f", by: {word(owner)}" if owner else ""
    blocked = f"{{type: blocked, actions: [{', '.join(hides) or 'hide'}]{by}}}"
    yield Option(blocked, "nothing that the member hid" + (", nor its like" if by else ""), bool(hides and owner))
    yield Option(f"{{type: where, keep: {_condition(found)}}}", "only items of which this holds", False)


def _policies(found: Survey) -> Iterator[Option]:
    owner = _column(found, _OWNERS, _counts)
    yield Option(f"{{type: cap, by: {word(owner or 'company')}, max: 2}}", "at most two of the same", bool(owner))
    posted = _column(found, _POSTED, lambda facts: facts.type == "time") or _any_time(found)
    fresh = f"{{type: freshness, by: {word(posted or 'posted_at')}, half_life: 3d, strength: 0.2}}"
    yield Option(fresh, "new items come up", False)
    yield Option(
        "{type: diversity, strength: 0.2}", "nothing over and over; the model makes vectors of all items", False
    )
    yield Option(f"{{type: boost, where: {_condition(found)}, strength: 0.1}}", "a little more of this", False)
    yield Option("{type: explore, rate: 0.05}", "one place in twenty by lot: a chance for new items", False)


def _column(found: Survey, names: tuple[str, ...], fits: Callable[[ColumnFacts], bool]) -> str | None:
    """The first of the names that is a column of the right sort, with or without an _id or _name behind it."""
    endings = ("", "_id", "_name")
    return next(
        (
            f"{name}{end}"
            for name in names
            for end in endings
            if (one := found.columns.get(f"{name}{end}")) and fits(one)
        ),
        None,
    )


def _condition(found: Survey) -> str:
    """A condition over a number that items have, in quotes."""
    for facts in found.columns.values():
        if facts.type == "number" and facts.readable and not facts.reference and _NUMBER.fullmatch(facts.examples[0]):
            return f'"item.{facts.name} >= {facts.examples[0]}"'
    return '"item.price < 100"'


def _counts(facts: ColumnFacts) -> bool:
    return facts.repeated and facts.share >= 0.3 and facts.type in {"text", "number"}


def _any_time(found: Survey) -> str | None:
    taken = {*_START, *_UNTIL}
    times = (facts.name for facts in found.columns.values() if facts.type == "time" and facts.share >= 0.3)
    return next((name for name in times if name not in taken), None)


def _available(found: Survey) -> dict[str, str] | None:
    """The columns that say whether an item can be had, by the filter's keys."""
    flag = _column(found, _FLAG, lambda facts: facts.type == "flag")
    start = _column(found, _START, lambda facts: facts.type == "time")
    until = _column(found, _UNTIL, lambda facts: facts.type == "time")
    stock = _column(found, _STOCK, lambda facts: facts.type == "number")
    named = {"flag": flag, "from": start, "until": until, "stock": stock}
    return {key: name for key, name in named.items() if name} or None


def _open(columns: dict[str, str], found: Survey) -> bool:
    """Whether the filter leaves anything of the items that were looked at."""
    test = AvailableFilter.model_validate({"type": "available", **columns}).test(Visit(now=found.now))
    return any(test(item) for item in found.items)


def _entry(columns: dict[str, str]) -> str:
    keys = ", ".join(f"{key}: {word(name)}" for key, name in columns.items())
    return f"{{type: available, {keys}}}"
