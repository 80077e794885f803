"""A member as text: one piece for the profile, one for every event that the budget holds.

A trunk only grows at its end. Past the budget its window moves in large steps, so that what is cached of it serves
until the next step. Time is absolute or ordinal, never "2 days ago".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

from prompts.disarm import disarmed
from prompts.errors import TemplateError
from prompts.render import Template
from prompts.tree import Piece
from prompts.values import clean_text

PIECE_CAP = 1_000
"""Characters of one piece; what is longer is cut."""

Detail: TypeAlias = Literal["text", "vector", "mixed"]
Count: TypeAlias = Callable[[Piece], int]


class Happening(NamedTuple):
    """One event as the prompts see it: the kind of its item, what was done, the item's attributes, the time as text."""

    kind: str
    action: str
    attributes: Mapping[str, object]
    when: str = ""


@dataclass(frozen=True, slots=True)
class TrunkForm:
    """How a member is put into words.

    `events` are templates by kind of item, with `default` for any other kind. `actions` are the words for actions.
    `budget` counts slots (tokens, or vectors in their place), `step` counts events.
    """

    profile: Template
    events: Mapping[str, Template]
    actions: Mapping[str, str]
    detail: Detail
    budget: int
    step: int


class Said(Protocol):
    """What puts the event of a number into words, as one vector or not."""

    def __call__(self, index: int, *, compress: bool) -> Piece:
        """The event's piece."""
        ...


class Trunk(NamedTuple):
    """`pieces[0]` is the profile, `pieces[1 + i]` is event `first + i`."""

    pieces: tuple[Piece, ...]
    first: int


def profile_piece(form: TrunkForm, profile: Mapping[str, object]) -> Piece:
    """The profile as text; never empty, it ends its line."""
    return Piece(_line(form.profile.render(profile)))


def event_piece(form: TrunkForm, happening: Happening, *, compress: bool) -> Piece:
    """One event as text; never empty, it ends its line. Raises TemplateError for a kind that no template is for."""
    template = form.events.get(happening.kind) or form.events.get("default")
    if template is None:
        raise TemplateError(f"no event template for items of kind '{clean_text(happening.kind, 80)}'; add 'default'")
    word = form.actions.get(happening.action) or happening.action.replace("_", " ")
    text = template.recall({**happening.attributes, "action": word, "when": happening.when})
    return Piece(_line(text or clean_text(word, 80)), compress)


def verbalize(form: TrunkForm, profile: Mapping[str, object], happenings: Sequence[Happening], count: Count) -> Trunk:
    """The trunk of a member: the profile and the newest events that `form.budget` holds.

    Its first event is the smallest multiple of `form.step` that fits the budget. Where not even the newest multiple
    fits (long events, a large step) the step is halved until one does. `happenings` are in time order; only those
    that may fit are put into words, so a long history costs no more than a short one.
    """

    def said(index: int, *, compress: bool) -> Piece:
        return event_piece(form, happenings[index], compress=compress)

    return trunk_of(form, profile, len(happenings), said, count)


def trunk_of(form: TrunkForm, profile: Mapping[str, object], total: int, said: Said, count: Count) -> Trunk:
    """As `verbalize`, of `total` events, each of which `said` puts into words."""
    top = fitted(profile_piece(form, profile), form.budget, count)
    left = form.budget - count(top)
    newest_first: list[Piece] = []
    for index in range(total - 1, -1, -1):
        piece = fitted(said(index, compress=compressed(form, index, total)), form.budget, count)
        left -= count(piece)
        if left < 0:
            break
        newest_first.append(piece)
    first = window(total, total - len(newest_first), form.step)
    return Trunk((top, *reversed(newest_first[: total - first])), first)


def compressed(form: TrunkForm, index: int, total: int) -> bool:
    """Whether event `index` of `total` is one vector. Mixed: those before the last step that leaves newer ones."""
    if form.detail != "mixed":
        return form.detail == "vector"
    return index < (total - 1) // form.step * form.step


def window(total: int, lowest: int, step: int) -> int:
    """The first event kept of `total`, when those from `lowest` on fit: a multiple of `step`, or of half of it, …"""
    while step > 1 and lowest < total <= _up(lowest, step):
        step //= 2
    return min(total, _up(lowest, step))


def fitted(piece: Piece, budget: int, count: Count) -> Piece:
    """The piece, its text halved until it takes at most half of the budget: one long text never crowds out the rest."""
    text = piece.text
    while count(piece) > budget // 2 and len(text) > 1:
        text = text[: len(text) // 2].rstrip()
        piece = piece._replace(text=f"{text}\n")
    return piece


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def _line(text: str) -> str:
    return f"{disarmed(text)[:PIECE_CAP].rstrip()}\n"
