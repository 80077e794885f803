"""A number: the mean of what several answers stand for."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from foundation.heads import choice
from surfaces.fields import wrong
from surfaces.heads.base import NO, NONE, YES, Answers, Array, HeadKind

Number = Annotated[float, Field(ge=-1e9, le=1e9)]
AnswerWord = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]{0,31}$")]


class ValueHead(HeadKind):
    """The expected value over numeric answers, such as a rating: the sum of p(answer) x number."""

    probability: ClassVar[bool] = False
    type: Literal["value"]
    answers: Annotated[dict[AnswerWord, Number], Field(min_length=2, max_length=16)] = Field(
        description="The number that each answer word stands for, like {bad: 1, fair: 3, good: 5}."
    )

    @field_validator("answers")
    @classmethod
    def _words_free(cls, answers: dict[AnswerWord, float]) -> dict[AnswerWord, float]:
        for word in answers:
            if word in {NONE, YES, NO}:
                raise wrong(f"'{word}' is an answer of its own; take another word", word)
        return answers

    @property
    def words(self) -> tuple[str, ...]:
        """The answers, in the order of the file."""
        return tuple(self.answers)

    def read(self, answers: Answers) -> Array:
        """[L]: the expected number."""
        shares_LA = choice(np.stack([answers.logp[word] for word in self.answers], axis=1))
        # Not a matrix product: how that one rounds depends on how many leaves there are.
        expected: Array = (shares_LA * np.array(list(self.answers.values()))).sum(axis=1)
        return expected
