"""What a template may see of an item, a member or a request: plain values, short, on one line.

Text from outside is data. Line breaks and invisible characters would let it fake the structure of a prompt, so they
become spaces, and letters in disguise plain ones; `None`, NaN and infinity count as absent.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from itertools import islice
from typing import TypeAlias

Value: TypeAlias = "str | int | float | list[Value] | dict[str, Value]"

TEXT_CAP = 2_000
"""Characters of one text."""
ENTRIES_CAP = 64
"""Entries of one list or mapping."""
DEPTH_CAP = 4

# Controls, lone surrogates, zero-width and direction marks, fillers, tag characters and variation selectors: no page
# shows them, but a model reads them.
_UNSEEN = re.compile(
    "[\\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u2069\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e01ef]+"
)
# Letters and digits as symbols: wide ones, those of mathematics, those in circles and squares.
_STYLED = re.compile("[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\u24b6-\u24e9\U0001d400-\U0001d7ff\U0001f130-\U0001f149]")
_STRUCK = re.compile("[\u0334-\u0338]+")  # strokes through letters
_LETTER = "[0-9A-Za-z\u00c0-\u024f\u0370-\u03ff\u0400-\u04ff]"
_JOINER = "[\u200c\u200d\ufe0e\ufe0f]"
_JOINERS = re.compile(f"{_JOINER}(?<={_LETTER}{_JOINER}){_JOINER}*(?={_LETTER})")  # between letters that need none
_OTHER = re.compile("[\u0370-\u03ff\u0400-\u052f]")
_MIXED = re.compile("[A-Za-z\u0370-\u03ff\u0400-\u052f]+")
_ALIKE = str.maketrans("аеорсухіјѕһԁԛԝАВЕКМНОРСТХІЈЅαοΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "aeopcyxijshdqwABEKMHOPCTXIJSaoABEZHIKMNOPTYX")
"""Cyrillic and Greek letters that look like Latin ones."""


def clean_text(text: str, cap: int = TEXT_CAP) -> str:
    """One line of at most `cap` visible characters; costs no more for a text of many megabytes.

    Letters that are styled, struck through or parted by joiners are plain letters, and so are those of another alphabet
    in a Latin word that look like Latin ones.
    """
    text = text[: 4 * cap]
    if not text.isascii():
        text = _plain(text)
    return _UNSEEN.sub(" ", text).strip()[:cap].rstrip()


def _plain(text: str) -> str:
    text = _STYLED.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    text = _JOINERS.sub("", _STRUCK.sub("", text))
    return _MIXED.sub(_one_alphabet, text) if _OTHER.search(text) else text


def _one_alphabet(found: re.Match[str]) -> str:
    """The word in Latin letters, where some are and all others look like some."""
    word = found[0]
    latin = word.translate(_ALIKE)
    return latin if latin.isascii() and any(letter.isascii() for letter in word) else word


def clean(value: object, depth: int = DEPTH_CAP) -> Value | None:
    """The value as templates see it; None where there is nothing to see. Never raises."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, int):
        return int(value) if abs(value) < 1 << 63 else None
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, bytes | bytearray) or value is None or depth == 0:
        return None
    if isinstance(value, Mapping):
        return _clean_mapping(value, depth - 1)
    if isinstance(value, list | tuple):
        found = (clean(entry, depth - 1) for entry in value[:ENTRIES_CAP])
        return [entry for entry in found if entry is not None]
    return clean_text(str(value))


def _clean_mapping(value: Mapping[object, object], depth: int) -> dict[str, Value]:
    found = ((clean_text(str(key)), clean(entry, depth)) for key, entry in islice(value.items(), ENTRIES_CAP))
    return {key: entry for key, entry in found if entry is not None}


def as_text(value: object) -> str:
    """How a template prints a value: a whole float as an integer, a list with commas, the absent as nothing."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list):
        return ", ".join(map(as_text, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {as_text(entry)}" for key, entry in value.items())
    return ""


def _number(value: float) -> str:
    if not math.isfinite(value):
        return ""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else str(value)
