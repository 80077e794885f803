"""What an evaluation found, and all of it as JSON; `tables` and `page` show it.

Every interval is over members: a member with several lists counts once, with the mean of them. Differences are paired,
member by member.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from surfaces.evaluation.bootstrap import Interval, intervals
from surfaces.evaluation.breadth import catalogue_coverage, gini, popularity_bias, popularity_of
from surfaces.evaluation.calibration import Calibration, calibration
from surfaces.evaluation.coverage import Coverage
from surfaces.evaluation.leaks import Place
from surfaces.evaluation.metrics import METRICS
from surfaces.evaluation.protocols import Split
from surfaces.evaluation.recommend import Advice, advise, routing
from surfaces.evaluation.results import Results
from surfaces.evaluation.segments import Segment, counts, segments
from surfaces.evaluation.tuning import Tuned

Values = npt.NDArray[np.float64]
NDCG = METRICS.index("ndcg@10")
SLATE = 10
"""Items of a slate, where slates are looked at as such."""
MODELS = ("foundation", "zero_shot", "fused", "late")
RETRIEVAL = "retrieval"
"""The order in which the surface's sources bring the candidates: the route `classical`."""
SOURCES_ALONE = "fused_sources"
"""The surface's sources in one weighted sum, without the model."""
LATE = "late"
"""What the model reads in the texts, and the evidence's sources, in one weighted sum: the evidence is fused late."""
NOT_CLASSICAL = (*MODELS, SOURCES_ALONE, "random")


class Compared(NamedTuple):
    """Means over members with intervals, by method and metric; `differences` are those of the first from the others."""

    methods: Mapping[str, Mapping[str, Interval]]
    differences: Mapping[str, Mapping[str, Interval]]

    def to_json(self) -> dict[str, object]:
        """The same as JSON can hold it."""
        return {"methods": _nested(self.methods), "differences": _nested(self.differences)}


@dataclass(frozen=True)
class Report:
    """Results by method over one split. The first method is the one that the others are compared with.

    `about` are further facts that the JSON carries, such as the date, the machine and the versions.
    """

    surface: str
    split: Split
    results: Mapping[str, Results]
    tuned: Mapping[str, Tuned] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    coverage: Coverage | None = None
    leaks: Mapping[str, Place] = field(default_factory=dict)
    outside: Sequence[str] = ()
    notes: Sequence[str] = ()
    about: Mapping[str, object] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """The method that is compared with the others."""
        return next(iter(self.results))

    @cached_property
    def members(self) -> npt.NDArray[np.int64]:
        """[cases]: the number of each case's member."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(case.member_id, len(numbers)) for case in self.split.cases])

    def by_member(self, values_MF: Values, inside_M: npt.NDArray[np.bool_] | None = None) -> Values:
        """[members, figures]: the mean over each member's cases, of those inside."""
        kept = np.ones(len(values_MF), dtype=bool) if inside_M is None else inside_M
        _, member = np.unique(self.members[kept], return_inverse=True)
        total = np.zeros((member.max() + 1, values_MF.shape[1]))
        np.add.at(total, member, values_MF[kept])
        return total / np.bincount(member)[:, None]

    @property
    def models(self) -> list[str]:
        """The methods that ask the model."""
        return [name for name in self.results if name in MODELS]

    def mean(self, method: str, metric: str, inside_M: npt.NDArray[np.bool_]) -> float:
        """The mean over members, of some cases."""
        return float(self.by_member(self.results[method].values(metric)[:, None], inside_M).mean())

    @cached_property
    def whole(self) -> Compared:
        """The figures over all cases."""
        return self.compared(None)

    def figure(self, method: str, metric: str) -> Interval:
        """The mean over members, with its 95% interval."""
        return self.whole.methods[method][metric]

    def difference(self, other: str, metric: str) -> Interval:
        """How much the first method is above `other`, member by member, with the 95% interval of the mean."""
        return self.whole.differences[other][metric]

    @property
    def seconds(self) -> dict[str, float]:
        """What a ranking takes by each method, in the median."""
        return {name: float(np.median(found.seconds_M)) for name, found in self.results.items()}

    @property
    def classical(self) -> str | None:
        """The classical method with the best validation; without any validation, the first that there is."""
        names = [name for name in self.results if name not in NOT_CLASSICAL and name not in self.outside]
        values = {name: self.tuned[name].value for name in names if name in self.tuned}
        tuned = {name: value for name, value in values.items() if value is not None}
        return max(tuned, key=tuned.__getitem__) if tuned else names[0] if names else None

    @cached_property
    def segments(self) -> list[Segment]:
        """The segments that have cases."""
        return segments(self.split)

    def advice(self, inside_M: npt.NDArray[np.bool_] | None = None) -> Advice:
        """Which way is worth its cost, for all cases or some."""
        alone = [SOURCES_ALONE] if SOURCES_ALONE in self.results else []
        return self._advice([*([self.classical] if self.classical else []), *alone], inside_M)

    def _advice(self, classical: Sequence[str], inside_M: npt.NDArray[np.bool_] | None = None) -> Advice:
        values = {
            name: self.by_member(found.values_MF[:, NDCG : NDCG + 1], inside_M)[:, 0]
            for name, found in self.results.items()
        }
        return advise(values, self.seconds, classical)

    @cached_property
    def advices(self) -> dict[str, Advice]:
        """Which way is worth its cost, by segment."""
        return {segment.name: self.advice(segment.inside_M) for segment in self.segments}

    @cached_property
    def verdict(self) -> Advice:
        """Which way is worth its cost, for all cases."""
        return self.advice()

    @cached_property
    def routing(self) -> dict[str, object] | None:
        """What the surface's `routing` may say, after this evaluation; None without what its routes serve.

        Its route `classical` serves the order of retrieval, and no method that the surface does not have.
        """
        if not self.models or RETRIEVAL not in self.results:
            return None
        found = [
            (segment.when, self._advice([RETRIEVAL], segment.inside_M)) for segment in self.segments if segment.when
        ]
        return routing(found, self._advice([RETRIEVAL]), self.weights)

    def calibration(self) -> dict[str, dict[str, Calibration]]:
        """By method and head, how far its probabilities are true among the candidates that it was asked for."""
        return {
            name: {head: _calibrated(found, head) for head in found.heads}
            for name, found in self.results.items()
            if found.heads
        }  # fmt: skip

    def breadth(self) -> dict[str, dict[str, float]]:
        """What each method's slates of ten are like beside being right, and what was wanted is like."""
        counts_I = counts(self.split.train)
        index = self.split.train.index
        wanted = np.array([index[name] for case in self.split.cases for name in case.wanted if name in index])
        told = {
            name: {
                "catalogue_coverage": catalogue_coverage(found.tops_MK[:, :SLATE], len(counts_I)),
                "popularity": popularity_bias(found.tops_MK[:, :SLATE], counts_I),
                "gini": gini(found.tops_MK[:, :SLATE], len(counts_I)),
            }
            for name, found in self.results.items()
            if (found.tops_MK >= 0).any()
        }
        return {**told, "(wanted)": {"popularity": popularity_of(wanted, counts_I)}}

    @cached_property
    def told(self) -> dict[str, object]:
        """The report as JSON can hold it; `differences` are those of the first method from each other one."""
        split = self.split
        return {
            "surface": self.surface,
            "protocol": split.protocol,
            "candidates": split.candidates,
            "members": len(set(self.members.tolist())),
            "rankings": len(split.cases),
            "split": {"digest": split.digest, "seed": split.seed, "cut": split.cut, "notes": list(split.notes)},
            **self.whole.to_json(),
            "subject": self.subject,
            "classical": self.classical,
            "segments": self._segments(),
            "advice": _plain(self.verdict),
            "routing": self.routing,
            "costs": {
                name: {"ms": 1000 * seconds, "tokens": float(np.mean(self.results[name].tokens_M))}
                for name, seconds in self.seconds.items()
            },
            "breadth": self.breadth(),
            "calibration": {
                method: {head: _plain_calibration(found) for head, found in heads.items()}
                for method, heads in self.calibration().items()
            },
            "coverage": _nested(self.coverage.figures()) if self.coverage else {},
            "tuning": {name: _told(found) for name, found in self.tuned.items()},
            "fused_weights": dict(self.weights),
            "leaks": {
                name: {"checked": place.checked, "found": len(place.found)} for name, place in self.leaks.items()
            },
            "notes": list(self.notes),
            **self.about,
        }

    def compared(self, inside_M: npt.NDArray[np.bool_] | None) -> Compared:
        """Every method's figures, and the differences of the first from each other one: all from the same resamples."""
        values = {name: self.by_member(found.values_MF, inside_M) for name, found in self.results.items()}
        others = [name for name in values if name != self.subject]
        columns = [*values.values(), *(values[self.subject] - values[name] for name in others)]
        found = iter(intervals(np.concatenate(columns, axis=1)))
        methods = {name: {metric: next(found) for metric in METRICS} for name in values}
        return Compared(methods, {name: {metric: next(found) for metric in METRICS} for name in others})

    def _segments(self) -> dict[str, object]:
        """By segment: how many members and rankings, every method's figures, and the advice."""
        told: dict[str, object] = {}
        for name, inside_M, _ in self.segments:
            sizes = {"members": len(set(self.members[inside_M].tolist())), "rankings": int(inside_M.sum())}
            told[name] = {**sizes, **self.compared(inside_M).to_json(), "advice": _plain(self.advices[name])}
        return told


def _calibrated(found: Results, head: str) -> Calibration:
    said, came = found.answered(head)
    return calibration(said.astype(np.float64), came.astype(np.float64))


def _nested(found: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, dict[str, float]]]:
    return {name: {key: value._asdict() for key, value in figures.items()} for name, figures in found.items()}


def _plain(advice: Advice) -> dict[str, object]:
    gain = advice.gain._asdict() if advice.gain else None
    return {
        "route": advice.route,
        "method": advice.method,
        "reason": advice.reason,
        "gain": gain,
        "ms": 1000 * advice.seconds,
    }


def _plain_calibration(found: Calibration) -> dict[str, object]:
    return {**found._asdict(), "bins": [each._asdict() for each in found.bins]}


def _told(tuned: Tuned) -> dict[str, object]:
    return {
        "settings": dict(tuned.settings),
        "validation_ndcg@10": tuned.value,
        "tries": len(tuned.tried),
        "seconds": tuned.seconds,
    }
