"""What a head does: it reads the model's answers as one number a candidate. L leaves, A answers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from surfaces.fields import Strict, Word, listed

Array = npt.NDArray[np.float64]

NONE, YES, NO = "none", "yes", "no"
"""Answer words that no head may take as its name: nothing done; a pointwise head's two answers."""

EDGE = 1e-12
"""Probabilities are kept that far from 0 and 1 when they are turned into log-odds."""


class Answers(NamedTuple):
    """What the model says of the leaves: `logp` [L] by answer word; `choices` are the words that share one softmax.

    `likelihood` [L] is in nats a token, `similarity` [L] a cosine; both are NaN where they were not asked for.
    """

    logp: Mapping[str, Array]
    choices: tuple[str, ...]
    likelihood: Array
    similarity: Array


class Calibration(Strict):
    """A line through a head's values: through the log-odds of a probability (Platt scaling), else through the value.

    J. Platt, "Probabilistic outputs for support vector machines", 1999.
    """

    slope: float = Field(1.0, gt=0, le=1_000, description="Above 1 the values spread, below 1 they draw together.")
    intercept: float = Field(0.0, ge=-1_000, le=1_000, description="Added to every one of them.")


class HeadKind(Strict):
    """An entry of `heads`: one question that the model answers of every candidate, and what the answer weighs.

    The utility is the sum of `weight` x value (x the candidate's attribute `times`, where the head names one).
    """

    single: ClassVar[bool] = True
    """Whether a surface has at most one head of the kind, because two would read the same answers."""
    probability: ClassVar[bool] = True
    """Whether the value is a probability."""
    likelihood: ClassVar[bool] = False
    """Whether the leaves' likelihoods must be computed."""
    reads_vectors: ClassVar[bool] = False
    """Whether it works with the items' vectors, which the model makes when the surface comes online."""

    name: Word = Field(description="What replies call it; of a choice head also the answer word that the model reads.")
    type: str
    weight: float = Field(0.0, ge=-1_000, le=1_000, description="What its value counts in the utility.")
    times: str | None = Field(
        None, max_length=256, description="A number among the candidate's attributes (a bid) that multiplies the value."
    )
    calibration: Calibration | None = Field(None, description="A line through the log-odds, or through the value.")
    actions: Annotated[tuple[Word, ...], listed(min_length=1)] = Field(
        default_factory=lambda data: (data["name"],) if "name" in data else (),
        description="Actions in the ledger that make the label positive; by default the head's name.",
    )

    @property
    def words(self) -> tuple[str, ...]:
        """The answer words that the head reads, apart from those that choice heads share."""
        return ()

    @abstractmethod
    def read(self, answers: Answers) -> Array:
        """[L]: the head's value of every leaf, before calibration."""

    def value(self, answers: Answers) -> Array:
        """[L]: the calibrated value of every leaf."""
        raw = self.read(answers)
        return raw if self.calibration is None else self._calibrated(raw, self.calibration)

    def _calibrated(self, raw: Array, line: Calibration) -> Array:
        if not self.probability:
            return line.slope * raw + line.intercept
        inside = np.clip(raw, EDGE, 1 - EDGE)
        odds = line.slope * (np.log(inside) - np.log1p(-inside)) + line.intercept
        calibrated: Array = 1 / (1 + np.exp(-np.clip(odds, -500, 500)))
        return calibrated
