"""How a draft puts an item into words: a template out of the columns that say most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

from surfaces.authoring.columns import ColumnFacts

TITLES = ("title", "name", "headline", "subject", "label", "text", "body", "content", "description", "summary")
"""Columns that say what an item is, the best first."""
TOLD_FIRST = (
    "company",
    "brand",
    "author",
    "artist",
    "genres",
    "genre",
    "category",
    "location",
    "city",
    "tags",
    "skills",
)
DETAILS = 3
SHORT, LONG = 40, 100
"""Mean characters up to which a detail is told whole, and from which on a text is cut."""
USUAL = 0.95


def item_template(columns: Mapping[str, ColumnFacts]) -> str:
    """The template of a candidate: never empty, and it reads only columns that there are (or the item's id)."""
    known = [facts for facts in columns.values() if facts.readable and not facts.reference]
    titles = _titles(known)
    if not titles:
        numbers = [facts.name for facts in known if facts.type == "number"][:DETAILS]
        return " ".join(f"{{{{ '{name} ' ~ {name} if {name} }}}}" for name in numbers) or "{{ item_id }}"
    rest = [facts for facts in known if facts not in titles]
    return "".join([_title(titles), *_year(rest), *map(_detail, _details(rest)), *_story(titles, rest)])


def texts(columns: Mapping[str, ColumnFacts]) -> bool:
    """Whether the items have words in which a search can look."""
    return any(facts.type in {"text", "list"} and facts.readable and not facts.reference for facts in columns.values())


def _titles(known: list[ColumnFacts]) -> list[ColumnFacts]:
    """The columns that say what an item is: one, or two when the first is not always there."""
    said = {facts.name: facts for facts in known if facts.type == "text" and facts.share >= 0.2}
    named = [said[name] for name in TITLES if name in said]
    ending = [facts for name, facts in said.items() if name not in TITLES and name.endswith(("title", "name"))]
    other = sorted(said.values(), key=lambda facts: -facts.share * facts.distinct / facts.filled)
    best = list(dict.fromkeys([*named, *ending]))[:2] or other[:1]
    return best[:1] if best and best[0].share >= USUAL else best


def _title(titles: list[ColumnFacts]) -> str:
    names = " or ".join(facts.name for facts in titles)
    if max(facts.length for facts in titles) <= LONG:
        return f"{{{{ {names} }}}}"
    return f"{{{{ {f'({names})' if len(titles) > 1 else names} | truncate(200) }}}}"


def _year(rest: Iterable[ColumnFacts]) -> list[str]:
    years = (facts.name for facts in rest if facts.name.endswith("year") and facts.type in {"number", "text"})
    return [f"{{{{ ' (' ~ {name} ~ ')' if {name} }}}}" for name in islice(years, 1)]


def _details(rest: Iterable[ColumnFacts]) -> list[ColumnFacts]:
    """Short words that many items have."""

    def place(facts: ColumnFacts) -> tuple[int, float]:
        return TOLD_FIRST.index(facts.name) if facts.name in TOLD_FIRST else len(TOLD_FIRST), -facts.share

    short = [facts for facts in rest if facts.type in {"text", "list"} and not facts.name.endswith("year")]
    fit = [facts for facts in short if facts.length <= SHORT * (1 + (facts.type == "list")) and facts.share >= 0.3]
    return sorted(fit, key=place)[:DETAILS]


def _detail(facts: ColumnFacts) -> str:
    name = facts.name
    if facts.type == "text":
        return f"{{{{ ', ' ~ {name} if {name} }}}}"
    entries = f"{name}[:5]" if facts.entries > 5 else name
    return f"{{{{ ', ' ~ {entries} | join(', ') if {name} }}}}"


def _story(titles: list[ColumnFacts], rest: Iterable[ColumnFacts]) -> list[str]:
    """The beginning of a long text, where the title is short."""
    if max(facts.length for facts in titles) > SHORT:
        return []
    stories = (facts.name for facts in rest if facts.type == "text" and facts.length > SHORT and facts.share >= 0.3)
    return [f"{{{{ '. ' ~ {name} | truncate(100) if {name} }}}}" for name in islice(stories, 1)]
