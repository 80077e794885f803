"""From a ledger and a surface to labelled trees.

One tree is one member: what they did on all surfaces is the trunk, and at several of its places hang items behind the
surface's stem: the one that they chose next and others that they did not, or a slate that they were shown. Each leaf
sees only what was known at its place.
Legend of array names: A advisers, I items, L leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from foundation.engine.base import Engine
from foundation.training.labels import LabelledTree, Pair
from prompts.errors import ConfigError
from prompts.tree import Piece, PromptNode, PromptTree
from prompts.verbalize import TrunkForm, window
from surfaces.evaluation.payloads import learnable
from surfaces.evaluation.protocols import wanted_actions
from surfaces.evidence import evidence_pieces, levels
from surfaces.examples.labels import Hung, Labels
from surfaces.examples.settings import ExampleSettings
from surfaces.examples.styles import Style, styles
from surfaces.examples.timelines import Course, Integers, Reading, Slate, Timeline, course, timelines
from surfaces.ledger.records import Clock, Item
from surfaces.ledger.store import Ledger
from surfaces.sources.base import NOTHING, Interactions, Materials, Scores
from surfaces.sources.fit import advisers
from surfaces.sources.merge import Adviser
from surfaces.sources.overall import CASES, OVERALL, Case, Overall, learned
from surfaces.sources.vectors import HALF_LIFE, RECENT
from surfaces.spec import SurfaceSpec
from surfaces.visit import Visit

FOLDS = 5
"""Evidence for a member comes from sources fitted to the other folds' members."""
FAVOURED = 75
"""An item that a source places so high is one that a slate would hold."""


@dataclass(frozen=True)
class Shelf:
    """One ledger for training: items by id, timelines, and what is held out of them by any of its surfaces.

    `pairs`: whether trees bring texts that were chosen after others, for a contrast of their vectors.
    """

    ledger: Ledger
    form: TrunkForm
    engine: Engine
    settings: ExampleSettings
    pairs: bool
    items: Mapping[str, Item]
    timelines: Sequence[Timeline]
    timed: bool
    held: dict[str, set[int]]

    @classmethod
    def of(
        cls, ledger: Ledger, form: TrunkForm, engine: Engine, settings: ExampleSettings, *, pairs: bool = False
    ) -> Shelf:
        """Reads the ledger's items and timelines."""
        items = {item.item_id: item for item in ledger.all_items()}
        lines, timed = timelines(ledger, form, engine, FOLDS), ledger.clock == "time"
        return cls(ledger, form, engine, settings, pairs, items, lines, timed, {})


class Voice(NamedTuple):
    """How one tree says things: its style, the advisers that are heard, the slots of its trunk."""

    style: Style
    heard: tuple[int, ...]
    budget: int


class Examples:
    """Labelled trees of one surface over one ledger: a part of a `Mix`."""

    def __init__(self, spec: SurfaceSpec, shelf: Shelf, *, seed: int = 0) -> None:
        """Raises ConfigError when no member has enough choices."""
        self.spec, self.shelf, self.settings = spec, shelf, shelf.settings
        self.items = shelf.ledger.all_items(spec.item_kind)
        self.index = {item.item_id: place for place, item in enumerate(self.items)}
        reading = Reading(spec.surface, self.index, frozenset(spec.unwanted), wanted_actions(spec, shelf.ledger))
        every = [course(timeline, reading, self.settings.holdout) for timeline in shelf.timelines]
        for each in every:
            shelf.held.setdefault(each.timeline.member_id, set()).update(each.held)
        self.courses = [each for each in every if len(each.spots_S)]
        if not self.courses:
            raise ConfigError(
                f"surface '{spec.surface}': no member has more than {self.settings.holdout} choices to learn from"
            )
        self._advisers = _in_common([self._advisers_without(fold, every) for fold in range(FOLDS)])
        self._names = [adviser.name for adviser in self._advisers[0]]
        self._labels = [adviser.label for adviser in self._advisers[0]]
        self._overall = self._weighed() if OVERALL in spec.evidence and self._names else None
        if self._overall:
            self._labels.append(OVERALL)
        self._phrases: dict[tuple[tuple[int, ...], tuple[int, ...]], Piece] = {}
        names = {name for item in self.items for name in item.attributes}
        self.styles = styles(spec, shelf.form, shelf.engine, self.settings, names, seed)
        self._share_I = self._shares(every)

    @property
    def size(self) -> int:
        """How many spots there are to learn from."""
        return sum(len(each.spots_S) for each in self.courses)

    @property
    def newest(self) -> float:
        """The time of the newest spot, in the ledger's clock. Raises ValueError where there is none."""
        return float(max(each.times_S.max() for each in self.courses))

    def only(self, courses: Sequence[Course]) -> Self:
        """The same with trees of these courses alone; what sources know, and what is held out, stays as it is."""
        found = copy(self)
        found.courses = [each for each in courses if len(each.spots_S)]
        return found

    def parted(self, moment: float) -> tuple[Self, Self]:
        """Those whose leaves hang later than a moment, and those whose leaves do not; one of them may be empty."""
        late = [each.times_S > moment for each in self.courses]
        new = [each.at(late_S) for each, late_S in zip(self.courses, late, strict=True)]
        old = [each.at(~late_S) for each, late_S in zip(self.courses, late, strict=True)]
        return self.only(new), self.only(old)

    def drawn(self, rng: np.random.Generator) -> LabelledTree:
        """The tree of a member at random."""
        return self.tree(self.courses[int(rng.integers(len(self.courses)))], rng)

    def tree(self, course: Course, rng: np.random.Generator) -> LabelledTree:
        """One member's tree, at spots drawn at random."""
        voice = self._voice(rng)
        spots = len(course.spots_S)
        anchor = int(rng.integers(min(spots, self.settings.positions) - 1, spots))
        kept, first = self._kept(course.timeline, int(course.spots_S[anchor]), voice, rng)
        free = np.flatnonzero((course.spots_S[: anchor + 1] > first) | (first == 0))
        return self._labelled(course, kept, self._drawn(course, free, rng), voice, rng)

    def _drawn(self, course: Course, free: Integers, rng: np.random.Generator) -> Integers:
        """Some of the spots in their order, slates and choices in the share that is asked for, as far as they go."""
        slate_S = course.which_S[free] < 0
        wanted = min(self.settings.positions, len(free))
        slates = min(int(slate_S.sum()), max(round(self.settings.slates * wanted), wanted - int((~slate_S).sum())))
        picked = [
            rng.choice(free[pool], count, replace=False)
            for pool, count in ((slate_S, slates), (~slate_S, wanted - slates))
        ]
        return np.sort(np.concatenate(picked))

    def _voice(self, rng: np.random.Generator) -> Voice:
        settings = self.settings
        plain = len(self.styles) == 1 or rng.random() < settings.plain
        style = self.styles[0 if plain else int(rng.integers(1, len(self.styles)))]
        heard_A = rng.random(len(self._labels)) >= settings.evidence_dropout
        if rng.random() < settings.without_evidence:
            heard_A[:] = False
        budget = self.shelf.form.budget
        if rng.random() < settings.short_trunks:
            budget = int(np.exp(rng.uniform(np.log(8), np.log(budget))))
        return Voice(style, tuple(np.flatnonzero(heard_A).tolist()), budget)

    def _kept(self, timeline: Timeline, end: int, voice: Voice, rng: np.random.Generator) -> tuple[Integers, int]:
        """The places of a trunk's events before `end`, thinned out, and the place where its window begins.

        They are those that `verbalize` would keep, of what is not held out.
        """
        held = self.shelf.held[timeline.member_id]
        told = np.array([place for place in range(end) if place not in held], dtype=np.int64)
        room = voice.budget - self.shelf.engine.count(timeline.profile)
        low = len(told)
        while low and (room := room - self._cost(timeline, int(told[low - 1]), low - 1, len(told), voice)) >= 0:
            low -= 1
        start = window(len(told), low, self.shelf.form.step)
        first = int(told[start - 1]) + 1 if start else 0
        kept = told[start:]
        return kept[rng.random(len(kept)) >= self.settings.event_dropout], first

    def _cost(self, timeline: Timeline, place: int, number: int, total: int, voice: Voice) -> int:
        return self.shelf.engine.count(self._event(timeline, place, number, total, voice))

    def _event(self, timeline: Timeline, place: int, number: int, total: int, voice: Voice) -> Piece:
        act = timeline.acts[place]
        return voice.style.event(self.shelf.items[act.item_id], act.action, number, total)

    def _labelled(
        self, course: Course, kept: Integers, spots: Integers, voice: Voice, rng: np.random.Generator
    ) -> LabelledTree:
        timeline = course.timeline
        told = [self._event(timeline, int(place), n, len(kept), voice) for n, place in enumerate(kept)]
        nodes = [PromptNode((timeline.profile, *told))]
        labels = Labels(self.spec)
        pairs: list[Pair] = []
        for spot in spots:
            place, which = int(course.spots_S[spot]), int(course.which_S[spot])
            found_AI = self._scores(course, place, which)
            told_AI = self._together(found_AI, course, place)
            hung = self._hung(course, which, told_AI, rng)
            chosen = [item for item, action in zip(hung.items, hung.actions, strict=True) if action is not None]
            stem = len(nodes)
            after = 1 + int(np.searchsorted(kept, place))
            nodes.append(PromptNode(self._stem(voice, chosen, rng), parent=0, after=after))
            if self.settings.new_items:
                told_AI = self._together(self._with_new(found_AI, hung.items, rng), course, place)
            says = self._said(told_AI, course, place, hung.items, voice)
            nodes.extend(
                PromptNode((text, *said), stem, answers=self.spec.answers)
                for text, said in zip(self._texts(hung.items, voice, rng), says, strict=True)
            )
            labels.add(hung)
            if self.shelf.pairs and which >= 0:
                pairs += self._pair(course, place, int(course.items_C[which]), voice)
        prompt = PromptTree(tuple(nodes))
        tree = self.shelf.engine.read(prompt).adapted(self.spec.adapter or "")
        known = (tuple(labels.lists), tuple(labels.choices), tuple(labels.graded), tuple(pairs))
        return LabelledTree(tree, *known, prompt=prompt)

    def _texts(self, hung: Sequence[int], voice: Voice, rng: np.random.Generator) -> list[Piece]:
        """The hung items as text; in a share of them, whatever their labels, are words that attack."""
        texts = [voice.style.leaf(self.items[item]) for item in hung]
        if not self.settings.attacked:
            return texts
        payloads = learnable()
        for n in np.flatnonzero(rng.random(len(hung)) < self.settings.attacked).tolist():
            words, ahead = payloads[int(rng.integers(len(payloads)))], bool(rng.integers(2))
            texts[n] = voice.style.attacked(self.items[hung[n]], words, ahead=ahead)
        return texts

    def _stem(self, voice: Voice, chosen: Sequence[int], rng: np.random.Generator) -> tuple[Piece, ...]:
        """The surface's stem; for a share of positions its context names some of what the chosen item has."""
        focus = self.settings.focus
        if focus is None or not chosen or rng.random() >= self.settings.focus_share:
            return voice.style.stem()
        values = self.items[chosen[0]].attributes.get(focus)
        if not isinstance(values, list) or not values:
            return voice.style.stem()
        named = rng.permutation(len(values))[: int(rng.integers(1, len(values) + 1))]
        return voice.style.stem({focus: [values[int(place)] for place in named]})

    def _scores(self, course: Course, place: int, which: int) -> Scores:
        """[advisers, items]: what sources that never saw this member say at a place, at its time."""
        history_H = course.history(place)
        at = course.slates[-1 - which].time if which < 0 else course.timeline.acts[place].timestamp
        visit = Visit(now=at if self.shelf.timed else 0.0)
        found = [adviser.source.scores(history_H, visit) for adviser in self._advisers[course.timeline.fold]]
        return np.stack(found) if found else np.zeros((0, len(self.items)))

    def _together(self, found_AI: Scores, course: Course, place: int) -> Scores:
        """The same and what the advisers say together, where leaves carry that."""
        return self._overall.read(self._names, found_AI, course.history(place)) if self._overall else found_AI

    def _weighed(self) -> Overall:
        """How the advisers count together, learned from members' last choices that are learned from."""
        able = [course for course in self.courses if course.learned]
        picked = np.random.default_rng(0).permutation(len(able))[:CASES]
        return learned(self._names, (self._case(able[number]) for number in sorted(picked.tolist())))

    def _case(self, course: Course) -> Case:
        which = course.learned - 1
        place = int(course.places_C[which])
        return Case(self._scores(course, place, which), course.history(place), int(course.items_C[which]))

    def _with_new(self, found_AI: Scores, hung: Sequence[int], rng: np.random.Generator) -> Scores:
        """The same, but that some of the hung items were never chosen by anybody: their text has to tell."""
        new = np.array(hung, dtype=np.int64)[rng.random(len(hung)) < self.settings.new_items]
        told_AI = found_AI.copy()
        for scores_I, adviser in zip(told_AI, self._advisers[0], strict=True):
            if adviser.of_new is not None:
                scores_I[new] = adviser.of_new
        return told_AI

    def _said(
        self, found_AI: Scores, course: Course, place: int, shown: Sequence[int], voice: Voice
    ) -> list[tuple[Piece, ...]]:
        """What the advisers that are heard say of each leaf."""
        if not voice.heard:
            return [()] * len(shown)
        history_H, asked = course.history(place), np.array(shown, dtype=np.int64)
        rows = np.stack([levels(found_AI[adviser], history_H, asked) for adviser in voice.heard])
        return [(self._phrase(voice.heard, tuple(row)),) for row in rows.T.tolist()]

    def _phrase(self, heard: tuple[int, ...], row: tuple[int, ...]) -> Piece:
        if (heard, row) not in self._phrases:
            labels = [self._labels[adviser] for adviser in heard]
            [self._phrases[heard, row]] = evidence_pieces(labels, [row], compress=self.spec.prompt.compress)
        return self._phrases[heard, row]

    def _advisers_without(self, fold: int, every: Sequence[Course]) -> tuple[Adviser, ...]:
        """The evidence's sources, fitted to the members of the other folds: the words never tell the answer."""
        others = [each for each in every if each.timeline.fold != fold]
        sequences = tuple(each.items_C[: each.learned] for each in others)
        times = tuple(
            np.array([each.timeline.acts[place].timestamp for place in each.places_C[: each.learned]], dtype=np.float64)
            for each in others
        )
        ids = tuple(item.item_id for item in self.items)
        members = tuple(each.timeline.member_id for each in others)
        clock: Clock = "time" if self.shelf.timed else "order"
        data = Interactions(ids, self.index, members, sequences, times, clock, frozenset(self.spec.unwanted))
        return advisers(Materials(self.spec, data, self.shelf.ledger, self.shelf.engine))

    def _hung(self, course: Course, which: int, found_AI: Scores, rng: np.random.Generator) -> Hung:
        if which < 0:
            return self._slate(course, course.slates[-1 - which], found_AI, rng)
        place = int(course.places_C[which])
        hung = Hung([int(course.items_C[which])], [1.0], [course.timeline.acts[place].action], 1, slate=False)
        return self._more(hung, course, found_AI, self.settings.likely, self.settings.others, rng)

    def _slate(self, course: Course, slate: Slate, found_AI: Scores, rng: np.random.Generator) -> Hung:
        """What was shown, its chosen items in any case, and a few that were not."""
        order = rng.permutation(len(slate.items))
        order = order[np.argsort([slate.actions[n] is None for n in order], kind="stable")][: self.settings.shown]
        items, actions = [slate.items[n] for n in order], [slate.actions[n] for n in order]
        hung = Hung(items, [1.0] * len(items), actions, len(items), slate=True)
        likely, others = self.settings.likely // 4, max(self.settings.others // 4, 1)
        return self._more(hung, course, found_AI, likely, others, rng)

    def _more(
        self, hung: Hung, course: Course, found_AI: Scores, likely: int, others: int, rng: np.random.Generator
    ) -> Hung:
        """With items that never came, drawn from two strata: those that some source favours, and the rest.

        What is held out may be among them, as anything that the member did not choose: to leave it out would give it
        away.
        """
        open_I = np.ones(len(self.items), dtype=bool)
        open_I[course.items_C[: course.learned]] = False
        open_I[hung.items] = False
        favoured_I = _favoured(found_AI, open_I)
        for stratum_I, wanted in ((favoured_I, likely), (~favoured_I, others)):
            pool = np.flatnonzero(open_I & stratum_I)
            drawn = rng.choice(pool, min(wanted, len(pool)), replace=False)
            hung.items.extend(drawn.tolist())
            hung.stands_for.extend([len(pool) / len(drawn)] * len(drawn) if len(drawn) else [])
            hung.actions.extend([None] * len(drawn))
        return hung

    def _pair(self, course: Course, place: int, target: int, voice: Voice) -> list[Pair]:
        """The chosen item beside what the member chose before, as the source `embedding` will weigh it."""
        last = course.history(place)[-RECENT:].tolist()
        if not last:
            return []
        weights = 0.5 ** (np.arange(len(last) - 1, -1, -1.0) / HALF_LIFE)
        texts = tuple(voice.style.tokens(self.items[item]) for item in last)
        aim, share = voice.style.tokens(self.items[target]), float(np.log(self._share_I[target]))
        return [Pair(texts, tuple(weights / weights.sum()), aim, share, self.spec.surface)]

    def _shares(self, every: Sequence[Course]) -> npt.NDArray[np.float64]:
        """[items]: how often each was chosen, as a share of all choices that are learned from."""
        chosen = np.concatenate([np.zeros(0, dtype=np.int64), *(each.items_C[: each.learned] for each in every)])
        counts_I = np.bincount(chosen, minlength=len(self.items)) + 1.0
        shares_I: npt.NDArray[np.float64] = counts_I / counts_I.sum()
        return shares_I


def _in_common(folds: Sequence[Sequence[Adviser]]) -> list[tuple[Adviser, ...]]:
    """The advisers of each fold without those that had too little to learn from in another one."""
    names = set.intersection(*({adviser.name for adviser in advisers} for advisers in folds))
    return [tuple(adviser for adviser in advisers if adviser.name in names) for advisers in folds]


def _favoured(found_AI: Scores, open_I: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """[items]: whether some adviser places the item among its first `FAVOURED` of those that are open."""
    favoured_I = np.zeros(len(open_I), dtype=bool)
    for scores_I in found_AI:
        left_I = np.where(open_I, scores_I, NOTHING)
        if len(left_I) > FAVOURED:
            threshold = np.partition(left_I, len(left_I) - FAVOURED)[len(left_I) - FAVOURED]
            favoured_I |= (left_I >= threshold) & (left_I > NOTHING)
        else:
            favoured_I |= left_I > NOTHING
    return favoured_I
