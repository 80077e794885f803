"""Which way a visit goes, and the order that each way gives its candidates.

Legend of array names: L candidates of a request, I items.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np

from prompts.errors import ConfigError
from surfaces.evaluation.breadth import Popularity, head_items
from surfaces.experiments.assign import assign
from surfaces.experiments.interleave import Placed, team_draft
from surfaces.ledger.records import Clock
from surfaces.sources.base import NOTHING, Scores
from surfaces.sources.merge import Fitted, Retrieval
from surfaces.spec import SurfaceSpec
from surfaces.traffic import MODEL, ExperimentSpec, Route, RoutingSpec, Traits
from surfaces.visit import Visit


class Way(NamedTuple):
    """Who orders a visit's candidates: one, or two whose orders are drawn together. `experiment`: why, if one runs."""

    routes: tuple[Route, ...] = (MODEL,)
    experiment: ExperimentSpec | None = None

    @property
    def asks_model(self) -> bool:
        """Whether the model has a part in it."""
        return self.routes != ("classical",)

    @property
    def interleaved(self) -> bool:
        """Whether two orders are drawn together."""
        return len(self.routes) > 1

    @property
    def route(self) -> Route | None:
        """The one who orders; None where there are two."""
        return None if self.interleaved else self.routes[0]

    @property
    def arm(self) -> Route | None:
        """What an experiment assigned to the member; None without one, and where it shows both."""
        return self.route if self.experiment else None


@dataclass(frozen=True, slots=True)
class Router:
    """A surface's routing and its experiment, over its fitted sources."""

    routing: RoutingSpec
    experiment: ExperimentSpec | None
    retrieval: Retrieval
    popularity: Popularity

    @classmethod
    def of(cls, spec: SurfaceSpec, retrieval: Retrieval, clock: Clock) -> Router:
        """Raises ConfigError for an experiment, or a rule on a gap, over a ledger that knows no times."""
        if clock == "order":
            _needs_no_time(spec)
        counts_I = retrieval.last_resort.scores(np.zeros(0, dtype=np.int64))
        return cls(spec.routing, spec.experiment, retrieval, head_items(counts_I.astype(np.int64)))

    @property
    def asks_model(self) -> bool:
        """Whether the model has a part in any visit."""
        routes = {self.routing.default, *(rule.to for rule in self.routing.rules)}
        return self.experiment is not None or routes != {"classical"}

    def way(self, visit: Visit, item_ids: Sequence[str]) -> Way:
        """The way of a visit with these candidates: the experiment's for a known member, else the routing's."""
        running = self.experiment if visit.member_id else None
        if running is None:
            return Way((self._routed(visit, item_ids),))
        shares = running.arms.shares
        if running.kind == "interleave":
            return Way(tuple(shares), running)
        arm = assign(running.name, visit.member_id, cast("Mapping[str, float]", shares))
        return Way((cast("Route", arm),), running)

    def _routed(self, visit: Visit, item_ids: Sequence[str]) -> Route:
        if not self.routing.rules:
            return self.routing.default
        traits = self.traits(visit, item_ids)
        return next((rule.to for rule in self.routing.rules if rule.when.holds(traits)), self.routing.default)

    def traits(self, visit: Visit, item_ids: Sequence[str]) -> Traits:
        """What rules see. A candidate that came after the sources were fitted is cold; of no candidates none is."""
        acts = visit.acts
        gap = max(visit.now - acts[-1].timestamp, 0.0) if acts else None
        places = np.array([self.retrieval.index.get(item_id, -1) for item_id in item_ids], dtype=np.int64)
        known = places[places >= 0]
        count = max(len(places), 1)
        cold = int(self.popularity.cold[known].sum()) + len(places) - len(known)
        tail = int(self.popularity.tail[known].sum())
        return Traits(len(self.retrieval.history(visit)), cold / count, tail / count, gap)

    def scores(self, route: Route, utility_L: Scores, visit: Visit, item_ids: Sequence[str]) -> Scores:
        """[candidates]: higher comes first. `item_ids` are in the order of retrieval, `utility_L` is the model's."""
        if route == "classical":
            return -np.arange(len(item_ids), dtype=np.float64)
        return utility_L if route == "foundation" else self._fused(utility_L, visit, item_ids)

    def _fused(self, utility_L: Scores, visit: Visit, item_ids: Sequence[str]) -> Scores:
        """The weighted sum of the standard scores of the model's utility and of the sources' scores.

        No weight is below 0: of two candidates, one that model and sources all prefer is never behind. C. Vogt,
        G. Cottrell, "Fusion via a linear combination of scores", Information Retrieval 1, 1999; normalized as in
        M. Montague, J. Aslam, "Relevance score normalization for metasearch", CIKM 2001 (zero mean, unit variance).
        """
        weights = self.routing.fused or {}
        total_L: Scores = weights[MODEL] * standard(utility_L)
        for fitted in self.retrieval.sources:
            weight = weights.get(fitted.name, 0.0)
            if weight:
                total_L = total_L + weight * standard(self._said(fitted, visit, item_ids))
        return total_L

    def _said(self, fitted: Fitted, visit: Visit, item_ids: Sequence[str]) -> Scores:
        """[candidates]: the source's scores; where it has nothing to say, the lowest that it gives one of the list."""
        places = np.array([self.retrieval.index.get(item_id, -1) for item_id in item_ids], dtype=np.int64)
        scores_L = np.full(len(places), NOTHING)
        scores_L[places >= 0] = fitted.source.scores(self.retrieval.history(visit), visit)[places[places >= 0]]
        return settled(scores_L)

    def draft(self, way: Way, utility_L: Scores, visit: Visit, item_ids: Sequence[str]) -> list[Placed]:
        """All candidates in the order of an interleaved way, each with the arm that picked it.

        The draw depends on the experiment, the member and the time of the visit alone.
        """
        orders = {
            route: np.argsort(-self.scores(route, utility_L, visit, item_ids), kind="stable") for route in way.routes
        }
        rankings: dict[str, Sequence[str]] = {
            route: [item_ids[place] for place in order_L] for route, order_L in orders.items()
        }
        drawn = json.dumps([way.experiment.name if way.experiment else "", visit.member_id, visit.now])
        seed = int.from_bytes(hashlib.sha256(drawn.encode()).digest()[:16], "big")
        return team_draft(rankings, len(item_ids), np.random.default_rng(seed))


def settled(scores_L: Scores) -> Scores:
    """[candidates]: where there is nothing to say of one, the lowest score of the list; all 0 where of none is."""
    finite = np.isfinite(scores_L)
    return np.where(finite, scores_L, scores_L[finite].min() if finite.any() else 0.0)


def standard(values_L: Scores) -> Scores:
    """[candidates]: mean 0 and standard deviation 1; all 0 where the values are equal."""
    if not len(values_L) or values_L.min() == values_L.max():
        return np.zeros(len(values_L))
    within_L = (values_L - values_L.min()) / (values_L.max() - values_L.min())  # the square of a tiny spread would be 0
    scores_L: Scores = (within_L - within_L.mean()) / within_L.std()
    return scores_L


def _needs_no_time(spec: SurfaceSpec) -> None:
    why = "this ledger's clock is 'order': its timestamps are no times"
    if spec.experiment is not None:
        raise ConfigError(
            f"surface '{spec.surface}': experiment: what is shown is joined by time with what was done then, but {why}"
        )
    for index, rule in enumerate(spec.routing.rules):
        if rule.when.gap is not None:
            raise ConfigError(
                f"surface '{spec.surface}': routing.rules[{index}].when.gap: a gap needs times, but {why}"
            )
