"""The first stage of every ranking: the sources of a surface, asked together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable
from weakref import ref

import numpy as np
import numpy.typing as npt

from prompts.tree import Piece
from surfaces.evidence import NONE, evidence_pieces, stand, top
from surfaces.filters.base import FilterKind
from surfaces.lately import Lately
from surfaces.ledger.kept import Timeline
from surfaces.ledger.records import Item
from surfaces.sources.base import Based, Indices, Source, best, history_of, retrieve
from surfaces.sources.opinions import Opinion, Opinions
from surfaces.sources.overall import OVERALL, Overall, together
from surfaces.sources.popular import Popular
from surfaces.sources.vectors import Vectors
from surfaces.visit import Visit

RRF = 60
"""A source gives its candidate of rank r the weight 1 / (60 + r): reciprocal-rank fusion.

G. Cormack, C. Clarke, S. Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods",
SIGIR 2009.
"""
HISTORIES = 256
"""So many members' histories are kept."""
AT_FIRST, ROUNDS, WIDER = 25, 4, 4
"""A source is asked for at least 25; where they are filtered out, for four times as many, up to 64 times as many."""


class Candidate(NamedTuple):
    """An item to rank; `sources` tells which sources brought it, and at which rank of theirs (1 is the best)."""

    item_id: str
    sources: Mapping[str, int]


class Fitted(NamedTuple):
    """A source that has learned: its name on the surface, how many candidates it may bring, what its ranks weigh."""

    name: str
    source: Source
    k: int
    weight: float = 1.0


class Adviser(NamedTuple):
    """A source whose opinion leaves carry: its type, what it is called there, and what its kind tells of it.

    `based` is the source itself, where it tells what its scores depend on.
    """

    name: str
    label: str
    source: Source
    of_new: float | None = None
    of_history: bool = False
    based: Based | None = None

    def basis(self, history_H: Indices, visit: Visit) -> str | None:
        """What its opinion depends on beside the history; None where that is not known."""
        if self.based is not None:
            return self.based.basis(history_H, visit)
        return "" if self.of_history else None


@runtime_checkable
class Naming(Protocol):
    """A source that names its candidates itself, best first: the others need not know them."""

    def named(self, visit: Visit) -> Sequence[str]:
        """Ids of items."""
        ...


class _History(NamedTuple):
    """What a member chose, as indices of items, a short name of that, and the timeline in which they did."""

    timeline: ref[Timeline] | None
    history_H: Indices
    name: bytes


@dataclass(frozen=True, slots=True)
class Retrieval:
    """A surface's fitted sources. `last_resort` is asked when none of them knows anything.

    `advisers` are the sources whose opinions the leaves carry, and `overall` weighs what they say together, where the
    leaves carry that, too; `opinions` keeps what they said. `vectors` are the items', where the surface reads them.
    Events with an `unwanted` action say nothing of what a member likes. `people` tells which item a member is: nobody
    is a candidate for themselves.
    """

    item_ids: Sequence[str]
    index: Mapping[str, int]
    sources: tuple[Fitted, ...]
    last_resort: Popular
    advisers: tuple[Adviser, ...] = ()
    filters: tuple[FilterKind, ...] = ()
    vectors: Vectors | None = None
    unwanted: frozenset[str] = frozenset()
    people: Mapping[str, str] = field(default_factory=dict)
    overall: Overall | None = None
    opinions: Opinions = field(default_factory=Opinions, compare=False)
    _histories: Lately[str, _History] = field(default_factory=lambda: Lately(HISTORIES), compare=False)

    def history(self, visit: Visit) -> Indices:
        """What the member chose, as indices of items."""
        return self._history(visit).history_H

    def _history(self, visit: Visit) -> _History:
        """Of the very same timeline it is made once, where that is one which is kept."""
        kept = visit.timeline if isinstance(visit.timeline, Timeline) else None
        known = self._histories.find(visit.member_id) if kept is not None else None
        if known is not None and known.timeline is not None and known.timeline() is kept:
            return known
        history_H = history_of(self.index, visit.timeline, self.unwanted)
        name = hashlib.blake2b(history_H.tobytes(), digest_size=16).digest()
        found = _History(None if kept is None else ref(kept), history_H, name)
        if kept is not None:
            self._histories.keep(visit.member_id, found)
        return found

    def forget(self) -> None:
        """Drops what is kept of members."""
        self.opinions.forget()
        self._histories.forget()

    def evidence(self, visit: Visit, item_ids: Sequence[str], *, compress: bool) -> list[Piece]:
        """What the advisers say of each of the items, in words; nothing without advisers."""
        if not self.advisers:
            return []
        history = self._history(visit)
        bases = [adviser.basis(history.history_H, visit) for adviser in self.advisers]
        opinions = [self._opinion(*each, history, visit) for each in zip(self.advisers, bases, strict=True)]
        labels = [adviser.label for adviser in self.advisers]
        if self.overall:
            opinions.append(self._together(opinions, bases, history))
            labels.append(OVERALL)
        known, places = self._known(item_ids)
        asked_AK = np.stack([opinion.scores_I[places] for opinion in opinions])
        found_AL = np.full((len(labels), len(item_ids)), NONE)
        found_AL[:, known] = stand([opinion.top_T for opinion in opinions], asked_AK)
        return evidence_pieces(labels, found_AL.T.tolist(), compress=compress)

    def _known(self, item_ids: Sequence[str]) -> tuple[Indices, Indices]:
        """Which of the items the sources know, as places in this list, and the indices of these."""
        indices_L = np.array([self.index.get(item_id, -1) for item_id in item_ids], dtype=np.int64)
        known = np.flatnonzero(indices_L >= 0)
        return known, indices_L[known]

    def _opinion(self, adviser: Adviser, basis: str | None, history: _History, visit: Visit) -> Opinion:
        """What an adviser says of every item."""
        history_H = history.history_H

        def made() -> Opinion:
            scores_I = adviser.source.scores(history_H, visit)
            part_I = self.overall.part(adviser.name, scores_I, history_H) if self.overall else None
            return Opinion(scores_I, top(scores_I, history_H), part_I)

        return self._kept(adviser.name, history.name, basis, made)

    def _together(self, opinions: Sequence[Opinion], bases: Sequence[str | None], history: _History) -> Opinion:
        """What they all say."""
        known = [basis for basis in bases if basis is not None]

        def made() -> Opinion:
            parts = [opinion.part_I for opinion in opinions if opinion.part_I is not None]
            scores_I = together(np.stack([opinion.scores_I for opinion in opinions]), parts)
            return Opinion(scores_I, top(scores_I, history.history_H), None)

        return self._kept(OVERALL, history.name, "\0".join(known) if len(known) == len(bases) else None, made)

    def _kept(self, name: str, history: bytes, basis: str | None, made: Callable[[], Opinion]) -> Opinion:
        """An opinion, which is kept where it is known what it depends on."""
        if basis is None:
            return made()
        key = name, history, basis
        found = self.opinions.find(key)
        if found is None:
            self.opinions.keep(key, found := made())
        return found

    def gather(self, visit: Visit, brought: Iterable[str] = ()) -> list[Candidate]:
        """Candidates for a visit that pass every filter, by reciprocal-rank fusion of the sources' lists.

        Each source brings as many as it may, as far as it knows so many that pass. Items that policies have `brought`
        come last unless a source brings them, too.
        """
        picked = _Picking(self, visit)
        lists = {fitted.name: picked.best(fitted) for fitted in self.sources}
        if not any(lists.values()):
            wanted = sum(fitted.k for fitted in self.sources)
            lists = {"popular": picked.best(Fitted("popular", self.last_resort, wanted))}
        merged = fuse(lists, {fitted.name: fitted.weight for fitted in self.sources})
        known = {candidate.item_id for candidate in merged}
        more = picked.passing(list(visit.lookup(item_id for item_id in brought if item_id not in known)))
        return [*merged, *(Candidate(item_id, {}) for item_id in more)]

    def lists(self, visit: Visit, k: int, without: Collection[str] = ()) -> dict[str, list[str]]:
        """The first `k` items of each source that pass every filter, best first; none of `without` is among them."""
        picked = _Picking(self, visit, without)
        return {fitted.name: picked.best(fitted._replace(k=k)) for fitted in self.sources}

    def place(self, visit: Visit, item_ids: Sequence[str]) -> list[Candidate]:
        """The given items as candidates, with the rank that each source gives them among themselves.

        They keep their order; `fallback_order` sorts them. A source is left out where it has nothing to say.
        """
        history_H, (known, places) = self.history(visit), self._known(item_ids)
        ranks: list[dict[str, int]] = [{} for _ in item_ids]
        for fitted in self.sources:
            order = known[best(fitted.source.scores(history_H, visit)[places], len(places))]
            for rank, number in enumerate(order.tolist(), 1):
                ranks[number][fitted.name] = rank
        return [Candidate(item_id, sources) for item_id, sources in zip(item_ids, ranks, strict=True)]

    def similarity(self, visit: Visit, item_ids: Sequence[str]) -> npt.NDArray[np.float64]:
        """[items]: the cosine of each item's vector with the member's; NaN where one of them is missing."""
        found = np.full(len(item_ids), np.nan)
        member_D = self.vectors.of_member(self.history(visit)) if self.vectors else None
        if self.vectors is None or member_D is None:
            return found
        known, places = self._known(item_ids)
        length = float(np.linalg.norm(member_D)) or 1.0
        found[known] = self.vectors.rows_ID[places] @ (member_D / length)
        return found

    def vector(self, item_id: str) -> npt.NDArray[np.float32] | None:
        """An item's vector, where there is one."""
        place = self.index.get(item_id)
        return None if place is None or self.vectors is None else self.vectors.rows_ID[place]


class _Picking:
    """One visit's way through sources and filters."""

    def __init__(self, retrieval: Retrieval, visit: Visit, without: Collection[str] = ()) -> None:
        self.retrieval, self.visit = retrieval, visit
        self.history_H = retrieval.history(visit)
        self.tests = [one.test(visit) for one in retrieval.filters]
        self.excluded = set(without).union(*(one.excludes(visit) for one in retrieval.filters))
        if visit.member_id in retrieval.people:
            self.excluded.add(retrieval.people[visit.member_id])
        self.indices = {retrieval.index[item_id] for item_id in self.excluded if item_id in retrieval.index}

    def best(self, fitted: Fitted) -> list[str]:
        """The source's best items that pass the filters."""
        if isinstance(fitted.source, Naming):
            return self.passing(fitted.source.named(self.visit))[: fitted.k]
        wanted, kept = max(fitted.k, AT_FIRST), list[str]()
        for _ in range(ROUNDS):
            found = retrieve(fitted.source, self.history_H, wanted, self.indices, self.visit)
            kept = self.passing([self.retrieval.item_ids[item] for item, _ in found])
            if len(kept) >= fitted.k or len(found) < wanted:
                break
            wanted *= WIDER
        return kept[: fitted.k]

    def passing(self, item_ids: Sequence[str]) -> list[str]:
        """Those of the items that no filter drops."""
        names = [item_id for item_id in item_ids if item_id not in self.excluded]
        if not self.tests:
            return names
        items = self.visit.lookup(names)
        return [name for name in names if name in items and self._pass(items[name])]

    def _pass(self, item: Item) -> bool:
        return all(test(item) for test in self.tests)


def fuse(lists: Mapping[str, Sequence[str]], weights: Mapping[str, float]) -> list[Candidate]:
    """The lists as one, the highest sum of reciprocal ranks first; level ones in the order of sources and ranks."""
    ranks: dict[str, dict[str, int]] = {}
    for name, item_ids in lists.items():
        for rank, item_id in enumerate(item_ids, 1):
            ranks.setdefault(item_id, {})[name] = rank
    candidates = [Candidate(item_id, sources) for item_id, sources in ranks.items()]
    return sorted(candidates, key=lambda candidate: -sum(parts(candidate, weights).values()))


def parts(candidate: Candidate, weights: Mapping[str, float]) -> dict[str, float]:
    """What each source contributes to a candidate's place."""
    return {name: weights.get(name, 1.0) / (RRF + rank) for name, rank in candidate.sources.items()}


def shares(candidates: Iterable[Candidate], weights: Mapping[str, float]) -> dict[str, float]:
    """Each source's share, in [0, 1], of all that the sources contribute to those candidates."""
    total: dict[str, float] = dict.fromkeys(weights, 0.0)
    for candidate in candidates:
        for name, part in parts(candidate, weights).items():
            total[name] = total.get(name, 0.0) + part
    whole = sum(total.values())
    return {name: part / whole if whole else 0.0 for name, part in total.items()}


def fallback_order(candidates: Sequence[Candidate], order: Collection[str]) -> list[Candidate]:
    """All that the first source of `order` brought, by its ranks; then the next one's; the rest as they came."""

    def place(candidate: Candidate) -> tuple[int, int]:
        for number, name in enumerate(order):
            if name in candidate.sources:
                return number, candidate.sources[name]
        return len(order), 0

    return sorted(candidates, key=place)
