"""Points in time as attributes of items hold them."""

from __future__ import annotations

import math
from datetime import UTC, datetime

LONGEST = 64
"""Characters of a time that is text."""


def moment(value: object) -> float | None:
    """Seconds since 1970 from a number or ISO 8601 text, as a ledger folder has them; None for anything else.

    A time without a zone is UTC. It never raises.
    """
    if isinstance(value, str) and len(value) <= LONGEST:
        value = _from_text(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def _from_text(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
