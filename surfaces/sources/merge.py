"""The first stage of every ranking: the sources of a surface, asked together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from prompts.tree import Piece
from surfaces.evidence import NONE, evidence_piece, levels
from surfaces.ledger.records import Event
from surfaces.sources.base import NOTHING, Indices, Source, best, history_of, retrieve
from surfaces.sources.popular import Popular


class Candidate(NamedTuple):
    """An item to rank; `sources` tells which sources brought it, and at which rank of theirs (1 is the best)."""

    item_id: str
    sources: Mapping[str, int]


class Fitted(NamedTuple):
    """A source that has learned, and how many candidates it may bring."""

    source: Source
    k: int


@dataclass(frozen=True, slots=True)
class Retrieval:
    """A surface's fitted sources. `last_resort` is asked when none of them knows anything.

    `advisers` are the sources whose opinions the leaves carry."""

    item_ids: Sequence[str]
    index: Mapping[str, int]
    sources: tuple[Fitted, ...]
    last_resort: Popular
    advisers: tuple[Source, ...] = ()

    def evidence(self, timeline: Iterable[Event], item_ids: Sequence[str], *, compress: bool) -> list[Piece]:
        """What the advisers say of each of the items, in words; nothing without advisers."""
        if not self.advisers:
            return []
        history_H = history_of(self.index, timeline)
        names = [adviser.name for adviser in self.advisers]
        found_AI = [np.append(levels(adviser.scores(history_H), history_H), NONE) for adviser in self.advisers]
        places = [self.index.get(item_id, -1) for item_id in item_ids]
        rows = np.stack(found_AI)[:, places].T.tolist()
        return [evidence_piece(names, row, compress=compress) for row in rows]

    def gather(self, timeline: Iterable[Event], exclude: Collection[str] = ()) -> list[Candidate]:
        """Candidates for a member with that timeline, without the excluded item ids.

        They come as each source's best in turn: everyone's first, everyone's second, and so on, each item once.
        """
        history_H = history_of(self.index, timeline)
        excluded = {self.index[item_id] for item_id in exclude if item_id in self.index}
        merged = gather(self.sources, history_H, excluded)
        if not merged:
            merged = gather([Fitted(self.last_resort, sum(k for _, k in self.sources))], history_H, excluded)
        return [Candidate(self.item_ids[item], sources) for item, sources in merged.items()]

    def place(self, timeline: Iterable[Event], item_ids: Sequence[str]) -> list[Candidate]:
        """The given items as candidates, with the rank that each source gives them among themselves.

        They keep their order; `fallback_order` sorts them. A source is left out where it has nothing to say.
        """
        history_H = history_of(self.index, timeline)
        places = [self.index.get(item_id, -1) for item_id in item_ids]
        known = np.array(places, dtype=np.int64) >= 0
        ranks: list[dict[str, int]] = [{} for _ in item_ids]
        for source, _ in self.sources:
            scores = np.full(len(places), NOTHING)
            scores[known] = source.scores(history_H)[[place for place in places if place >= 0]]
            for rank, number in enumerate(best(scores, len(places)), 1):
                ranks[number][source.name] = rank
        return [Candidate(item_id, sources) for item_id, sources in zip(item_ids, ranks, strict=True)]


def gather(sources: Sequence[Fitted], history_H: Indices, exclude: Collection[int] = ()) -> dict[int, dict[str, int]]:
    """Each source's best items, merged in turn: by index of item, the rank given by each source that brought it."""
    lists = {source.name: retrieve(source, history_H, k, exclude) for source, k in sources}
    merged: dict[int, dict[str, int]] = {}
    for rank in range(1, max(map(len, lists.values()), default=0) + 1):
        for name, found in lists.items():
            if rank <= len(found):
                merged.setdefault(found[rank - 1][0], {})[name] = rank
    return merged


def fallback_order(candidates: Sequence[Candidate], order: Sequence[str]) -> list[Candidate]:
    """All that the first source of `order` brought, by its ranks; then the next one's; the rest as they came."""

    def place(candidate: Candidate) -> tuple[int, int]:
        for number, name in enumerate(order):
            if name in candidate.sources:
                return number, candidate.sources[name]
        return len(order), 0

    return sorted(candidates, key=place)
