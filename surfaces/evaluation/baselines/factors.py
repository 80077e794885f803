"""Bayesian personalized ranking, over the package implicit."""

from __future__ import annotations

import numpy as np

from surfaces.sources.als import Rows, fitted, one_thread
from surfaces.sources.base import NOTHING, Indices, Interactions, Scores
from surfaces.sources.matrix import check, choices, with_events
from surfaces.visit import NOBODY, Visit


class Bpr:
    """Factors learned from pairs of a chosen item and a drawn one.

    Rendle et al., "BPR: Bayesian personalized ranking from implicit feedback", UAI (2009). A member who was there in
    training is scored by their own vector; anybody else by the mean vector of the history's items.
    """

    def __init__(
        self,
        *,
        factors: int = 64,
        learning_rate: float = 0.05,
        regularization: float = 0.03,
        iterations: int = 200,
        seed: int = 0,
    ) -> None:
        check("bpr", factors=factors, learning_rate=learning_rate, regularization=regularization, iterations=iterations)
        self.factors, self.learning_rate, self.regularization = factors, learning_rate, regularization
        self.iterations, self.seed = iterations, seed
        self._items_IF: Rows = np.zeros((0, factors + 1))
        self._members: dict[str, Rows] = {}
        self._known_I = np.zeros(0, dtype=np.bool_)

    def fit(self, data: Interactions) -> None:
        """Draws as many pairs an iteration as there are choices. Raises ConfigError without the package implicit."""
        chosen_MI = choices(data)
        self._known_I = with_events(chosen_MI)
        self._items_IF, self._members = np.zeros((len(data.item_ids), self.factors + 1)), {}
        with one_thread("bpr"):
            from implicit.cpu.bpr import BayesianPersonalizedRanking

            model = BayesianPersonalizedRanking(
                factors=self.factors,
                learning_rate=self.learning_rate,
                regularization=self.regularization,
                iterations=self.iterations,
                num_threads=1,  # with more, threads race and a seed says nothing
                random_state=self.seed,
            )
            if chosen_MI.nnz:
                learned = fitted(model, chosen_MI)
                self._items_IF = learned.item_factors.astype(np.float64)
                trained = np.flatnonzero(np.diff(chosen_MI.indptr))
                self._members = {data.member_ids[m]: learned.user_factors[m].astype(np.float64) for m in trained}

    def scores(self, history_H: Indices, visit: Visit = NOBODY) -> Scores:
        """[items]: inner products and the item's bias.

        `NOTHING` for items without events, and for all where a stranger's history has no other.
        """
        vector_F = self._members.get(visit.member_id)
        if vector_F is None:
            chosen_HF = self._items_IF[history_H[self._known_I[history_H]]]
            if not len(chosen_HF):
                return np.full(len(self._items_IF), NOTHING)
            vector_F = chosen_HF.mean(axis=0)
            vector_F[-1] = 1.0  # the last column of the items is their bias
        return np.where(self._known_I, self._items_IF @ vector_F, NOTHING)
