"""What the member does of several things, or nothing."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from foundation.heads import choice
from surfaces.heads.base import Answers, Array, HeadKind


class ChoiceHead(HeadKind):
    """A share of one softmax over all choice heads' names and `none` (shown, nothing done)."""

    single: ClassVar[bool] = False
    type: Literal["choice"]

    def read(self, answers: Answers) -> Array:
        """[L]: the probability of the head's word among the choices."""
        shares_LC = choice(np.stack([answers.logp[word] for word in answers.choices], axis=1))
        return shares_LC[:, answers.choices.index(self.name)]
