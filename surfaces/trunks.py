"""Members as they were put into words, kept for their next visit.

Between two visits little changes: a member did nothing more, or one thing. What a trunk was made of is kept beside it,
and compared; where anything differs, it is made anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from threading import Lock
from typing import NamedTuple

from prompts.tree import Piece
from prompts.verbalize import Count, Trunk, TrunkForm, event_piece, trunk_of
from surfaces.happenings import BEFORE, Acts, acts_of, happening
from surfaces.lately import Pieces
from surfaces.ledger.records import Item
from surfaces.visit import Visit

KEPT, KEPT_CAP = 1_024, 1_024
"""So many trunks are kept, of budgets for so many events."""


class _Kept(NamedTuple):
    """A trunk, and what it was made of. The profile is its `repr`: 1, 1.0 and True are equal, but read differently."""

    form: TrunkForm
    profile: str
    acts: Acts
    trunk: Trunk


class Trunks:
    """The trunks of one model, whose tokenizer is what counts. May be used from any thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._pieces = Pieces()
        self._lock = Lock()

    def of(self, surface: str, form: TrunkForm, visit: Visit, items: Mapping[str, Item], count: Count) -> Trunk:
        """The trunk of a visitor; `items` as for `happenings`."""
        acts, place = acts_of(visit.timeline, items, form.budget), (surface, visit.member_id)
        profile = repr(visit.profile)
        with self._lock:
            kept = self._kept.get(place)
            if kept is not None:
                self._kept.move_to_end(place)
        if kept and kept.form is form and kept.profile == profile and _same(kept.acts, acts):
            return kept.trunk
        trunk = trunk_of(form, visit.profile, acts.older + len(acts.told), partial(self._said, form, acts), count)
        if visit.member_id and len(acts.told) <= KEPT_CAP:
            with self._lock:
                self._kept[place] = _Kept(form, profile, acts, trunk)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
        return trunk

    def _said(self, form: TrunkForm, acts: Acts, index: int, *, compress: bool) -> Piece:
        """An event's piece; with the very same item it is made once, whoever acted on it."""
        if index < acts.older:
            return event_piece(form, BEFORE, compress=compress)
        item, action = act = acts.told[index - acts.older]

        def made() -> Piece:
            return event_piece(form, happening(act), compress=compress)

        return made() if item is None else self._pieces.of(item, (action, compress), form, made)

    def forget(self) -> None:
        """Drops all."""
        self._pieces.forget()
        with self._lock:
            self._kept.clear()


def _same(before: Acts, now: Acts) -> bool:
    """Whether they are of the very same items, which say the same."""
    if before.older != now.older or len(before.told) != len(now.told):
        return False
    return all(old[0] is new[0] and old[1] == new[1] for old, new in zip(before.told, now.told, strict=True))
