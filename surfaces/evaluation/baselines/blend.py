"""Several methods as one, in the plainest way: a weighted sum of their standard scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prompts.errors import ConfigError
from surfaces.routing import settled, standard
from surfaces.sources.base import NOTHING, Indices, Interactions, Scores, Source
from surfaces.visit import NOBODY, Visit


class Blend:
    """Sources with a weight each. Standard scores are among the items that one of them knows and the history lacks.

    Of what one of them has nothing to say, it says the lowest that it says of any.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float]) -> None:
        if len(sources) != len(weights) or not all(0 <= weight <= 1 for weight in weights):
            raise ConfigError(f"blend: a weight in [0, 1] for each of the {len(sources)} sources, not {list(weights)}")
        self.sources, self.weights = tuple(sources), tuple(weights)

    def fit(self, data: Interactions) -> None:
        """Fits all. Raises ConfigError and TrainingError as they do."""
        for source in self.sources:
            source.fit(data)

    def scores(self, history_H: Indices, visit: Visit = NOBODY) -> Scores:
        """[items]: the weighted sum; `NOTHING` for what is in the history, and where all have nothing to say."""
        said_SI = np.stack([source.scores(history_H, visit) for source in self.sources])
        told_I = np.atleast_1d((said_SI > NOTHING).any(axis=0))
        told_I[history_H] = False
        found_I = np.full(len(told_I), NOTHING)
        found_I[told_I] = self.weights @ np.stack([standard(settled(said_I[told_I])) for said_I in said_SI])
        return found_I
