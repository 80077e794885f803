"""What turns the heads' answers into probabilities that hold: fitted for each surface, kept beside the checkpoint.

`calibration.json` lies in the model's folder and belongs to its weights: a choice surface's softmax gets a temperature
and a bias for each answer, any other probability a line or steps through its log-odds. Every map is strictly
increasing, so that a surface with one head keeps its order. L leaves.
"""

from __future__ import annotations

import json
import logging
import os
from itertools import pairwise
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, field_validator, model_validator
from scipy.special import expit, logit

from foundation import model as models
from prompts.errors import CheckpointError
from surfaces.fields import Name, Strict, Word, listed, wrong
from surfaces.heads.base import EDGE, Answers, Array, HeadKind
from surfaces.spec import SurfaceSpec

logger = logging.getLogger(__name__)

FILE = "calibration.json"
REMEDY = "delete the file and fit it anew"
SIZE_CAP = 4 << 20
"""Bytes of the file: a thousand surfaces have room."""
KNOTS = 512

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Slope = Annotated[float, Field(gt=0, le=1_000)]
Shift = Annotated[float, Field(ge=-1_000, le=1_000)]
Knots = Annotated[tuple[float, ...], listed(min_length=2, max_length=KNOTS)]


def log_odds(p: Array) -> Array:
    """log p / (1 - p), kept finite."""
    odds: Array = logit(np.clip(p, EDGE, 1 - EDGE))
    return odds


class Line(Strict):
    """A line through the log-odds. J. Platt, "Probabilistic outputs for support vector machines", 1999."""

    form: Literal["line"] = "line"
    slope: Slope = 1.0
    intercept: Shift = 0.0

    def __call__(self, p_L: Array) -> Array:
        """[L]: calibrated probabilities."""
        found: Array = expit(self.slope * log_odds(p_L) + self.intercept)
        return found


class Steps(Strict):
    """Probabilities at some log-odds, and straight lines between them: isotonic regression without its plateaus."""

    form: Literal["steps"] = "steps"
    log_odds: Knots
    probabilities: Knots

    @field_validator("log_odds", "probabilities")
    @classmethod
    def _rising(cls, knots: tuple[float, ...]) -> tuple[float, ...]:
        for place, (low, high) in enumerate(pairwise(knots), 1):
            if low >= high:
                raise wrong(f"{high:g} comes after {low:g}; every number must be above the one before", place)
        return knots

    @model_validator(mode="after")
    def _matched(self) -> Self:
        if len(self.log_odds) != len(self.probabilities):
            raise wrong(f"has {len(self.log_odds)} log-odds and {len(self.probabilities)} probabilities; give as many")
        if not 0 <= self.probabilities[0] < self.probabilities[-1] <= 1:
            raise wrong("must be from 0 to 1", "probabilities")
        return self

    def __call__(self, p_L: Array) -> Array:
        """[L]: calibrated probabilities."""
        found: Array = np.interp(log_odds(p_L), self.log_odds, self.probabilities)
        return found


class Shares(Strict):
    """A softmax with its logits times a slope (one over the temperature) and a bias for each word but `none`.

    C. Guo et al., "On calibration of modern neural networks", ICML 2017, section 4.2.
    """

    slope: Slope = 1.0
    bias: Annotated[dict[Word, Shift], Field(min_length=1, max_length=32)]

    def __call__(self, answers: Answers) -> Answers:
        """The answers with the calibrated logits of the words that share the softmax in place of their own."""
        told = {word: self.slope * answers.logp[word] + self.bias.get(word, 0.0) for word in answers.choices}
        return answers._replace(logp={**answers.logp, **told})


Map = Annotated[Line | Steps, Field(discriminator="form")]


class HeadFigures(Strict):
    """How often a head's answer came true, and the calibration error before and after, of members it was not fitted to.

    `map` is the head's own; None where it has none: a choice head shares its surface's `choices`.
    """

    map: Map | None = None
    rate: Share
    ece_before: Share
    ece_after: Share


class CalibratedSurface(Strict):
    """What was fitted for a surface, to which version of its file, and on what."""

    version: Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
    fitted_on: Literal["impressions", "rankings"]
    members: Count
    rankings: Count
    answers: Count
    choices: Shares | None = None
    heads: Annotated[dict[Word, HeadFigures], Field(max_length=32)]

    def values(self, heads: tuple[HeadKind, ...], answers: Answers) -> dict[str, Array]:
        """[L] of every head by name, calibrated where there is something to it; the file's own line has precedence."""
        answers = self.choices(answers) if self.choices else answers
        return {head.name: self._value(head, answers) for head in heads}

    def _value(self, head: HeadKind, answers: Answers) -> Array:
        found = self.heads.get(head.name)
        if found is None or found.map is None or head.calibration is not None:
            return head.value(answers)
        return found.map(head.read(answers))

    def fits(self, spec: SurfaceSpec) -> bool:
        """Whether it speaks of the surface's heads alone, and of all its choices."""
        choices = {head.name for head in spec.choices}
        able = {head.name for head in spec.heads if head.probability}
        own = {name for name, head in self.heads.items() if head.map is not None}
        shared = self.choices is None or set(self.choices.bias) == choices
        return shared and set(self.heads) <= able and not own & choices


class Calibrations(Strict):
    """All that was fitted for one model: `model` is the version of its weights."""

    model: Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
    surfaces: Annotated[dict[Name, CalibratedSurface], Field(max_length=1_000)] = Field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, model: str | None = None) -> Self:
        """Those of a folder; none where it has no such file, or one of other weights (with a warning).

        `model` is the version of the weights; None: of those in the folder. Raises CheckpointError for a file that is
        damaged, and says where.
        """
        model = model or models.version(folder)
        found = cls._read(folder / FILE) if os.path.lexists(folder / FILE) else cls(model=model)
        if found.model != model:
            logger.warning("%s was fitted to other weights and is left aside: run `prismrank calibrate`", folder / FILE)
            return cls(model=model)
        return found

    @classmethod
    def _read(cls, path: Path) -> Self:
        if not path.is_file():
            raise CheckpointError(f"{path}: no plain file; calibrations are JSON, written by `prismrank calibrate`")
        with path.open("rb") as file:
            content = file.read(SIZE_CAP + 1)
        if len(content) > SIZE_CAP:
            raise CheckpointError(f"{path}: has more than {SIZE_CAP:,} bytes; `prismrank calibrate` writes less")
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            at = first.get("ctx", {}).get("at", ())
            where = ".".join(str(part)[:64] for part in (*first["loc"], *at))
            told = ": ".join(filter(None, (str(path), where, first["msg"][:200])))
            raise CheckpointError(f"{told}; {REMEDY}") from None

    def save(self, folder: Path) -> Path:
        """Writes them into a folder, whole or not at all; returns the file's path. The same content, the same bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.model_dump(mode="json", exclude_none=True), indent=1, sort_keys=True, allow_nan=False)
        with NamedTemporaryFile("w", encoding="utf-8", dir=folder, prefix=".calibration-", delete=False) as scratch:
            scratch.write(text + "\n")
        try:
            os.chmod(scratch.name, 0o644)
            os.replace(scratch.name, folder / FILE)
        finally:
            Path(scratch.name).unlink(missing_ok=True)
        return folder / FILE

    def plus(self, surface: str, found: CalibratedSurface) -> Self:
        """These, with what was fitted for a surface in place of what was there."""
        return self.model_copy(update={"surfaces": {**self.surfaces, surface: found}})

    def of(self, spec: SurfaceSpec, version: str) -> CalibratedSurface | None:
        """What was fitted for a surface; None where nothing was, or, with a warning, to another version of its file.

        Raises CheckpointError where it speaks of heads that the surface does not have.
        """
        found = self.surfaces.get(spec.surface)
        if found is None:
            return None
        if found.version != version:
            logger.warning(
                "surface '%s' is uncalibrated: its file changed from version %s to %s; run `prismrank calibrate %s`",
                spec.surface, found.version, version, spec.surface,
            )  # fmt: skip
            return None
        if not found.fits(spec):
            raise CheckpointError(f"{FILE}: surfaces.{spec.surface}: not the heads of that surface; {REMEDY}")
        return found
