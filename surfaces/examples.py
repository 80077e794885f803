"""From a ledger and a surface to labelled trees.

One tree is one member: their timeline is the trunk, and at several of its positions hang the item that came next and
items that never came, as leaves behind the surface's stem. Each leaf sees only what was known at its position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from foundation.engine.base import Engine
from foundation.training.labels import Choice, LabelledTree, Listwise
from prompts.errors import ConfigError
from prompts.tree import Piece, PromptNode, PromptTree
from prompts.verbalize import Happening, TrunkForm, compressed, event_piece, fitted, profile_piece, window
from surfaces.compose import leaf_piece, stem_pieces
from surfaces.evidence import NONE as NOT_FOUND
from surfaces.evidence import TOPS, evidence_piece, levels
from surfaces.happenings import attributes_of
from surfaces.heads.base import NO, NONE, YES
from surfaces.ledger.records import IMPRESSION
from surfaces.ledger.store import Ledger
from surfaces.sources.base import Interactions, Materials
from surfaces.sources.fit import advisers
from surfaces.sources.merge import Adviser
from surfaces.spec import SurfaceSpec

FOLDS = 5
"""Evidence for a member comes from sources fitted to the other folds' members."""


FAVOURED = TOPS.index(75)
"""An item that a source places so high is one that a slate would hold."""


class ExampleSettings(BaseModel):
    """How many leaves a tree gets, and where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    positions: int = Field(12, ge=1, le=1024, description="Positions of a timeline where leaves hang.")
    likely: int = Field(24, ge=0, le=4096, description="Others at each position, of those that the evidence favours.")
    others: int = Field(24, ge=1, le=4096, description="Others at each position, of the rest.")
    holdout: int = Field(2, ge=0, le=100, description="Last events of each member that nothing is learned from.")
    event_dropout: float = Field(0.0, ge=0, lt=1, description="Share of a trunk's events that are left out at random.")
    focus: str | None = Field(None, description="An attribute (a list) that the stem's context sometimes names.")
    focus_share: float = Field(0.0, ge=0, le=1, description="Share of positions whose stem names it.")


@dataclass(frozen=True, slots=True)
class Timeline:
    """A member's profile and their events with items that can be ranked, oldest first."""

    member_id: str
    profile: Piece
    items: npt.NDArray[np.int64]
    actions: tuple[str, ...]
    fold: int


class Examples:
    """Labelled trees of one surface. Implements `foundation.training.trainer.Data`."""

    def __init__(
        self,
        spec: SurfaceSpec,
        form: TrunkForm,
        ledger: Ledger,
        engine: Engine,
        settings: ExampleSettings,
        *,
        trees_per_step: int,
        seed: int,
    ) -> None:
        """Raises ConfigError when no member has enough events."""
        self.spec, self.form, self.ledger, self.engine, self.settings = spec, form, ledger, engine, settings
        self.trees_per_step, self.seed = trees_per_step, seed
        self.items = ledger.all_items(spec.item_kind)
        self.index = {item.item_id: place for place, item in enumerate(self.items)}
        self.timelines = [
            t for t in _timelines(ledger, form, engine, self.index) if len(t.items) > settings.holdout + 1
        ]
        if not self.timelines:
            raise ConfigError(f"surface '{spec.surface}': no member has more than {settings.holdout + 1} events")
        self._advisers = [self._advisers_without(fold) for fold in range(FOLDS)]
        self._events: dict[tuple[int, str], Piece] = {}
        self._phrases: dict[tuple[int, ...], Piece] = {}

    def batch(self, step: int) -> list[LabelledTree]:
        """The trees of one step: members in a new order every epoch, the same for the same step."""
        rng = np.random.default_rng((self.seed, step))
        return [self.tree(self.timelines[number], rng) for number in self._members(step)]

    def tree(self, timeline: Timeline, rng: np.random.Generator) -> LabelledTree:
        """One member's tree, at positions drawn at random."""
        last = len(timeline.items) - self.settings.holdout
        end = int(rng.integers(min(last, self.settings.positions + 1), last + 1))
        kept = self._kept(timeline, end - 1, rng)
        earliest = max(1, int(kept[0]) if len(kept) else 1)
        free = np.arange(min(earliest, end - 1), end)
        targets = np.sort(rng.choice(free, min(self.settings.positions, len(free)), replace=False))
        return self._labelled(timeline, kept, [int(target) for target in targets], rng)

    def _members(self, step: int) -> list[int]:
        size = len(self.timelines)
        places = range(step * self.trees_per_step, (step + 1) * self.trees_per_step)
        orders = {epoch: self._order(epoch) for epoch in {place // size for place in places}}
        return [int(orders[place // size][place % size]) for place in places]

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng((self.seed, 1 << 40, epoch)).permutation(len(self.timelines))

    def _kept(self, timeline: Timeline, total: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """The events of the trunk: those that `verbalize` would keep of the first `total`, thinned out."""
        costs = [self.engine.count(self._event(timeline, event, total)) for event in range(total)]
        room = self.form.budget - self.engine.count(timeline.profile)
        fitting = int(np.searchsorted(np.cumsum(costs[::-1]), room, side="right"))
        events = np.arange(window(total, total - fitting, self.form.step), total)
        return events[rng.random(len(events)) >= self.settings.event_dropout]

    def _labelled(
        self, timeline: Timeline, kept: npt.NDArray[np.int64], targets: Sequence[int], rng: np.random.Generator
    ) -> LabelledTree:
        trunk = [timeline.profile, *(self._event(timeline, int(event), int(kept[-1]) + 1) for event in kept)]
        nodes = [PromptNode(tuple(trunk))]
        lists: list[Listwise] = []
        choices: list[Choice] = []
        leaves = 0
        for target in targets:
            after = 1 + int(np.searchsorted(kept, target))
            stem = len(nodes)
            nodes.append(PromptNode(self._stem(timeline, target, rng), parent=0, after=after))
            found_AI = self._levels(timeline, target)
            shown, stands_for = self._shown(timeline, target, found_AI, rng)
            nodes.extend(
                PromptNode((self._leaves[item], *said), stem, answers=self.spec.answers)
                for item, said in zip(shown, self._evidence(found_AI, shown), strict=True)
            )
            lists += self._chosen(leaves, stands_for)
            choices += self._done(leaves, timeline.actions[target])
            leaves += len(shown)
        return LabelledTree(self.engine.read(PromptTree(tuple(nodes))), tuple(lists), tuple(choices))

    def _stem(self, timeline: Timeline, target: int, rng: np.random.Generator) -> tuple[Piece, ...]:
        """The surface's stem; for a share of positions its context names some of what the chosen item has."""
        focus = self.settings.focus
        if focus is None or rng.random() >= self.settings.focus_share:
            return self._plain_stem
        values = self.items[int(timeline.items[target])].attributes.get(focus)
        if not isinstance(values, list) or not values:
            return self._plain_stem
        named = rng.permutation(len(values))[: int(rng.integers(1, len(values) + 1))]
        return stem_pieces(self.spec, {focus: [values[int(place)] for place in named]})

    def _levels(self, timeline: Timeline, target: int) -> npt.NDArray[np.int64]:
        """[evidence sources, items]: what sources that never saw this member say at a position."""
        history_H = timeline.items[:target]
        found = [levels(adviser.source.scores(history_H), history_H) for adviser in self._advisers[timeline.fold]]
        return np.stack(found) if found else np.full((0, len(self.items)), NOT_FOUND)

    def _evidence(self, found_AI: npt.NDArray[np.int64], shown: Sequence[int]) -> list[tuple[Piece, ...]]:
        if not len(found_AI):
            return [()] * len(shown)
        return [(self._said(tuple(row)),) for row in found_AI[:, shown].T.tolist()]

    def _said(self, row: tuple[int, ...]) -> Piece:
        if row not in self._phrases:
            labels = [adviser.label for adviser in self._advisers[0]]
            self._phrases[row] = evidence_piece(labels, row, compress=self.spec.prompt.compress)
        return self._phrases[row]

    def _advisers_without(self, fold: int) -> tuple[Adviser, ...]:
        """The evidence's sources, fitted to the members of the other folds: the words never tell the answer."""
        others = [timeline for timeline in self.timelines if timeline.fold != fold]
        sequences = tuple(t.items[: len(t.items) - self.settings.holdout] for t in others)
        times = tuple(np.arange(len(sequence), dtype=np.float64) for sequence in sequences)
        ids = tuple(item.item_id for item in self.items)
        data = Interactions(ids, self.index, tuple(t.member_id for t in others), sequences, times)
        return advisers(Materials(self.spec, data, self.ledger, self.engine))

    def _shown(
        self, timeline: Timeline, target: int, found_AI: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[list[int], tuple[float, ...]]:
        """The item that came at `target`, and others that never came; for how many items each of them stands.

        The others are drawn in two strata, those that some source favours and the rest: hard ones and easy ones. What
        is held out may be among them, as anything that the member did not choose: to leave it out would give it away.
        """
        unseen_I = np.ones(len(self.items), dtype=bool)
        unseen_I[timeline.items[: len(timeline.items) - self.settings.holdout]] = False
        favoured_I = (found_AI <= FAVOURED).any(axis=0)
        shown, stands_for = [int(timeline.items[target])], [1.0]
        for stratum_I, wanted in ((favoured_I, self.settings.likely), (~favoured_I, self.settings.others)):
            pool = np.flatnonzero(unseen_I & stratum_I)
            drawn = rng.choice(pool, min(wanted, len(pool)), replace=False)
            shown += drawn.tolist()
            stands_for += [len(pool) / len(drawn)] * len(drawn) if len(drawn) else []
        return shown, tuple(stands_for)

    def _chosen(self, first: int, stands_for: tuple[float, ...]) -> list[Listwise]:
        if "pointwise" not in {head.type for head in self.spec.heads}:
            return []
        yes, no = self.spec.answers.index(YES), self.spec.answers.index(NO)
        return [Listwise(tuple(range(first, first + len(stands_for))), 0, yes, no, stands_for)]

    def _done(self, leaf: int, action: str) -> list[Choice]:
        """What the member did with the chosen item: one of the choice heads, or none of them."""
        words = [head.name for head in self.spec.choices if action in head.actions]
        if not self.spec.choices:
            return []
        columns = tuple(self.spec.answers.index(word) for word in (*(h.name for h in self.spec.choices), NONE))
        chosen = self.spec.answers.index(words[0] if words else NONE)
        return [Choice(leaf, columns, columns.index(chosen))]

    def _event(self, timeline: Timeline, event: int, total: int) -> Piece:
        key = int(timeline.items[event]), timeline.actions[event]
        if key not in self._events:
            item = self.items[key[0]]
            happening = Happening(item.kind, key[1], attributes_of(item))
            self._events[key] = event_piece(self.form, happening, compress=False)
        piece = self._events[key]._replace(compress=compressed(self.form, event, total))
        return fitted(piece, self.form.budget, self.engine.count)

    @cached_property
    def _plain_stem(self) -> tuple[Piece, ...]:
        return stem_pieces(self.spec)

    @cached_property
    def _leaves(self) -> list[Piece]:
        return [leaf_piece(self.spec, attributes_of(item)) for item in self.items]


def _timelines(ledger: Ledger, form: TrunkForm, engine: Engine, index: Mapping[str, int]) -> list[Timeline]:
    """Of every member, what they chose among the items of `index`, in the order of time."""
    profiles = {
        member.member_id: fitted(profile_piece(form, member.profile), form.budget, engine.count)
        for member in ledger.all_members()
    }
    found = []
    for number, (member_id, events) in enumerate(groupby(ledger.all_events(), key=lambda event: event.member_id)):
        chosen = [event for event in events if event.action != IMPRESSION and event.item_id in index]
        items = np.array([index[event.item_id] for event in chosen], dtype=np.int64)
        actions = tuple(event.action for event in chosen)
        found.append(Timeline(member_id, profiles[member_id], items, actions, number % FOLDS))
    return found
