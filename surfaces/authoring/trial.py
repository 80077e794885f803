"""A ranking tried out for a real member, and what can be seen in several of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from prompts.render import Condition
from surfaces.authoring.advice import Advice
from surfaces.authoring.survey import Survey
from surfaces.filters.base import FilterKind
from surfaces.ledger.records import Item
from surfaces.sources.base import NOTHING
from surfaces.sources.merge import Candidate, Retrieval
from surfaces.sources.overall import OVERALL
from surfaces.spec import SurfaceSpec
from surfaces.visit import Visit

LONG_LEAF = 64
"""Slots from which on a leaf is worth a thought: a request has hundreds of them."""


class Trial(NamedTuple):
    """One ranking. `acts` are the member's events, `told` those of them in the trunk; the rest are slots by part.

    `silent` are the sources of the evidence that say `none` of every candidate. `seconds`: from the member's id to the
    slate.
    """

    visit: Visit
    candidates: Sequence[Candidate]
    acts: int
    told: int
    trunk: int
    stem: int
    leaves: Sequence[int]
    silent: frozenset[str]
    seconds: float

    @property
    def slots(self) -> int:
        """Of the whole tree."""
        return self.trunk + self.stem + sum(self.leaves)


def silent(spec: SurfaceSpec, retrieval: Retrieval, visit: Visit, candidates: Sequence[Candidate]) -> frozenset[str]:
    """The sources of the evidence that know nothing of any candidate."""
    history_H = retrieval.history(visit)
    places = [retrieval.index[each.item_id] for each in candidates if each.item_id in retrieval.index]
    known = {
        adviser.name
        for adviser in retrieval.advisers
        if np.any(adviser.source.scores(history_H, visit)[places] > NOTHING)
    }
    return frozenset(spec.evidence) - known - ({OVERALL} if known else set())


def brought(spec: SurfaceSpec, trials: Sequence[Trial]) -> dict[str, float]:
    """How many candidates each source brings, in the mean of all trials."""
    counts = {source.called: 0 for source in spec.sources}
    for candidate in (candidate for trial in trials for candidate in trial.candidates):
        for name in candidate.sources:
            counts[name] = counts.get(name, 0) + 1
    return {name: count / len(trials) for name, count in counts.items()} if trials else {}


def of_trials(spec: SurfaceSpec, found: Survey, trials: Sequence[Trial]) -> Iterator[Advice]:
    """What had no effect, took too long, or did not fit, for any of the members."""
    if not trials or not found.items:
        return
    closed = _closed(spec, found.items, trials)
    yield from closed
    yield from _empty(spec, trials, closed=bool(closed) or any(map(_asks, spec.filters)))
    yield from _silent(spec, trials)
    yield from _cut(spec, trials)
    yield from _leaves(trials)
    yield from _deadline(spec, trials)


def _closed(spec: SurfaceSpec, items: Sequence[Item], trials: Sequence[Trial]) -> list[Advice]:
    """Filters that no item passes, whoever visits; one that asks the request's context may pass some."""
    found = []
    for place, each in enumerate(spec.filters):
        if _asks(each):
            continue
        tests = [(each.excludes(trial.visit), each.test(trial.visit)) for trial in trials]
        if not any(item.item_id not in out and test(item) for out, test in tests for item in items):
            text = f"'{each.type}' drops every item for each of the {_members(trials)}: slates stay empty"
            found.append(Advice(("filters", place), f"{text}; loosen it, or leave it out"))
    return found


def _asks(each: FilterKind) -> bool:
    """Whether it reads the request's context, of which a trial has none."""
    condition = getattr(each, "keep", None)
    return isinstance(condition, Condition) and "context" in condition.names


def _empty(spec: SurfaceSpec, trials: Sequence[Trial], *, closed: bool) -> Iterator[Advice]:
    counts = brought(spec, trials)
    for place, source in enumerate(spec.sources):
        asks = getattr(source, "asks", "")
        if counts[source.called] or closed or source.type == "request" or asks == "query":
            continue
        text = f"'{source.called}' brings nothing for any of the {_members(trials)}"
        yield Advice(("sources", place), f"{text}; {_WHY.get(source.type, 'see whether it knows these items')}")


_WHY = {
    "co_visitation": "it needs members whose timelines share items: wait for more events, or leave it out",
    "bm25": "it needs words in the item template that items share: tell more of them, or leave it out",
    "recent": "it needs items with a time that has come: name an attribute with 'by', or leave it out",
    "embedding": "it needs members who chose something: leave it out until there are events",
    "popular": "every item is filtered out or seen: loosen the filters, or bring more items",
    "sql": "run its query by hand for one of the members",
}


def _silent(spec: SurfaceSpec, trials: Sequence[Trial]) -> Iterator[Advice]:
    asked = [trial for trial in trials if trial.candidates]
    never = frozenset.intersection(*(trial.silent for trial in asked)) if asked else frozenset[str]()
    for place, name in enumerate(spec.evidence):
        if name in never:
            text = f"'{name}' says 'none' of every candidate: its words take slots and tell nothing"
            yield Advice(("evidence", place), f"{text}; leave it out until it knows something")


def _cut(spec: SurfaceSpec, trials: Sequence[Trial]) -> Iterator[Advice]:
    cut = [trial for trial in trials if trial.told < trial.acts]
    if cut:
        left = sum(trial.acts - trial.told for trial in trials)
        text = f"{left:,} of {sum(trial.acts for trial in trials):,} events do not fit the trunk '{spec.trunk}'"
        advice = f"(of {len(cut)} of {_members(trials)}); raise timeline.budget there if old events matter"
        yield Advice(("trunk",), f"{text} {advice}", note=True)


def _leaves(trials: Sequence[Trial]) -> Iterator[Advice]:
    longest = max((slots for trial in trials for slots in trial.leaves), default=0)
    if longest > LONG_LEAF:
        text = f"the longest leaf takes {longest} slots, for every candidate of such a length"
        yield Advice(
            ("prompt", "item"), f"{text}; cut long texts, like {{{{ text | truncate(120) }}}}, or set detail: vector"
        )


def _deadline(spec: SurfaceSpec, trials: Sequence[Trial]) -> Iterator[Advice]:
    fastest, allowed = min(trial.seconds for trial in trials) * 1000, spec.fallback.deadline_ms
    if fastest > allowed:
        text = f"{allowed} ms are less than the fastest of {len(trials)} rankings took here ({fastest:.0f} ms)"
        advice = "slates would come without the model: raise it, lower the sources' k, or shorten the leaves"
        yield Advice(("fallback", "deadline_ms"), f"{text}; {advice}")


def _members(trials: Sequence[Trial]) -> str:
    return f"{len(trials)} members" if len(trials) > 1 else "member"
