"""What is known of a tree's leaves, as the losses read it."""

from __future__ import annotations

from typing import NamedTuple

from foundation.training.labels import Choice, Graded, Listwise
from surfaces.heads.base import NO, NONE, YES
from surfaces.spec import SurfaceSpec


class Hung(NamedTuple):
    """What hangs at one spot: items, and what is known of them. The first `real` of them were shown or chosen.

    `stands_for` says of how many items each stands; `actions` what the member did with each, as far as it is known.
    """

    items: list[int]
    stands_for: list[float]
    actions: list[str | None]
    real: int
    slate: bool


class Labels:
    """Collects the labels of a tree's leaves, spot after spot."""

    def __init__(self, spec: SurfaceSpec) -> None:
        self.lists: list[Listwise] = []
        self.choices: list[Choice] = []
        self.graded: list[Graded] = []
        self._leaves = 0
        pointwise = [head for head in spec.heads if head.type == "pointwise"]
        self._odds = (spec.answers.index(YES), spec.answers.index(NO)) if pointwise else None
        words = (*(head.name for head in spec.choices), NONE)
        self._columns = tuple(spec.answers.index(word) for word in words) if spec.choices else ()
        self._columns_of = {action: n for n, head in enumerate(spec.choices) for action in head.actions}
        self._wanted = {action for head in pointwise for action in head.actions}

    def add(self, hung: Hung) -> None:
        """What is known of the leaves of one more spot."""
        first = self._leaves
        self._leaves += len(hung.items)
        if self._odds is not None:
            self._add_lists(hung, first, *self._odds)
        if self._columns:
            known = enumerate(hung.actions[: hung.real])
            self.choices += [Choice(first + n, self._columns, self._column(action)) for n, action in known]

    def _add_lists(self, hung: Hung, first: int, yes: int, no: int) -> None:
        came = [action in self._wanted for action in hung.actions]
        others = [n for n, wanted in enumerate(came) if not wanted]
        for n in (n for n, wanted in enumerate(came) if wanted):
            leaves = tuple(first + place for place in (n, *others))
            stands_for = (1.0, *(hung.stands_for[place] for place in others))
            self.lists.append(Listwise(leaves, 0, yes, no, stands_for))
        end = hung.real if hung.slate else len(hung.items)
        self.graded.append(Graded(tuple(range(first, first + end)), tuple(map(float, came[:end])), yes, no))

    def _column(self, action: str | None) -> int:
        return self._columns_of.get(action or "", len(self._columns) - 1)
