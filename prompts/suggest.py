"""What the person probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

LISTED = 20


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is nearest to `word`, when one is near."""
    return next(iter(get_close_matches(word[:80], sorted(set(known)), n=1, cutoff=0.6)), None)


def suggest(word: str, known: Iterable[str]) -> str:
    """The end of an error message: "; did you mean 'type'?", or "; known: a, b", or nothing when nothing is known."""
    options = sorted(set(known))
    close = closest(word, options)
    if close is not None:
        return f"; did you mean '{close}'?"
    if not options:
        return ""
    more = f" and {len(options) - LISTED} more" if len(options) > LISTED else ""
    return f"; known: {', '.join(options[:LISTED])}{more}"
