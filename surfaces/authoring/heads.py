"""Which heads a draft asks for: out of the actions that members did."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from prompts.errors import SpecError
from prompts.suggest import suggest
from surfaces.authoring.quoting import shown
from surfaces.heads.base import NO, NONE, YES

Encode = Callable[[str], Sequence[int]]
"""A word as the model's tokens: two answers may not begin with the same one."""

MOST = 6
GOOD, BAD = 1.0, -0.5
AGAINST = -0.01
"""The weight of what counts against an item, beside a head that ranks: a little, and its events are no choices."""
RANKERS = ("engage", "interest", "want", "choose", "pick", "prefer", "favour")
"""Names for the head that ranks where there are several actions: more than a draft has actions."""
PLACEHOLDER = "click"
"""The head of a surface on which nobody did anything yet."""

_WORD = re.compile(r"[a-z][a-z0-9_]{0,31}")
_SOUNDS_BAD = re.compile(
    r"(^|_)(hid[e]?|hidden|dismiss|dislike|skip|block|report|reject|ignore|mute|decline|remove|spam|refund|cancel|"
    r"unlike|unfollow|unsubscribe|uninterested|downvote|not|less|bad)(e?[ds]|ped)?($|_)"
)
_BEFORE = ("do", "then", "make", "will", "go", "be", "get", "take", "use", "pick", "have", "keep", "other", "more", "x")
"""What a head's name begins with when the action alone would begin like another answer."""


class HeadDraft(NamedTuple):
    """A head; so many `events` have one of its actions."""

    name: str
    type: str
    weight: float
    actions: tuple[str, ...]
    events: int

    @property
    def entry(self) -> str:
        """The head as the file has it."""
        actions = "" if self.actions == (self.name,) else f", actions: [{', '.join(self.actions)}]"
        weight = f"{self.weight}" if self.weight else "0"
        return f"{{name: {self.name}, type: {self.type}, weight: {weight}{actions}}}"


def sounds_bad(action: str) -> bool:
    """Whether a member who does it would rather not have seen the item."""
    return bool(_SOUNDS_BAD.search(action))


def asked_heads(text: str, actions: Mapping[str, int]) -> dict[str, float]:
    """Weights by action from `apply,save,-dismiss`. Raises SpecError for what no head can be made of.

    Where the ledger has events, an action that none of them has is refused.
    """
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        action = part.removeprefix("-").strip()
        if not _WORD.fullmatch(action):
            advice = "an action is a small letter, then small letters, digits or _; write --heads like,-hide"
            raise SpecError(f"--heads: '{shown(action, 40)}' cannot be an action of a head; {advice}")
        if actions and action not in actions:
            raise SpecError(f"--heads: no event has the action '{action}'{suggest(action, actions)}")
        found[action] = BAD if part.startswith("-") else GOOD
    if not found:
        raise SpecError("--heads: no action is named; write --heads like,-hide")
    return found


def default_heads(actions: Mapping[str, int]) -> dict[str, float]:
    """Weights by action, the most frequent actions first; what sounds bad counts against an item."""
    fit = [action for action in actions if _WORD.fullmatch(action)][:MOST]
    return {action: BAD if sounds_bad(action) else GOOD for action in fit} or {PLACEHOLDER: GOOD}


def unusable(actions: Iterable[str]) -> list[str]:
    """Actions that no surface file can name."""
    return [action for action in actions if not _WORD.fullmatch(action)]


def draft_heads(weights: Mapping[str, float], actions: Mapping[str, int], encode: Encode) -> list[HeadDraft]:
    """One pointwise head for one action. For several, a pointwise head that ranks, over all that speak for an item, and
    choice heads that share a softmax and tell which: a model ranks by them when it was trained on their words.

    Answers begin differently; of an action for which no name does, there is no choice head. Nothing is left for a model
    that cannot tell yes from no.
    """
    if not _first(encode, YES).isdisjoint(_first(encode, NO)):
        return []
    if len(weights) == 1:
        ((action, weight),) = weights.items()
        name = _name(action, set(), encode)
        return [HeadDraft(name, "pointwise", weight, (action,), actions.get(action, 0))] if name else []
    good = tuple(action for action, weight in weights.items() if weight > 0)
    choices = _choices(weights, actions, encode)
    if not good:
        return choices
    events = sum(actions.get(action, 0) for action in good)
    ranker = HeadDraft(next(name for name in RANKERS if name not in weights), "pointwise", GOOD, good, events)
    return [ranker, *(one._replace(weight=0.0 if one.weight > 0 else AGAINST) for one in choices)]


def _choices(weights: Mapping[str, float], actions: Mapping[str, int], encode: Encode) -> list[HeadDraft]:
    """None at all where the model reads `none` as it reads yes or no."""
    taken, drafts = _first(encode, YES) | _first(encode, NO), list[HeadDraft]()
    if not _first(encode, NONE).isdisjoint(taken):
        return []
    taken |= _first(encode, NONE)
    for action, weight in weights.items():
        name = _name(action, taken, encode)
        if name is not None:
            taken |= _first(encode, name)
            drafts.append(HeadDraft(name, "choice", weight, (action,), actions.get(action, 0)))
    return drafts


def _name(action: str, taken: set[int], encode: Encode) -> str | None:
    for name in (action, *(f"{before}_{action}"[:32] for before in _BEFORE)):
        first = _first(encode, name)
        if name not in {NONE, YES, NO} and first and first.isdisjoint(taken):
            return name
    return None


def _first(encode: Encode, word: str) -> set[int]:
    return set(encode(word)[:1])
