"""What is held out. Leave-one-out by time: of every member the last event is the target, and nobody learns from it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

import numpy as np

from prompts.errors import ConfigError, LedgerError
from surfaces.ledger.records import IMPRESSION, Event
from surfaces.ledger.store import Ledger
from surfaces.sources.base import Interactions

Held = Literal["test", "validation"]
"""`test`: the target is a member's last event; `validation`: the one before it, and the last is not there at all."""


class Case(NamedTuple):
    """One member: what they did before (every kind and surface), and the event that is to be foretold."""

    member_id: str
    history: tuple[Event, ...]
    target: Event


@dataclass(frozen=True, slots=True)
class Split:
    """Cases, and what methods may learn from: the events of all members without those held out."""

    held: Held
    cases: tuple[Case, ...]
    train: Interactions


def leave_one_out(
    ledger: Ledger,
    kind: str,
    *,
    held: Held = "test",
    members: int | None = None,
    seed: int = 0,
    unwanted: Collection[str] = (),
) -> Split:
    """The split by each member's last event with an item of that kind; impressions and `unwanted` acts are no targets.

    `members` of them are drawn by `seed`; None takes all. Only members with an earlier event to learn from count.
    Raises LedgerError when nobody is left, ConfigError for less than one member.
    """
    if members is not None and members < 1:
        raise ConfigError(f"members: {members}; draw 1 or more")
    dropped = 1 if held == "test" else 2
    data = Interactions.of(ledger, kind, unwanted=unwanted)
    cases = [
        case
        for _, timeline in groupby(ledger.all_events(), key=lambda event: event.member_id)
        if (case := _case(tuple(timeline), data, dropped)) is not None
    ]
    if not cases:
        raise LedgerError(
            f"no member has {dropped + 1} events with items of kind '{kind}'; there is nothing to hold out"
        )
    return Split(held, _drawn(cases, members, seed), data.without_last(dropped))


def _case(timeline: Sequence[Event], data: Interactions, dropped: int) -> Case | None:
    """The member's case, or None when there are too few events."""
    left_out = {IMPRESSION, *data.unwanted}
    places = [
        place for place, event in enumerate(timeline) if event.action not in left_out and event.item_id in data.index
    ]
    if len(places) <= dropped:
        return None
    place = places[-dropped]
    return Case(timeline[place].member_id, tuple(timeline[:place]), timeline[place])


def _drawn(cases: Sequence[Case], members: int | None, seed: int) -> tuple[Case, ...]:
    """That many cases, in the ledger's order."""
    if members is None or members >= len(cases):
        return tuple(cases)
    chosen = np.random.default_rng(seed).choice(len(cases), size=members, replace=False)
    return tuple(cases[place] for place in sorted(chosen))
