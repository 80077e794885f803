"""How much the member makes a candidate's text more likely: for models that were never trained to rank."""

from __future__ import annotations

from typing import ClassVar, Literal

from surfaces.heads.base import Answers, Array, HeadKind


class LikelihoodHead(HeadKind):
    """log p(leaf | trunk, stem) - log p(leaf | stem), in nats a token."""

    probability: ClassVar[bool] = False
    likelihood: ClassVar[bool] = True
    type: Literal["likelihood"]

    def read(self, answers: Answers) -> Array:
        """[L]: nats a token, above 0 where the member makes the text more likely."""
        return answers.likelihood
