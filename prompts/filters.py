"""The filters, comparisons and tests of templates.

Each is total: whatever an item's data holds, it answers, so one odd item never fails the slate that it sits in.
Each is capped: none returns more than `TEXT_CAP` characters.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import Undefined, pass_context
from jinja2.runtime import Context, LoopContext

from prompts.values import ENTRIES_CAP, TEXT_CAP, as_text

LOOP_CAP = 256
"""Rounds of all loops of one rendering together."""
LOOP_FIELDS = frozenset({"index", "index0", "first", "last", "length"})
BUDGET = "_rounds"


def join(value: object, separator: object = "") -> str:
    """The entries of a list in one text."""
    entries = value if isinstance(value, list) else [value]
    return as_text(separator)[:TEXT_CAP].join(map(as_text, entries))[:TEXT_CAP]


def default(value: object, fallback: object = "") -> object:
    """`fallback` where the value is absent or empty text."""
    return fallback if _absent(value) or value == "" else value


def lower(value: object) -> str:
    """Small letters."""
    return as_text(value).lower()[:TEXT_CAP]


def upper(value: object) -> str:
    """Capital letters."""
    return as_text(value).upper()[:TEXT_CAP]


def title(value: object) -> str:
    """Every Word With A Capital."""
    return " ".join(word[:1].upper() + word[1:].lower() for word in as_text(value).split(" "))[:TEXT_CAP]


def trim(value: object) -> str:
    """Without space at its ends."""
    return as_text(value).strip()[:TEXT_CAP]


def truncate(value: object, length: object = 80) -> str:
    """At most `length` characters, cut between words where there is a gap, and marked by an ellipsis."""
    text, size = as_text(value), max(1, _whole(length, 80))
    if len(text) <= size:
        return text[:TEXT_CAP]
    cut = text[: size - 1]
    words = cut if text[size - 1] == " " else cut.rpartition(" ")[0]
    return f"{(words or cut).rstrip()}…"[:TEXT_CAP]


def rounded(value: object, digits: object = 0) -> object:
    """A number rounded to `digits` decimals; anything else as it is."""
    number = _number(value)
    return value if number is None else round(number, max(0, min(9, _whole(digits, 0))))


def whole(value: object, fallback: object = 0) -> int:
    """The value as an integer, `fallback` where it is none."""
    return _whole(value, _whole(fallback, 0))


def first(value: object) -> object:
    """The first entry of a list or letter of a text."""
    return value[0] if isinstance(value, list | str) and value else ""


def last(value: object) -> object:
    """The last entry of a list or letter of a text."""
    return value[-1] if isinstance(value, list | str) and value else ""


def length(value: object) -> int:
    """Entries of a list or letters of a text."""
    return len(value) if isinstance(value, list | str | dict) else 0


def replace(value: object, old: object, new: object = "") -> str:
    """Every `old` replaced by `new`."""
    text, before, after = as_text(value)[:TEXT_CAP], as_text(old), as_text(new)[:TEXT_CAP]
    if not before:
        return text
    return text.replace(before, after, TEXT_CAP // max(1, len(after)) + 1)[:TEXT_CAP]


FILTERS: dict[str, Callable[..., object]] = {
    "join": join,
    "default": default,
    "lower": lower,
    "upper": upper,
    "title": title,
    "trim": trim,
    "truncate": truncate,
    "round": rounded,
    "int": whole,
    "first": first,
    "last": last,
    "length": length,
    "replace": replace,
}
"""What a template may write after `|`."""


TESTS: dict[str, Callable[[Any], bool]] = {
    "defined": lambda value: not _absent(value),
    "undefined": lambda value: _absent(value),
    "none": lambda value: _absent(value),
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float),
}
"""What a template may write after `is`."""


def item(value: object, key: object) -> object:
    """`value.key` or `value[key]`: entries of mappings and lists, never an attribute of an object."""
    if isinstance(value, dict):
        return value.get(key, Undefined()) if isinstance(key, str) else Undefined()
    if isinstance(value, LoopContext) and isinstance(key, str) and key in LOOP_FIELDS:
        return getattr(value, key)
    if isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value):
        return value[key]
    return Undefined()


def part(value: object, start: object, stop: object) -> object:
    """`value[start:stop]` of a list or a text."""
    if not isinstance(value, list | str):
        return Undefined()
    return value[start if isinstance(start, int) else None : stop if isinstance(stop, int) else None]


def concat(value: object, *more: object) -> str:
    """`a ~ b`."""
    return "".join(map(as_text, (value, *more)))[:TEXT_CAP]


_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
}


def compare(value: object, order: str, other: object) -> bool:
    """A comparison that is false where the two cannot be compared."""
    left, right = (None if _absent(side) else side for side in (value, other))
    if order in {"eq", "ne"}:
        return (left == right) == (order == "eq")
    if order in {"in", "notin"}:
        return _contains(right, left) == (order == "in")
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    texts = isinstance(left, str) and isinstance(right, str)
    return _ORDERS[order](left, right) if numbers or texts else False


@pass_context
def each(context: Context, value: object) -> Iterator[object]:
    """The entries that a loop walks over, until this rendering has used up its rounds."""
    rounds: list[int] = context[BUDGET]
    for entry in value[:ENTRIES_CAP] if isinstance(value, list) else ():
        if rounds[0] <= 0:
            return
        rounds[0] -= 1
        yield entry


INTERNAL: dict[str, Callable[..., object]] = {
    "_item": item,
    "_part": part,
    "_concat": concat,
    "_compare": compare,
    "_each": each,
}
"""What the rewritten syntax tree calls; no template can name them."""


def _absent(value: object) -> bool:
    return value is None or isinstance(value, Undefined)


def _contains(container: object, value: object) -> bool:
    if isinstance(container, str):
        return isinstance(value, str) and value in container
    return isinstance(container, list | dict) and not isinstance(value, list | dict) and value in container


def _number(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float | str) else float("nan")
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e15 else None


def _whole(value: object, fallback: int) -> int:
    number = _number(value)
    return fallback if number is None else int(number)
