"""Yes or no."""

from __future__ import annotations

from typing import Literal

import numpy as np

from foundation.heads import pointwise
from surfaces.heads.base import NO, YES, Answers, Array, HeadKind


class PointwiseHead(HeadKind):
    """The probability of yes against no."""

    type: Literal["pointwise"]

    @property
    def words(self) -> tuple[str, ...]:
        """Yes and no."""
        return (YES, NO)

    def read(self, answers: Answers) -> Array:
        """[L]: the probability of yes."""
        return pointwise(np.stack([answers.logp[YES], answers.logp[NO]], axis=1))
