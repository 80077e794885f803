"""What heads are fitted on: rankings of the validation, as they are asked in service, and what came of every candidate.

Where the ledger has slates that the surface showed, it is those, whatever came of them: a probability is to hold in
traffic, and most slates there end in nothing. Elsewhere it is the candidates that the surface's own sources bring
before each member's last choice but one; where they miss it, nothing came of that ranking. Either way it is earlier
than what an evaluation tests on. N answers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from foundation.engine.base import Engine
from prompts.errors import LedgerError
from surfaces.evaluation.lists import from_impressions
from surfaces.evaluation.method import Method, Visits
from surfaces.evaluation.protocols import (
    WINDOW,
    Case,
    Split,
    before,
    check,
    drawn,
    last_share,
    leave_one_out,
    timelines,
    validation_of,
)
from surfaces.evaluation.results import outcomes
from surfaces.evaluation.run import Progress
from surfaces.heads.base import HeadKind
from surfaces.ledger.records import IMPRESSION, Event
from surfaces.ledger.store import Ledger
from surfaces.sources.base import Interactions, Materials
from surfaces.sources.fit import fit_sources, interactions_of
from surfaces.spec import SurfaceSpec

SHARE = 0.25
"""Of the slates before the test, so many are asked about: the latest. Evidence is learned from what is earlier."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answered:
    """By head, in the same order: what it said of each candidate, what came true; and whom it was said of."""

    members_N: npt.NDArray[np.str_]
    said: Mapping[str, Floats]
    came: Mapping[str, Floats]


def unsettled(spec: SurfaceSpec) -> tuple[HeadKind, ...]:
    """The heads with a probability that the surface's file does not calibrate itself.

    Choice heads share a softmax: where the file has a line for one of them, it has the last word on all.
    """
    settled = {"choice"} if any(head.calibration for head in spec.choices) else set()
    return tuple(
        head for head in spec.heads if head.probability and head.calibration is None and head.type not in settled
    )


def ask(
    method: Method, split: Split, heads: Sequence[HeadKind], ledger: Ledger, progress: Progress | None = None
) -> Answered:
    """What the method's heads say in the cases of a split, and what came of it."""
    visits, actions = Visits(ledger), {head.name: frozenset(head.actions) for head in heads}
    members, said, came = list[str](), defaultdict[str, list[Floats]](list), defaultdict[str, list[Floats]](list)
    for number, case in enumerate(split.cases):
        items = split.items(number)
        judged, true = method.judge(visits.of(case), items), outcomes(case, items, actions)
        members += [case.member_id] * len(items)
        for name in actions:
            said[name].append(judged.heads[name])
            came[name].append(true[name].astype(np.float64))
        if progress:
            progress(number + 1, len(split.cases))
    return Answered(np.array(members, dtype=np.str_), _joined(said), _joined(came))


def _joined(parts: Mapping[str, list[Floats]]) -> dict[str, Floats]:
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def shown(ledger: Ledger, spec: SurfaceSpec, *, members: int | None = None, seed: int = 0) -> Split | None:
    """The surface's slates of a while before the test, those that nothing came of among them; None without slates.

    The test is what `global_time` and `from_impressions` hold out. Raises ConfigError for `members` that make no sense.
    """
    check(members, None, 0)
    if ledger.clock == "order":
        return None
    data = interactions_of(spec, ledger)
    try:
        test = from_impressions(ledger, spec).cut
        cut = min(last_share(np.concatenate([np.zeros(0), *data.times]), WINDOW), np.inf if test is None else test)
        cases = [case for timeline in timelines(ledger) for case in slates(timeline, spec, data, cut)]
        start = last_share(np.array([case.time for case in cases]), SHARE)
    except LedgerError:
        return None
    late = [case for case in cases if case.time >= start]
    return Split("lists", drawn(late, members, seed), before(data, start), cut=start, seed=seed)


def slates(timeline: Sequence[Event], spec: SurfaceSpec, data: Interactions, cut: float) -> Iterator[Case]:
    """Each slate that the surface showed a member before a moment, with what they did of it by then.

    An act belongs to the latest slate before it, where that has the item; the first act with an item counts.
    """
    told = timeline[: bisect_left(timeline, cut, key=lambda event: event.timestamp)]
    mine = [event for event in told if event.surface == spec.surface and event.item_id in data.index]
    items: dict[float, dict[str, float]] = defaultdict(dict)
    for event in mine:
        if event.action == IMPRESSION:
            items[event.timestamp][event.item_id] = 0.0
    times, acts = sorted(items), defaultdict[float, dict[str, str]](dict)
    for event in mine:
        place = bisect_right(times, event.timestamp) - 1
        if event.action != IMPRESSION and place >= 0 and event.item_id in items[times[place]]:
            acts[times[place]].setdefault(event.item_id, event.action)
    for time in times:
        history = told[: bisect_left(told, time, key=lambda event: event.timestamp)]
        yield Case(told[0].member_id, tuple(history), items[time], time, acts[time], tuple(sorted(items[time])))


def retrieved(ledger: Ledger, spec: SurfaceSpec, engine: Engine, *, members: int | None = None, seed: int = 0) -> Split:
    """The last choice but one of each member, among what the surface's sources and filters bring just before it.

    A source `sql` has no part: it reads the ledger as it is now. Raises LedgerError where there are too few events.
    """
    split = validation_of(leave_one_out(ledger, spec), ledger, spec, members=members, seed=seed)
    sources = tuple(source for source in spec.sources if source.type != "sql")
    asked = spec.model_copy(update={"sources": sources, "evidence": ()})
    retrieval, visits = fit_sources(Materials(asked, split.train, ledger, engine)), Visits(ledger)
    cases = [
        replace(case, listed=tuple(candidate.item_id for candidate in retrieval.gather(visits.of(case))))
        for case in split.cases
    ]
    asked_of = tuple(case for case in cases if case.listed)
    if not asked_of:
        raise LedgerError(f"the sources of surface '{spec.surface}' bring nothing that its heads could be asked about")
    return replace(split, cases=asked_of)
