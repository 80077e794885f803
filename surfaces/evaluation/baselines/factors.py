"""Matrix factorization over the package implicit: weighted least squares (ALS), and Bayesian personalized ranking."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from prompts.errors import ConfigError
from surfaces.evaluation.baselines.matrix import choices, weighed, with_events
from surfaces.sources.base import NOTHING, Indices, Interactions, Scores
from surfaces.visit import NOBODY, Visit

Rows = npt.NDArray[np.float64]


class _Model(Protocol):
    user_factors: npt.NDArray[np.float32]
    item_factors: npt.NDArray[np.float32]

    def fit(self, user_items: sparse.csr_matrix, *, show_progress: bool) -> None: ...


class Als:
    """Implicit feedback as weighted least squares; a visitor's vector is solved from the history that is given.

    Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM (2008). A choice has the
    confidence `alpha`, everything else 1; equation 4 solves a member's vector, so members who are not in training have
    one as well. With a `decay` below 1, each older item's confidence beyond 1, and its target's weight, is `decay`
    times that of the next when a visitor is scored; training is the same.
    """

    def __init__(
        self,
        *,
        factors: int = 64,
        regularization: float = 30.0,
        alpha: float = 16.0,
        iterations: int = 15,
        decay: float = 0.9,
        seed: int = 0,
    ) -> None:
        _check("als", factors=factors, regularization=regularization, alpha=alpha, iterations=iterations, decay=decay)
        self.factors, self.regularization, self.alpha = factors, regularization, alpha
        self.iterations, self.decay, self.seed = iterations, decay, seed
        self._items_IF: Rows = np.zeros((0, factors))
        self._gram_FF: Rows = np.zeros((factors, factors))
        self._known_I = np.zeros(0, dtype=np.bool_)

    def fit(self, data: Interactions) -> None:
        """Alternates between members and items. Raises ConfigError without the package implicit."""
        chosen_MI = choices(data)
        self._known_I = with_events(chosen_MI)
        self._items_IF = np.zeros((len(data.item_ids), self.factors))
        with _one_thread("als"):
            from implicit.cpu.als import AlternatingLeastSquares

            model = AlternatingLeastSquares(
                factors=self.factors,
                regularization=self.regularization,
                alpha=self.alpha,
                iterations=self.iterations,
                num_threads=1,
                random_state=self.seed,
            )
            if chosen_MI.nnz:
                self._items_IF = _fitted(model, chosen_MI).item_factors.astype(np.float64)
        self._gram_FF = self._items_IF.T @ self._items_IF + self.regularization * np.eye(self.factors)

    def scores(self, history_H: Indices, visit: Visit = NOBODY) -> Scores:  # noqa: ARG002 - the history says it all
        """[items]: inner products with the visitor's vector.

        `NOTHING` for items without events, and for all where the history has no other.
        """
        items, weights_H = weighed(history_H[self._known_I[history_H]], self.decay)
        if not len(items):
            return np.full(len(self._items_IF), NOTHING)
        chosen_HF = self._items_IF[items]
        extra_H = (self.alpha - 1.0) * weights_H
        normal_FF = self._gram_FF + (chosen_HF * extra_H[:, None]).T @ chosen_HF
        vector_F = np.linalg.solve(normal_FF, (1.0 + extra_H) * weights_H @ chosen_HF)
        return np.where(self._known_I, self._items_IF @ vector_F, NOTHING)


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
        _check(
            "bpr", factors=factors, learning_rate=learning_rate, regularization=regularization, iterations=iterations
        )
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
        with _one_thread("bpr"):
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
                fitted = _fitted(model, chosen_MI)
                self._items_IF = fitted.item_factors.astype(np.float64)
                trained = np.flatnonzero(np.diff(chosen_MI.indptr))
                self._members = {data.member_ids[m]: fitted.user_factors[m].astype(np.float64) for m in trained}

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


def _fitted(model: _Model, chosen_MI: sparse.csr_array) -> _Model:
    model.fit(sparse.csr_matrix(chosen_MI), show_progress=False)
    return model


@contextmanager
def _one_thread(name: str) -> Iterator[None]:
    """BLAS with one thread, as implicit asks for. Raises ConfigError where implicit is not installed."""
    try:
        import implicit  # noqa: F401 - what follows is of no use without it
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # implicit needs and brings it
    except ModuleNotFoundError:
        raise ConfigError(f"{name} needs the package implicit: pip install 'prismrank[evaluate]'") from None
    with threadpool_limits(1, "blas"):
        yield


def _check(name: str, **settings: float) -> None:
    wrong = [f"{key} {value}" for key, value in settings.items() if value <= 0 or (key == "decay" and value > 1)]
    if wrong:
        raise ConfigError(f"{name}: {', '.join(wrong)}: settings are above 0, and a decay is at most 1")
