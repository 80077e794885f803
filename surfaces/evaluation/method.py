"""What a way to rank is, for an evaluation, and the ways that need no fitting."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from prompts.errors import ConfigError
from surfaces.context import told
from surfaces.evaluation.lists import read_columns
from surfaces.evaluation.protocols import Case
from surfaces.ledger.records import quoted
from surfaces.ledger.store import Ledger
from surfaces.sources.base import NOTHING, Interactions, Scores, Source
from surfaces.sources.merge import Retrieval, fallback_order, parts
from surfaces.visit import Visit

NO_HEADS: Mapping[str, npt.NDArray[np.float64]] = {}


class Judged(NamedTuple):
    """What a method makes of candidates: `scores` [items], higher is better, never NaN.

    `heads` are probabilities [items] by head, of a method that has them; `tokens` is how much text was read for it.
    `seconds` were spent on it before, by a method that remembers.
    """

    scores: Scores
    heads: Mapping[str, npt.NDArray[np.float64]] = NO_HEADS
    tokens: int = 0
    seconds: float = 0.0


class Method(Protocol):
    """Ranks candidates for a member, from what the member did before.

    `learned` is all that it was fitted to: an evaluation looks there for what should have been held out.
    """

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def learned(self) -> Sequence[Interactions]:
        """What it was fitted to."""
        ...

    def judge(self, visit: Visit, items: Sequence[str]) -> Judged:
        """The candidates' scores, and what they cost."""
        ...


@dataclass(frozen=True, slots=True)
class CaseVisit(Visit):
    """The visit that a case stands for: `time` is the case's, in the ledger's clock; `now` is 0 where that is none."""

    time: float = 0.0


class Visits:
    """Makes visits of cases: the member's profile, the items, the time of the ranking."""

    def __init__(self, ledger: Ledger) -> None:
        self._items = {item.item_id: item for item in ledger.all_items()}
        self._profiles = {member.member_id: member.profile for member in ledger.all_members()}
        self._timed = ledger.clock == "time"

    def of(self, case: Case) -> CaseVisit:
        """The visit that a case stands for: nothing in it is later than the case."""
        return CaseVisit(
            timeline=case.history,
            member_id=case.member_id,
            profile=self._profiles.get(case.member_id, {}),
            context=told({}, case.time) if self._timed else {},
            now=case.time if self._timed else 0.0,
            lookup=lambda names: {name: self._items[name] for name in names if name in self._items},
            given=case.listed or (),
            time=case.time,
        )


class FromSource:
    """A source as a method. Items that it does not know score `NOTHING`."""

    def __init__(self, name: str, source: Source, data: Interactions, *, fitted: bool = False) -> None:
        """Fits the source to the data, unless it is `fitted` to them already."""
        self.name, self.learned = name, (data,)
        self._source, self._data = source, data
        if not fitted:
            source.fit(data)

    def judge(self, visit: Visit, items: Sequence[str]) -> Judged:
        """The source's scores."""
        all_I = np.append(self._source.scores(self._data.history(visit.timeline), visit), NOTHING)
        index = self._data.index
        return Judged(all_I[[index.get(item_id, -1) for item_id in items]])


class FromRetrieval:
    """The order in which a surface's own sources bring the candidates: what is served where the model has no part."""

    name = "retrieval"

    def __init__(self, retrieval: Retrieval, order: Sequence[str], data: Interactions) -> None:
        """`order` are the sources of the surface's fallback, best first."""
        self.learned = (data,)
        self._retrieval, self._order = retrieval, order

    def judge(self, visit: Visit, items: Sequence[str]) -> Judged:
        """Places in that order; items of which no source says anything share the last one."""
        weights = {fitted.name: fitted.weight for fitted in self._retrieval.sources}
        merged = sorted(self._retrieval.place(visit, items), key=lambda found: -sum(parts(found, weights).values()))
        placed = fallback_order(merged, self._order)
        known = [candidate.item_id for candidate in placed if candidate.sources]
        places = {item_id: -float(place) for place, item_id in enumerate(known)}
        return Judged(np.array([places.get(item_id, NOTHING) for item_id in items], dtype=np.float64))


class Random:
    """A shuffle, the same for the same member and seed: the floor under every figure."""

    name = "random"
    learned: Sequence[Interactions] = ()

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def judge(self, visit: Visit, items: Sequence[str]) -> Judged:
        """Uniform draws."""
        member = zlib.crc32(visit.member_id.encode())
        return Judged(np.random.default_rng([self._seed, member]).random(len(items)))


class FromFile:
    """Another system's rankings: a parquet of `member_id, item_id, score` and, where a member has several, `timestamp`.

    What the file does not score stands last. What that system learned from cannot be checked here.
    """

    learned: Sequence[Interactions] = ()

    def __init__(self, path: Path) -> None:
        """Raises ConfigError for a file that is none."""
        self.name = path.stem
        frame = read_columns(
            path, {"member_id": pl.String, "item_id": pl.String, "score": pl.Float64}, "a ranking file"
        )
        self._timed = "timestamp" in frame.columns
        keys = ["member_id", *(["timestamp"] if self._timed else [])]
        twins = frame.select(pl.struct(*keys, "item_id").is_duplicated())
        if twins.to_series().any():
            row = int(twins.to_series().arg_max() or 0)
            what = f"item {quoted(frame['item_id'][row])} of member {quoted(frame['member_id'][row])}"
            raise ConfigError(f"{path}: row {row + 1}: {what} is scored twice")
        self._scores = {
            (str(key[0]), float(key[1]) if self._timed else None): dict(
                zip(part["item_id"], part["score"], strict=True)
            )
            for key, part in frame.partition_by(keys, as_dict=True).items()
        }

    def judge(self, visit: Visit, items: Sequence[str]) -> Judged:
        """The file's scores for that member (and time)."""
        asked = visit.time if isinstance(visit, CaseVisit) else visit.now
        found = self._scores.get((visit.member_id, asked if self._timed else None), {})
        return Judged(np.array([found.get(item_id, NOTHING) for item_id in items], dtype=np.float64))

    def absent(self, cases: Sequence[Case]) -> int:
        """Of how many cases the file says nothing at all."""
        return sum((case.member_id, case.time if self._timed else None) not in self._scores for case in cases)


@dataclass
class Remembered:
    """A method that keeps its latest answer: others that build on it then cost no second forward."""

    method: Method
    _asked: tuple[Visit, Sequence[str], Judged] | None = None

    @property
    def name(self) -> str:
        """The method's own."""
        return self.method.name

    @property
    def learned(self) -> Sequence[Interactions]:
        """What the method was fitted to."""
        return self.method.learned

    def judge(self, visit: Visit, items: Sequence[str]) -> Judged:
        """What the method says; asked for the same visit and list again, it costs what it cost the first time."""
        if self._asked is not None and self._asked[0] is visit and self._asked[1] is items:
            return self._asked[2]
        start = time.perf_counter()
        found = self.method.judge(visit, items)
        self._asked = visit, items, found._replace(seconds=time.perf_counter() - start)
        return found
