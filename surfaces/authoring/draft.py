"""A surface file written from a ledger: it passes `surface check`, ranks at once, and explains itself in comments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from prompts.errors import SpecError
from surfaces.authoring.choices import Offer, Option, offer
from surfaces.authoring.columns import ColumnFacts
from surfaces.authoring.heads import Encode, HeadDraft, draft_heads, unusable
from surfaces.authoring.quoting import quoted, shown
from surfaces.authoring.survey import Survey
from surfaces.authoring.wording import item_template
from surfaces.sources.overall import OVERALL
from surfaces.spec_schema import SURFACE_FILE, first_line

COLUMNS = 20
"""Columns that the comment over the item's template lists."""
EVIDENCE = {
    "popular": "popular",
    "co_visitation": "co_visitation",
    "itemknn": "co_visitation",
    "slist": "co_visitation",
    "bm25": "bm25",
    OVERALL: "popular",
}
"""What a draft tells of a candidate, in the order in which the shipped surfaces tell it: the opinions of these types,
where the ledger has enough for a source of the type that stands beside it."""
WIDTH = 52
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_DEADLINE = 1_000


class Wishes(NamedTuple):
    """What the draft is asked to be: weights by action."""

    name: str
    description: str
    weights: Mapping[str, float]


def check_name(name: str, what: str = "a surface") -> str:
    """The name. Raises SpecError for one that the file could not have, with one that would be right."""
    if _NAME.fullmatch(name):
        return name
    plain = re.sub(r"[^a-z0-9_-]+", "_", name.lower()).strip("_-").lstrip("0123456789_-")[:64]
    advice = f"; '{plain}' would be right" if plain else ""
    rule = "it begins with a small letter, then small letters, digits, _ and -"
    raise SpecError(f"'{shown(name, 40)}' cannot be the name of {what}: {rule}{advice}")


def plural(kind: str) -> str:
    """More than one of the kind, as English mostly has it."""
    if kind in {"person", "people"}:
        return "people"
    if kind.endswith(("s", "x", "ch", "sh")):
        return kind if kind.endswith("s") else f"{kind}es"
    return f"{kind[:-1]}ies" if kind.endswith("y") and kind[-2:-1] not in set("aeiou") else f"{kind}s"


def describe(kind: str, weights: Mapping[str, float]) -> str:
    """A description out of what is known."""
    good = [action.replace("_", " ") for action, weight in weights.items() if weight > 0]
    what = plural(kind.replace("_", " "))
    return f"{what.capitalize()} that a member may {' or '.join(good[:2]) or 'care for'} next"


def draft(wishes: Wishes, found: Survey, encode: Encode) -> str:
    """The text of the file. Raises SpecError for a name or a kind that no surface file can have.

    `encode` gives a word's tokens, as the model that will rank reads it: so the heads' names begin differently.
    """
    check_name(wishes.name)
    check_name(found.kind, "a kind of items that is ranked")
    heads = draft_heads(wishes.weights, found.actions, encode)
    if not heads:
        raise SpecError("no head can be named so that the model tells its answer from 'none'; name another model")
    chosen = offer(found)
    blocks = [_top(wishes, found), _prompt(found, heads), _sources(chosen), _evidence(chosen), _filters(chosen, found)]
    blocks += [_heads(heads, found), _policies(chosen), _fallback(chosen, found)]
    return first_line(SURFACE_FILE) + "\n".join("".join(f"{line}\n" for line in block) for block in blocks)


def _top(wishes: Wishes, found: Survey) -> Iterator[str]:
    shows = f", {found.shown:,} impressions" if found.shown else ""
    yield f"# Drafted by `prismrank surface init` from {found.count:,} items and {found.acts:,} events{shows}."
    yield "# Everything may be changed. Then: `prismrank surface check FILE --ledger URL` says what is wrong or without"
    yield "# effect; `prismrank surface preview FILE --ledger URL --member ID` shows what the model reads, and a slate."
    yield f"surface: {wishes.name}"
    yield f"description: {quoted(wishes.description)}"
    yield f"item_kind: {found.kind}"
    yield _remark("# trunk: member", "how members are put into words; one trunk for many surfaces")


def _prompt(found: Survey, heads: Sequence[HeadDraft]) -> Iterator[str]:
    yield "# What the model reads after the member."
    yield "prompt:"
    yield f"  instruction: {quoted(_instruction(found.kind, heads))}"
    yield "  # What a request adds in its `context`: any key, and always `now` (now.weekday, now.part) and `locale`."
    yield '  context: "{% if query %}Searching for {{ query }}.{% endif %}"'
    yield f"  # A candidate. What {found.looked_at} of the kind '{found.kind}' have:"
    yield from _table(list(found.columns.values()))
    yield f'  item: "{item_template(found.columns)}"'
    yield _remark("  # detail: text", "a candidate token by token, not as one vector: slower, exact")
    yield '  # locales: {de: {instruction: "…"}}  # the words in another language, chosen by `locale` in the context'


def _instruction(kind: str, heads: Sequence[HeadDraft]) -> str:
    noun = kind.replace("_", " ")
    if len(heads) == 1:
        return f"{plural(noun).capitalize()}. Does the member {heads[0].actions[0].replace('_', ' ')} the {noun}?"
    return f"{plural(noun).capitalize()}. What does the member do with the {noun}?"


def _table(columns: Sequence[ColumnFacts]) -> Iterator[str]:
    names = [shown(facts.name, 24) for facts in columns[:COLUMNS]]
    wide = max(map(len, names), default=0)
    for name, facts in zip(names, columns, strict=False):
        examples = ", ".join(f'"{example}"' if facts.type == "text" else example for example in facts.examples)
        yield f"  #   {name:<{wide}}  {facts.type:<7}  {facts.share:>4.0%}  {examples}".rstrip()
    if len(columns) > COLUMNS:
        yield f"  #   and {len(columns) - COLUMNS} more"
    if not columns:
        yield "  #   no attribute at all: only item_id is there to be read"


def _sources(chosen: Offer) -> list[str]:
    return ["# Where candidates come from: k of each, merged.", *_block("sources", chosen.sources)]


def _evidence(chosen: Offer) -> list[str]:
    told = [name for name, like in EVIDENCE.items() if like in chosen.order]
    return ["# Whose opinion of a candidate the model reads, in a few words.", f"evidence: [{', '.join(told)}]"]


def _filters(chosen: Offer, found: Survey) -> Iterator[str]:
    yield "# Which candidates may be ranked at all. Conditions read item.NAME, context.NAME and member.NAME."
    profile = [shown(name, 24) for name in found.profile][:COLUMNS]
    if profile:
        yield f"# Of members there is: {', '.join(profile)}."
    yield from _block("filters", chosen.filters)


def _heads(heads: Sequence[HeadDraft], found: Survey) -> Iterator[str]:
    yield "# What the model is asked of each candidate. The slate is ordered by the sum of weight x probability."
    if len(heads) > 1:
        yield "# Yes or no is what the shipped model has learned, and what ranks here. Give the choices weights when a"
        yield "# model was trained on their words; until then they are reported, and mean little."
    yield "heads:"
    for head in heads:
        count = (
            f"{head.events:,} events" if head.events else "no event has it yet: name the action that yours will have"
        )
        yield _remark(f"  - {head.entry}", count)
    spare = [action for action in found.actions if action not in {action for head in heads for action in head.actions}]
    for action in unusable(spare):
        yield f"  # The action '{shown(action, 32)}' cannot be a head: only small letters, digits and _ can."
    names = [action for action in spare if action not in unusable(spare)]
    if names:
        yield f"  # Other actions in the ledger: {', '.join(names[:12])}."
    yield _remark("  # `times: price` in a head", "multiplies by a number of the item: a bid, a margin")


def _policies(chosen: Offer) -> list[str]:
    return ["# What happens to the slate after the model, in this order.", *_block("policies", chosen.policies)]


def _fallback(chosen: Offer, found: Survey) -> Iterator[str]:
    if found.people:
        yield "# The items are members: ask the other side, too, and rank by both."
        yield "# reciprocal: {top: 30, mean: harmonic}"
        yield ""
    yield "# Without an answer of the model by the deadline, callers get the candidates in this order."
    yield f"fallback: {{deadline_ms: {_DEADLINE}, order: [{', '.join(chosen.order)}]}}"


def _block(key: str, options: Sequence[Option]) -> Iterator[str]:
    """The list; where nothing is chosen the key is a comment, too."""
    some = any(option.chosen for option in options)
    yield f"{key}:" if some else _remark(f"# {key}:", "to switch one on, take the # away here, too")
    for option in sorted(options, key=lambda option: not option.chosen):
        yield _remark(f"  {'' if option.chosen else '# '}- {option.entry}", option.note)


def _remark(line: str, note: str) -> str:
    return f"{line:<{WIDTH}}  # {note}"
