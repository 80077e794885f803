"""What is held out, and from what is left methods may learn.

Leave-one-out by time: every member's last event is the target, and nobody learns from it nor from what comes after it.
Global time: nothing at or after one moment is learned from; members who come back after it are asked for what they did
last. Meng et al., "Exploring Data Splitting Strategies for the Evaluation of Recommendation Models", RecSys 2020.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Literal, TypeAlias

import numpy as np

from prompts.errors import ConfigError, LedgerError
from surfaces.ledger.records import IMPRESSION, Event
from surfaces.ledger.store import Ledger
from surfaces.sources.base import Interactions, Scores
from surfaces.sources.fit import interactions_of
from surfaces.spec import SurfaceSpec

Protocol: TypeAlias = Literal["leave-one-out", "global-time", "lists"]
WINDOW = 0.1
"""The share of events that a global-time split holds out."""


@dataclass(frozen=True, slots=True)
class Case:
    """One ranking that is asked for: the member, what they did before (every kind and surface), what they then did.

    `labels` are gains by item, above 0 for what is wanted; `listed` are the candidates where they are given, else the
    whole catalogue is ranked. `acts` tells which action an item got, where that is known. `time` is when the ranking
    is asked for, in the ledger's own clock.
    """

    member_id: str
    history: tuple[Event, ...]
    labels: Mapping[str, float]
    time: float
    acts: Mapping[str, str] = field(default_factory=dict)
    listed: tuple[str, ...] | None = None

    @classmethod
    def of(cls, history: Sequence[Event], target: Event) -> Case:
        """The case of one event that is to be foretold."""
        name = target.item_id
        return cls(target.member_id, tuple(history), {name: 1.0}, target.timestamp, {name: target.action})

    @property
    def wanted(self) -> list[str]:
        """The items that should stand first."""
        return [item_id for item_id, gain in self.labels.items() if gain > 0]


@dataclass(frozen=True)
class Split:
    """Cases, and what methods may learn from.

    `cut`: nothing at or after that moment is learned from, by anybody. `candidates`: the target stands among so many
    items in all, drawn by `seed`; None takes all that the member has not acted on. `notes` tell what was left out.
    """

    protocol: Protocol
    cases: tuple[Case, ...]
    train: Interactions
    cut: float | None = None
    candidates: int | None = None
    seed: int = 0
    notes: tuple[str, ...] = ()

    def items(self, number: int) -> list[str]:
        """The candidates of case `number`, its wanted ones among them; in a fixed order that tells nothing."""
        case = self.cases[number]
        if case.listed is not None:
            return list(case.listed)
        return candidate_items(case, self.train.item_ids, self.candidates, self.seed + number)

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits of what is asked, among which candidates, and of what is learned from."""
        told = hashlib.sha256()
        head = [self.protocol, self.cut, self.candidates, self.seed, self.train.item_ids]
        told.update(json.dumps(head).encode())
        histories = _Digests()
        for case in self.cases:
            row = [case.member_id, histories.of(case), sorted(case.labels.items()), case.time, case.listed]
            told.update(json.dumps(row).encode())
        for member_id, sequence in zip(self.train.member_ids, self.train.sequences, strict=True):
            told.update(member_id.encode())
            told.update(sequence.tobytes())
        return told.hexdigest()[:16]


class _Digests:
    """Digests of histories. One that goes on where the member's case before it ended is not read twice."""

    def __init__(self) -> None:
        self._latest: dict[str, tuple[tuple[Event, ...], hashlib._Hash]] = {}

    def of(self, case: Case) -> str:
        """The digest of a case's history."""
        known, told = self._latest.get(case.member_id, ((), hashlib.sha256()))
        if case.history[: len(known)] != known:
            known, told = (), hashlib.sha256()
        told = told.copy()
        for event in case.history[len(known) :]:
            told.update(json.dumps([event.item_id, event.action, event.timestamp]).encode())
        self._latest[case.member_id] = case.history, told
        return told.hexdigest()


def candidate_items(case: Case, catalogue: Sequence[str], candidates: int | None, seed: int) -> list[str]:
    """The items that the case's wanted ones stand among, themselves included, in the catalogue's order."""
    wanted = set(case.wanted)
    left_out = wanted | {event.item_id for event in case.history if event.action != IMPRESSION}
    others = [item_id for item_id in catalogue if item_id not in left_out]
    if candidates is not None and candidates - len(wanted) < len(others):
        drawn = np.random.default_rng(seed).choice(len(others), size=candidates - len(wanted), replace=False)
        others = [others[place] for place in drawn]
    return sorted([*others, *wanted])


def leave_one_out(
    ledger: Ledger,
    surface: SurfaceSpec,
    *,
    members: int | None = None,
    seed: int = 0,
    history: int = 1,
    candidates: int | None = None,
) -> Split:
    """The split by each member's last event with an action that the surface wants.

    `members` of them are drawn by `seed`; None takes all. Only members with `history` choices before the target count.
    Raises LedgerError when nobody is left, ConfigError for numbers that make no sense.
    """
    data = interactions_of(surface, ledger)
    return _last_of(data, ledger, surface, members=members, seed=seed, history=history, candidates=candidates)


def validation_of(
    split: Split,
    ledger: Ledger,
    surface: SurfaceSpec,
    *,
    members: int | None = None,
    seed: int = 0,
    candidates: int | None = None,
) -> Split:
    """Leave-one-out within what a split lets methods learn from: its cases are not there at all.

    Raises LedgerError when nobody has enough events for it.
    """
    return _last_of(split.train, ledger, surface, members=members, seed=seed, history=1, candidates=candidates)


def _last_of(
    data: Interactions,
    ledger: Ledger,
    surface: SurfaceSpec,
    *,
    members: int | None,
    seed: int,
    history: int,
    candidates: int | None,
) -> Split:
    """Each member's last wanted event of `data`, which is a part of the ledger: the first events of every member."""
    check(members, candidates, history)
    label = wanted_actions(surface, ledger)
    known = dict(zip(data.member_ids, map(len, data.times), strict=True))
    kept: dict[str, int] = {}
    cases: list[Case] = []
    for timeline in timelines(ledger):
        member_id = timeline[0].member_id
        places = chosen_places(timeline, data)[: known.get(member_id, 0)]
        wanted = [number for number, place in enumerate(places) if timeline[place].action in label]
        if wanted:
            kept[member_id] = wanted[-1]
        if wanted and wanted[-1] >= history:
            target = places[wanted[-1]]
            cases.append(Case.of(timeline[:target], timeline[target]))
    if not cases:
        raise LedgerError(
            f"no member has {history + 1} events with items of kind '{surface.item_kind}' that count on surface "
            f"'{surface.surface}'; there is nothing to hold out"
        )
    picked = drawn(cases, members, seed)
    return Split("leave-one-out", picked, data.first(kept), candidates=candidates, seed=seed)


def global_time(
    ledger: Ledger,
    surface: SurfaceSpec,
    *,
    members: int | None = None,
    seed: int = 0,
    history: int = 0,
    candidates: int | None = None,
    share: float = WINDOW,
) -> Split:
    """The split at the moment after which the last `share` of the choices come.

    The target is the last event of each member who is there after it; what they did between is in their history, as it
    would be on the day, but nobody learns from it. Raises LedgerError when nobody is left, ConfigError for a ledger
    whose timestamps are no times, and for numbers that make no sense.
    """
    check(members, candidates, history)
    if ledger.clock == "order":
        raise ConfigError("protocol global-time: it needs times, but this ledger's clock is 'order'; use leave-one-out")
    data, label = interactions_of(surface, ledger), wanted_actions(surface, ledger)
    cut = last_share(np.concatenate([np.zeros(0), *data.times]), share)
    cases: list[Case] = []
    for timeline in timelines(ledger):
        places = chosen_places(timeline, data)
        wanted = [n for n, place in enumerate(places) if timeline[place].timestamp >= cut]
        wanted = [n for n in wanted if timeline[places[n]].action in label]
        if wanted and wanted[-1] >= history:
            target = places[wanted[-1]]
            cases.append(Case.of(timeline[:target], timeline[target]))
    if not cases:
        raise LedgerError(
            f"no member of surface '{surface.surface}' has an event in the last {share:.0%} of the events"
        )
    picked = drawn(cases, members, seed)
    return Split("global-time", picked, before(data, cut), cut=cut, candidates=candidates, seed=seed)


def before(data: Interactions, cut: float) -> Interactions:
    """What of the data is earlier than a moment."""
    return data.first(
        {name: int(np.searchsorted(times, cut)) for name, times in zip(data.member_ids, data.times, strict=True)}
    )


def wanted_actions(surface: SurfaceSpec, ledger: Ledger) -> frozenset[str]:
    """The actions that make an item wanted: those of the surface's heads with a weight above 0.

    Where the ledger has none of them, everything that a member did with an item counts, but for what is unwanted.
    """
    found = ledger.actions(surface.item_kind) - surface.unwanted - {IMPRESSION}
    named = {action for head in surface.heads if head.weight > 0 for action in head.actions}
    return frozenset(found & named or found)


def last_share(times: Scores, share: float) -> float:
    """The moment from which on the last `share` of the times come. Raises LedgerError where they are too much alike."""
    cut = float(np.quantile(times, 1 - share, method="higher")) if len(times) else 0.0
    if not len(times) or cut <= times.min():
        raise LedgerError("the times of this ledger's events are too much alike for a split by time")
    return cut


def timelines(ledger: Ledger) -> Iterator[tuple[Event, ...]]:
    """Every member's events, on all surfaces, oldest first."""
    for _, events in groupby(ledger.all_events(), key=lambda event: event.member_id):
        yield tuple(events)


def chosen_places(timeline: Sequence[Event], data: Interactions) -> list[int]:
    """Where in a timeline the choices stand that `data` has, in the same order."""
    left_out = {IMPRESSION, *data.unwanted}
    return [n for n, event in enumerate(timeline) if event.action not in left_out and event.item_id in data.index]


def drawn(cases: Sequence[Case], members: int | None, seed: int) -> tuple[Case, ...]:
    """The cases of that many members, in the ledger's order."""
    names = sorted({case.member_id for case in cases})
    if members is None or members >= len(names):
        return tuple(cases)
    chosen: Collection[int] = np.random.default_rng(seed).choice(len(names), size=members, replace=False)
    kept = {names[place] for place in chosen}
    return tuple(case for case in cases if case.member_id in kept)


def check(members: int | None, candidates: int | None, history: int) -> None:
    """Raises ConfigError for numbers that make no sense."""
    if members is not None and members < 1:
        raise ConfigError(f"members: {members}; draw 1 or more")
    if candidates is not None and candidates < 2:
        raise ConfigError(f"candidates: {candidates}; a ranking needs 2 or more")
    if history < 0:
        raise ConfigError(f"history: {history}; give 0 or more events")
