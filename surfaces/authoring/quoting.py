"""Text from outside in a YAML file: values in quotes, and what a comment shows of them."""

from __future__ import annotations

import re

from prompts.values import clean_text

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_ .,;!?()/'-]*[A-Za-z0-9_.!?)]")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off"}


def quoted(text: str) -> str:
    """The text as a YAML value on one line: as it is where nothing could be mistaken, else in double quotes."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return f'"{"".join(map(_letter, text))}"'


def word(text: str) -> str:
    """The text as a value inside {…}, where commas and spaces mean something."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) and text.lower() not in _WORDS
    return text if plain else f'"{"".join(map(_letter, text))}"'


def shown(text: str, cap: int) -> str:
    """The text as a comment may hold it: short, on one line, every character one that YAML takes."""
    cleaned = clean_text(text[: 4 * cap], cap + 1)
    short = cleaned if len(cleaned) <= cap else f"{cleaned[: cap - 1].rstrip()}…"
    return "".join(letter if letter.isprintable() else "?" for letter in short)


def _letter(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    return letter if letter.isprintable() else f"\\U{ord(letter):08x}"
