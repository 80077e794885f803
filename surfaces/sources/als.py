"""Matrix factorization by weighted least squares (ALS), over the package implicit.

Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM (2008).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import sparse

from prompts.errors import ConfigError
from surfaces.sources.base import NOTHING, Indices, Interactions, Materials, Scores, SourceKind
from surfaces.sources.matrix import DECAY, Decay, check, choices, weighed, with_events
from surfaces.visit import NOBODY, Visit

FACTORS, REGULARIZATION, ALPHA, ITERATIONS = 64, 30.0, 16.0, 15

Rows = npt.NDArray[np.float64]


class Model(Protocol):
    """What the package's factorizations have in common."""

    user_factors: npt.NDArray[np.float32]
    item_factors: npt.NDArray[np.float32]

    def fit(self, user_items: sparse.csr_matrix, *, show_progress: bool) -> None:
        """Learns the factors."""
        ...


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
        factors: int = FACTORS,
        regularization: float = REGULARIZATION,
        alpha: float = ALPHA,
        iterations: int = ITERATIONS,
        decay: float = DECAY,
        seed: int = 0,
    ) -> None:
        check("als", factors=factors, regularization=regularization, alpha=alpha, iterations=iterations, decay=decay)
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
        with one_thread("als"):
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
                self._items_IF = fitted(model, chosen_MI).item_factors.astype(np.float64)
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


class AlsSource(SourceKind):
    """Items that suit the taste that the whole timeline shows, as few factors tell it.

    It needs the package implicit: pip install 'prismrank[evaluate]'.
    """

    label: ClassVar[str] = "taste"
    of_history: ClassVar[bool] = True
    of_new: ClassVar[float | None] = NOTHING
    type: Literal["als"]
    factors: int = Field(FACTORS, ge=1, le=512, description="How many numbers tell a taste.")
    regularization: float = Field(
        REGULARIZATION,
        gt=0,
        le=1_000_000,
        description="The penalty on the factors: the more, the less few choices say.",
    )
    alpha: float = Field(ALPHA, ge=1, le=10_000, description="What a choice counts, where none counts 1.")
    iterations: int = Field(ITERATIONS, ge=1, le=100, description="How often members and items are solved in turn.")
    decay: Decay = DECAY

    def build(self, materials: Materials) -> Als:  # noqa: ARG002 - it learns from the events alone
        """A source with these settings, to be fitted; fitting raises ConfigError without the package implicit."""
        return Als(
            factors=self.factors,
            regularization=self.regularization,
            alpha=self.alpha,
            iterations=self.iterations,
            decay=self.decay,
        )


def fitted(model: Model, chosen_MI: sparse.csr_array) -> Model:
    """The model, after it has learned from a matrix of members and items."""
    model.fit(sparse.csr_matrix(chosen_MI), show_progress=False)
    return model


@contextmanager
def one_thread(name: str) -> Iterator[None]:
    """BLAS with one thread, as implicit asks for. Raises ConfigError where implicit is not installed."""
    try:
        import implicit  # noqa: F401 - what follows is of no use without it
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # implicit needs and brings it
    except ModuleNotFoundError:
        raise ConfigError(f"{name} needs the package implicit: pip install 'prismrank[evaluate]'") from None
    with threadpool_limits(1, "blas"):
        yield
