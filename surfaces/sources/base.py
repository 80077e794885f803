"""What sources learn from, what every source does, and how the best of its scores are taken.

Legend of array names: I items, H events of a history, in the order of time.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from pydantic import Field

from prompts.errors import ConfigError
from surfaces.fields import Name, Strict
from surfaces.happenings import attributes_of
from surfaces.ledger.records import IMPRESSION, Clock, Event, Item
from surfaces.ledger.store import Ledger
from surfaces.visit import NOBODY, Visit

if TYPE_CHECKING:
    from foundation.engine.base import Engine
    from surfaces.sources.bm25 import TextIndex
    from surfaces.sources.vectors import Vectors
    from surfaces.spec import SurfaceSpec

Indices = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

NOTHING = -np.inf
"""The score of an item of which a source has nothing to say."""

K = Annotated[int, Field(ge=1, le=1_000, description="How many candidates the source brings.")]


@dataclass(frozen=True, slots=True)
class Interactions:
    """Who chose which items of one kind, and when; impressions and `unwanted` actions are left out.

    `index[item_ids[i]] == i`. Member `m` is `member_ids[m]`; `sequences[m]` are indices of items in the order of time,
    `times[m]` their timestamps. Items that nobody chose are among `item_ids` too. `people` tells which item a member
    is, by the member's id.
    """

    item_ids: tuple[str, ...]
    index: dict[str, int]
    member_ids: tuple[str, ...]
    sequences: tuple[Indices, ...]
    times: tuple[Scores, ...]
    clock: Clock = "time"
    unwanted: frozenset[str] = frozenset()
    people: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, ledger: Ledger, kind: str, *, before: float | None = None, unwanted: Collection[str] = ()
    ) -> Interactions:
        """The ledger's events with items of that kind, on any surface; with `before`, only earlier ones.

        Events with an `unwanted` action (a hide, a dismissal) are no choices. Raises ConfigError for `before` where the
        ledger's timestamps are no times.
        """
        if before is not None and ledger.clock == "order":
            raise ConfigError("before: a split by time needs times, but this ledger's clock is 'order'")
        items = ledger.all_items(kind)
        item_ids = tuple(item.item_id for item in items)
        people = {item.member_id: item.item_id for item in reversed(items) if item.member_id is not None}
        index = {item_id: place for place, item_id in enumerate(item_ids)}
        if not item_ids:
            return cls((), {}, (), (), (), ledger.clock, frozenset(unwanted))
        left_out = frozenset(unwanted) | {IMPRESSION}
        chosen = (event for event in ledger.all_events(kind, left_out) if event.item_id in index)
        early = (event for event in chosen if before is None or event.timestamp < before)
        member_ids, sequences, times = [], [], []
        for member_id, events in groupby(early, key=lambda event: event.member_id):
            timeline = list(events)
            member_ids.append(member_id)
            sequences.append(np.array([index[event.item_id] for event in timeline], dtype=np.int64))
            times.append(np.array([event.timestamp for event in timeline], dtype=np.float64))
        found = (tuple(member_ids), tuple(sequences), tuple(times))
        return cls(item_ids, index, *found, ledger.clock, frozenset(unwanted), people)

    @property
    def chosen(self) -> Indices:
        """The items that somebody chose, in ascending order."""
        return np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *self.sequences]))

    def without_last(self, count: int) -> Interactions:
        """The same without the last `count` events of each member."""
        return self.first({name: max(len(t) - count, 0) for name, t in zip(self.member_ids, self.times, strict=True)})

    def first(self, kept: Mapping[str, int]) -> Interactions:
        """The same with only the first events of each member, so many as `kept` says; all where it says nothing."""
        ends = [kept.get(name, len(times)) for name, times in zip(self.member_ids, self.times, strict=True)]
        sequences = tuple(sequence[:end] for sequence, end in zip(self.sequences, ends, strict=True))
        times = tuple(times[:end] for times, end in zip(self.times, ends, strict=True))
        return replace(self, sequences=sequences, times=times)

    def history(self, timeline: Iterable[Event]) -> Indices:
        """A timeline as indices of the items known here; what is no choice, and other items, are left out."""
        return history_of(self.index, timeline, self.unwanted)


def history_of(index: Mapping[str, int], timeline: Iterable[Event], unwanted: Collection[str] = ()) -> Indices:
    """A timeline as indices of items, without impressions, unwanted actions, and items that are not in the index."""
    left_out = {IMPRESSION, *unwanted}
    places = [index[event.item_id] for event in timeline if event.item_id in index and event.action not in left_out]
    return np.array(places, dtype=np.int64)


class Source(Protocol):
    """Scores every item for a member, from what it learned in `fit`. `scores` may be called from any thread."""

    def fit(self, data: Interactions) -> None:
        """Learns from the interactions; what was learned before is forgotten. Raises ConfigError for a wrong clock."""
        ...

    def scores(self, history_H: Indices, visit: Visit = NOBODY) -> Scores:
        """[items]: higher is better, `NOTHING` where the source has nothing to say, never NaN."""
        ...


@runtime_checkable
class Searching(Protocol):
    """A source that finds its best items without scoring all of them."""

    def search(self, history_H: Indices, count: int, visit: Visit = NOBODY) -> list[tuple[int, float]]:
        """The `count` best items with their scores, best first."""
        ...


@dataclass(frozen=True)
class Reading:
    """What is read of a surface's items: each thing once, whoever asks for it."""

    surface: SurfaceSpec
    item_ids: Sequence[str]
    ledger: Ledger

    @cached_property
    def items(self) -> Sequence[Item]:
        """The items, in the order of `item_ids`."""
        found = self.ledger.items(self.item_ids)
        return [found[item_id] for item_id in self.item_ids]

    @cached_property
    def texts(self) -> Sequence[str]:
        """What a leaf says of each item."""
        return [self.surface.prompt.wording().leaf(attributes_of(item)) or item.kind for item in self.items]

    @cached_property
    def words(self) -> TextIndex:
        """The words of the texts, for sources that look for them."""
        from surfaces.sources.bm25 import TextIndex

        return TextIndex(self.texts)


@dataclass(frozen=True)
class Materials:
    """What a source may be made of: the surface, its interactions, the ledger, and the model where there is one."""

    surface: SurfaceSpec
    data: Interactions
    ledger: Ledger
    engine: Engine | None = None

    def over(self, data: Interactions) -> Materials:
        """The same with other interactions of the same items: what was read of the items is not read again."""
        found = replace(self, data=data)
        if "vectors" in vars(self):
            vars(found)["vectors"] = self.vectors
        vars(found)["reading"] = self.reading
        return found

    def reads(self, items: Sequence[Item]) -> Materials:
        """The same where the items, in the order of `data.item_ids`, need not be in the ledger."""
        found = replace(self)
        vars(found.reading)["items"] = items
        return found

    def without_model(self) -> Materials:
        """The same for a source that asks no model."""
        found = replace(self, engine=None)
        vars(found)["reading"] = self.reading
        return found

    @cached_property
    def reading(self) -> Reading:
        """What is read of the items, shared with the materials that are made of these."""
        return Reading(self.surface, self.data.item_ids, self.ledger)

    @property
    def items(self) -> Sequence[Item]:
        """The items that can be ranked, in the order of `data.item_ids`."""
        return self.reading.items

    @property
    def texts(self) -> Sequence[str]:
        """What a leaf says of each item."""
        return self.reading.texts

    @property
    def words(self) -> TextIndex:
        """The words of the texts."""
        return self.reading.words

    @cached_property
    def vectors(self) -> Vectors:
        """The items' vectors. Raises ConfigError without a model."""
        from surfaces.sources.vectors import Vectors

        if self.engine is None:
            name = self.surface.surface
            raise ConfigError(f"surface '{name}': the items' vectors need a model; name one")
        return Vectors.of(self.texts, partial(self.engine.embed, salt=self.ledger.tenant))


class SourceKind(Strict):
    """An entry of `sources`: where candidates come from, and how many of them.

    `label` is what the source's opinion is called in a leaf's evidence; a source without one gives no evidence.
    `where` names keys that say where the source finds what it needs: as an adviser it takes them from the surface's own
    source of its type. `of_new` is the score that an item has which nobody has chosen yet; None where the source judges
    new items as it does others, by their text or their attributes. `of_model`: the source asks the model for something,
    and is made anew with each model; the others get none. `of_history`: what it scores depends on the history alone, so
    that it may be kept for the next visit with the same history; see also `Based`.
    """

    label: ClassVar[str] = ""
    of_new: ClassVar[float | None] = None
    of_model: ClassVar[bool] = False
    of_history: ClassVar[bool] = False
    where: ClassVar[tuple[str, ...]] = ()
    type: str
    name: Annotated[Name | None, Field(description="What replies call it; by default its type.")] = None
    k: K
    weight: Annotated[float, Field(gt=0, le=100, description="What its ranks count for when lists are merged.")] = 1.0

    @property
    def called(self) -> str:
        """The source's name on this surface."""
        return self.name or self.type

    @abstractmethod
    def build(self, materials: Materials) -> Source:
        """The source, not yet fitted. Raises ConfigError for what is not to be had."""


@runtime_checkable
class Based(Protocol):
    """A source that tells what its scores depend on."""

    def basis(self, history_H: Indices, visit: Visit) -> str:
        """What they depend on beside the history."""
        ...


@runtime_checkable
class Learner(Protocol):
    """A source that may have learned nothing from its data, and says so: its opinion is not asked for then."""

    @property
    def learned(self) -> bool:
        """Whether it has anything to say of anybody."""
        ...


def retrieve(
    source: Source, history_H: Indices, k: int, exclude: Collection[int] = (), visit: Visit = NOBODY
) -> list[tuple[int, float]]:
    """The `k` best items that are not excluded, as (index, score), best first, ties by index.

    Fewer when the source has nothing to say of more.
    """
    if isinstance(source, Searching):
        found = source.search(history_H, k + len(exclude), visit)
        return [(item, score) for item, score in found if item not in exclude][:k]
    scores_I = source.scores(history_H, visit).copy()
    scores_I[np.fromiter(exclude, dtype=np.int64)] = NOTHING
    return [(int(item), float(scores_I[item])) for item in best(scores_I, k)]


def best(scores_I: Scores, k: int) -> Indices:
    """Indices of the `k` highest scores above `NOTHING`, highest first, ties by index."""
    known = np.flatnonzero(scores_I > NOTHING)
    if len(known) > k:
        threshold = np.partition(scores_I[known], len(known) - k)[len(known) - k]
        above = known[scores_I[known] > threshold]
        level = known[scores_I[known] == threshold][: k - len(above)]
        known = np.concatenate([above, level])
    return known[np.lexsort((known, -scores_I[known]))]
