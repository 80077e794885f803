"""What a surface's stem may read of a request: its context, and the time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from surfaces.ledger.records import EARLIEST, LATEST

PARTS_OF_DAY = ((5, "night"), (12, "morning"), (18, "afternoon"), (24, "evening"))
"""Each part of a day by the hour at which it ends."""


def told(context: Mapping[str, object], now: float) -> dict[str, object]:
    """The context with `now` as templates read it.

    A request may bring a `now` of its own, in seconds since 1970 or ISO 8601: then that is its time.
    """
    return {**context, "now": clock(moment(context, now))}


def moment(context: Mapping[str, object], now: float) -> float:
    """The time of a request in seconds since 1970: what its context says, or when it came."""
    said = context.get("now")
    try:
        if isinstance(said, str):
            asked = datetime.fromisoformat(said)
            return (asked if asked.tzinfo else asked.replace(tzinfo=UTC)).timestamp()
        if isinstance(said, int | float) and not isinstance(said, bool) and EARLIEST <= said <= LATEST:
            return float(said)
    except (ValueError, OverflowError):
        pass
    return now


def clock(seconds: float) -> dict[str, object]:
    """A time (UTC) in words: coarse ones first, since a stem that changes with the minute is never found in a cache."""
    at = datetime.fromtimestamp(min(max(seconds, EARLIEST + 86_400), LATEST), UTC)
    part = next(name for end, name in PARTS_OF_DAY if at.hour < end)
    return {
        "part": part,
        "weekday": at.strftime("%A"),
        "month": at.strftime("%B"),
        "date": at.strftime("%Y-%m-%d"),
        "hour": at.hour,
        "time": at.strftime("%H:%M"),
    }
