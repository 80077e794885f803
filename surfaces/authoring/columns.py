"""What the attributes of items (or the profiles of members) hold: how often, of which type, for example what."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from keyword import iskeyword
from typing import Literal, TypeAlias

from prompts.errors import TemplateError
from prompts.render import compile_template
from prompts.values import as_text, clean
from surfaces.authoring.quoting import shown
from surfaces.context import clock
from surfaces.moments import moment

Type: TypeAlias = Literal["text", "list", "number", "flag", "time", "mapping"]

EXAMPLES = 3
EXAMPLE_CAP = 32
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?")
_WHEN = re.compile(r"(_at|_on|date|time|stamp|until|expires|deadline)$")
_LINK = re.compile(r"(https?:)?//|data:|www\.")
_ID = re.compile(r"(^|_)(id|ids|uuid|guid|sku|isbn|ean|hash|slug|url|uri|link|image|img|photo|thumbnail|email|phone)$")
SECONDS = (1e8, 4.2e9)
"""A number under the name of a time lies between these: the years 1973 to 2103."""


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """Of `total` things, `filled` have the column. `type` is what most of its values are.

    `length` is the mean number of characters as a template prints the values, `distinct` how many values differ.
    """

    name: str
    type: Type
    filled: int
    total: int
    length: float
    distinct: int
    entries: float
    examples: tuple[str, ...]
    link: bool

    @property
    def share(self) -> float:
        """How much of all things have it."""
        return self.filled / self.total if self.total else 0.0

    @property
    def readable(self) -> bool:
        """Whether a template can name it: its name is a word, and none of the template language."""
        try:
            names = compile_template(f"{{{{ '-' ~ {self.name} if {self.name} }}}}", where="").names
            return names == {self.name} and not iskeyword(self.name)
        except TemplateError:
            return False

    @property
    def reference(self) -> bool:
        """Whether it says nothing to a reader: an id, a link."""
        return self.link or bool(_ID.search(self.name.lower()))

    @property
    def repeated(self) -> bool:
        """Whether things share its values, as they share a brand."""
        return self.filled >= 2 and self.distinct <= 0.8 * self.filled


def facts_of(things: Sequence[Mapping[str, object]]) -> dict[str, ColumnFacts]:
    """The columns of all things by name, those that most of them have first."""
    values: dict[str, list[object]] = {}
    for thing in things:
        for name, value in thing.items():
            if not _empty(value):
                values.setdefault(name, []).append(value)
    found = [_facts(name, filled, len(things)) for name, filled in values.items()]
    return {facts.name: facts for facts in sorted(found, key=lambda facts: -facts.filled)}


def _facts(name: str, values: Sequence[object], total: int) -> ColumnFacts:
    texts = [as_text(clean(value)) for value in values]
    kind = Counter(_type(name, value) for value in values).most_common(1)[0][0]
    lists = [len(value) for value in values if isinstance(value, list)]
    return ColumnFacts(
        name=name,
        type=kind,
        filled=len(values),
        total=total,
        length=sum(map(len, texts)) / len(texts),
        distinct=len(set(texts)),
        entries=sum(lists) / len(lists) if lists else 0.0,
        examples=tuple(_examples(map(_date, values) if kind == "time" else texts)),
        link=sum(bool(_LINK.match(text)) for text in texts) > len(texts) / 2,
    )


def _type(name: str, value: object) -> Type:
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, str):
        return "time" if _DATE.fullmatch(value.strip()) and moment(value) is not None else "text"
    if isinstance(value, int | float):
        low, high = SECONDS
        return "time" if _WHEN.search(name.lower()) and low <= value <= high else "number"
    return "list" if isinstance(value, list) else "mapping"


def _examples(texts: Iterable[str]) -> Iterator[str]:
    found = dict.fromkeys(shown(text, EXAMPLE_CAP) for text in texts)
    yield from [text for text in found if text][:EXAMPLES]


def _date(value: object) -> str:
    """A time as a person reads it."""
    seconds = moment(value)
    return "" if seconds is None else str(clock(seconds)["date"])


def _empty(value: object) -> bool:
    return value is None or value == "" or value == [] or value == {}
