"""How near a candidate's vector is to the member's."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from surfaces.heads.base import Answers, Array, HeadKind


class EmbeddingHead(HeadKind):
    """The cosine of the candidate's vector and the recency-weighted mean of the vectors of what the member chose.

    The vectors were made when the surface came online: no forward is needed. It is 0 where one of them is missing.
    """

    probability: ClassVar[bool] = False
    reads_vectors: ClassVar[bool] = True
    type: Literal["embedding"]

    def read(self, answers: Answers) -> Array:
        """[L]: cosines in [-1, 1]."""
        return np.nan_to_num(answers.similarity, nan=0.0)
