"""The curves' axes, and the points on each: after 360Brew (arXiv 2501.16450), where they are told in words.

A point is one run's model on some cases. Points of an axis are asked for the same members wherever the axis lets them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from prompts.verbalize import Detail
from surfaces.curves.trial import Laboratory, Trial
from surfaces.evaluation.protocols import (
    Case,
    Split,
    chosen_places,
    drawn,
    global_time,
    leave_one_out,
    timelines,
    wanted_actions,
)
from surfaces.evaluation.segments import DAY
from surfaces.sources.fit import interactions_of
from surfaces.training.run import Taught

SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
SCALES = (1 / 2, 1.0, 2.0)
DETAILS: Mapping[Detail, int] = {"text": 4, "mixed": 2, "vector": 1}
"""How events are told, and in how many times the trunk's budget: a text takes a dozen slots, a vector one."""
COLD = (5, 10, 100)
"""Most choices that a member has made."""
WINDOW, BINS = 0.2, 4
"""The share of events that comes after training ends, and into how many parts its members are cut."""


class Point(NamedTuple):
    """A model on some cases. `x` is None where it is the model's parameters; `series` parts the points of an axis."""

    trial: Trial
    surface: str
    split: Split
    x: float | None
    label: str
    series: str = ""


@dataclass(frozen=True, slots=True)
class Axis:
    """One curve: the unit of `x`, how it is drawn, whether it is about surfaces that were never seen, its points."""

    title: str
    unit: str
    scale: Literal["log", "linear", "names"]
    unseen: bool
    points: Callable[[Laboratory], Iterator[Point]]


def _data(lab: Laboratory) -> Iterator[Point]:
    split = _last(lab, lab.taught[0])
    for share in SHARES:
        count = lab.members(share)
        yield Point(Trial(share=share), lab.taught[0].spec.surface, split, count, f"{count} members")


def _model(lab: Laboratory) -> Iterator[Point]:
    split = _last(lab, lab.taught[0])
    for scale in SCALES:
        yield Point(Trial(scale=scale), lab.taught[0].spec.surface, split, None, f"{scale:g} times as wide and deep")


def _history(lab: Laboratory) -> Iterator[Point]:
    first = lab.taught[0]
    split = _last(lab, first)
    for share in SHARES:
        budget = max(2, int(first.form.budget * share))
        trial = Trial(budget=budget) if budget != first.form.budget else Trial()
        yield Point(trial, first.spec.surface, split, budget, f"{budget} slots")


def _detail(lab: Laboratory) -> Iterator[Point]:
    first = lab.taught[0]
    split = _last(lab, first)
    for number, (detail, times) in enumerate(DETAILS.items()):
        as_it_comes = detail == first.form.detail == first.spec.prompt.detail
        trial = Trial() if as_it_comes else Trial(budget=first.form.budget * times, detail=detail)
        yield Point(trial, first.spec.surface, split, number, detail)


def _cold(lab: Laboratory) -> Iterator[Point]:
    """Members of whom nothing was learned, after their first choices."""
    for most in COLD:
        split = _young(lab, lab.taught[0], most)
        yield Point(Trial(strangers=True), lab.taught[0].spec.surface, split, most, f"up to {most} events")


def _gap(lab: Laboratory) -> Iterator[Point]:
    """Members in the order of the time since training ended, as many in each part."""
    first = lab.taught[0]
    who = lab.config.validation
    split = global_time(first.ledger, first.spec, seed=who.seed, candidates=who.candidates, share=WINDOW, history=1)
    days_M = np.array([(case.time - float(split.cut or 0.0)) / DAY for case in split.cases])
    for part in np.array_split(np.argsort(days_M, kind="stable"), BINS):
        if len(part):
            cases = tuple(split.cases[place] for place in part)
            days = float(np.median(days_M[part]))
            label = f"{days_M[part[0]]:.1f} to {days_M[part[-1]]:.1f} days"
            yield Point(Trial(until=split.cut), first.spec.surface, replace(split, cases=cases), days, label)


def _surface(lab: Laboratory) -> Iterator[Point]:
    for number, taught in enumerate(lab.taught):
        name, split = taught.spec.surface, _last(lab, taught)
        yield Point(Trial(), name, split, number, name, "learned")
        yield Point(Trial(without=name), name, split, number, name, "never seen")


AXES: Mapping[str, Axis] = {
    "data": Axis("Members that are learned from", "members", "log", False, _data),
    "model": Axis("Size of the model", "parameters", "log", False, _model),
    "history": Axis("Length of the history", "slots of the trunk", "log", False, _history),
    "detail": Axis("Events as text or as vectors", "detail of the trunk", "names", False, _detail),
    "cold": Axis("Members whom nobody knew", "events of a member, at most", "log", False, _cold),
    "gap": Axis("Time since training", "days (median of a quarter of the members)", "linear", False, _gap),
    "surface": Axis("Surfaces that were never seen", "surface", "names", True, _surface),
}


def _last(lab: Laboratory, taught: Taught) -> Split:
    """What is asked: the last choice of some members, which nothing is learned from."""
    who = lab.config.validation
    return leave_one_out(
        taught.ledger, taught.spec, members=who.members, seed=who.seed, candidates=who.candidates
    )  # fmt: skip


def _young(lab: Laboratory, taught: Taught, most: int) -> Split:
    """Of strangers, the last wanted choice that has at most so many choices before it, and one at least."""
    data, label = interactions_of(taught.spec, taught.ledger), wanted_actions(taught.spec, taught.ledger)
    cases = []
    for timeline in timelines(taught.ledger):
        if timeline[0].member_id not in lab.strangers:
            continue
        places = chosen_places(timeline, data)[: most + 1]
        if wanted := [place for place in places[1:] if timeline[place].action in label]:
            cases.append(Case.of(timeline[: wanted[-1]], timeline[wanted[-1]]))
    who = lab.config.validation
    known = data.first(dict.fromkeys(lab.strangers, 0))
    picked = drawn(cases, who.members, who.seed)
    return Split("leave-one-out", picked, known, candidates=who.candidates, seed=who.seed)
