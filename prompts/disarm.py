"""What a stranger's text loses before the model reads it, though each letter of it may be seen.

A word that is said over and over counts no more often than an honest text would say it, and markup is dropped: no
prompt has any, so that a tag can only be there to look like the structure of one. A text with neither stays as it is.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from functools import lru_cache

IN_A_ROW, PHRASE = 3, 4
"""A word, or a phrase of up to four, is said three times in a row at most."""
SHORT = 3
"""Words of so few letters may be said any number of times otherwise."""
OFTEN, SHARE = 5, 15
"""A longer word is said five times at most, in a long line as often as one word in fifteen."""

KEPT, KEPT_CAP = 16_384, 512
"""So many texts of so many characters are kept: an item is told again and again."""

_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,40}>|<<?/?[A-Z]{2,12}>>?|<\|[^<>|\n]{1,40}\|>|\[/?INST\]")
_SPACES = re.compile(" {2,}")
_MARKS = string.punctuation + "–—…·•“”„‘’«»¡¿"


def disarmed(text: str) -> str:
    """The text without markup, and without words that are said too often; its lines stay."""
    return _recalled(text) if len(text) <= KEPT_CAP else _disarmed(text)


def forget() -> None:
    """Drops every text that is kept."""
    _recalled.cache_clear()


@lru_cache(maxsize=KEPT)
def _recalled(text: str) -> str:
    return _disarmed(text)


def _disarmed(text: str) -> str:
    if "<" in text or "[" in text:
        text = _SPACES.sub(" ", _TAG.sub("", text)).strip()
    return "\n".join(map(_measured, text.split("\n")))


def _measured(line: str) -> str:
    bare = [word.strip(_MARKS) for word in line.lower().split(" ")]
    if len(set(bare)) + IN_A_ROW > len(bare):  # nothing can be said a fourth time
        return line
    return " ".join(word for word, echo in zip(line.split(" "), _echoes(bare), strict=True) if not echo)


def _echoes(words: list[str]) -> list[bool]:
    """Of each word whether it was said too often before; marks without a letter never are."""
    most, said = max(OFTEN, len(words) // SHARE), Counter[str]()
    runs, found = [0] * (PHRASE + 1), list[bool]()
    for place, word in enumerate(words):
        said[word] += 1
        for size in range(1, PHRASE + 1):
            runs[size] = runs[size] + 1 if place >= size and words[place - size] == word else 0
        again = any(runs[size] > (IN_A_ROW - 1) * size for size in range(1, PHRASE + 1))
        found.append(bool(word) and (again or (len(word) > SHORT and said[word] > most)))
    return found
