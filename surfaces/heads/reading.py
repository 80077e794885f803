"""Answers of the model, read as a surface's heads. L leaves, A answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from surfaces.calibrated import CalibratedSurface
from surfaces.heads.base import NONE, Answers, Array
from surfaces.spec import SurfaceSpec

LARGEST = 1e12
"""The largest bid, or other number of a candidate, that counts: a utility is always finite."""


class HeadReading(NamedTuple):
    """`values` [L] of every head by name, and the `utility` [L] by which candidates are ordered.

    A choice or pointwise head's value is a probability; a value head's is in the unit of its answers; a likelihood
    head's is in nats a token, above 0 where the member makes the candidate's text more likely; an embedding head's is
    a cosine.
    """

    values: dict[str, Array]
    utility: Array


def read_heads(
    spec: SurfaceSpec,
    logp_LA: npt.ArrayLike,
    likelihood_L: npt.ArrayLike = (),
    *,
    similarity_L: npt.ArrayLike | None = None,
    attributes: Sequence[Mapping[str, object]] | None = None,
    calibration: CalibratedSurface | None = None,
) -> HeadReading:
    """Values from log-probabilities whose columns are `spec.answers`; utility is their weighted sum.

    `likelihood_L` is read by a likelihood head, `similarity_L` by an embedding head, the candidates' `attributes` by
    heads with `times`. `calibration` is what was fitted to the surface, for these very weights. Raises ValueError when
    shapes are not those of the surface's heads.
    """
    table_LA, likely_L = np.asarray(logp_LA, dtype=np.float64), np.asarray(likelihood_L, dtype=np.float64)
    if table_LA.ndim != 2 or table_LA.shape[1] != len(spec.answers):
        raise ValueError(f"the answers' shape is {table_LA.shape}; [leaves, {len(spec.answers)}] is expected")
    leaves = len(table_LA)
    if spec.likelihood and likely_L.shape != (leaves,):
        raise ValueError(f"the likelihoods' shape is {likely_L.shape}; [{leaves}] is expected")
    answers = Answers(
        dict(zip(spec.answers, table_LA.T, strict=True)),
        (*(head.name for head in spec.choices), NONE),
        likely_L if spec.likelihood else np.full(leaves, np.nan),
        np.full(leaves, np.nan) if similarity_L is None else np.asarray(similarity_L, dtype=np.float64),
    )
    values = _values(spec, answers, calibration) if leaves else {head.name: np.zeros(0) for head in spec.heads}
    return HeadReading(values, utility(spec, values, attributes or [{}] * leaves))


def _values(spec: SurfaceSpec, answers: Answers, calibration: CalibratedSurface | None) -> dict[str, Array]:
    if calibration is not None:
        return calibration.values(spec.heads, answers)
    return {head.name: head.value(answers) for head in spec.heads}


def utility(spec: SurfaceSpec, values: Mapping[str, Array], attributes: Sequence[Mapping[str, object]]) -> Array:
    """[L]: the sum over heads of weight x value x the candidate's own number, where the head names one."""
    total = np.zeros(len(attributes))
    for head in spec.heads:
        own = np.array([number(each.get(head.times)) for each in attributes]) if head.times else 1.0
        total += head.weight * values[head.name] * own
    return total


def number(value: object) -> float:
    """An attribute as a number of at most `LARGEST`; 0 where it is none: what has no bid is worth nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    try:
        return max(-LARGEST, min(LARGEST, float(value))) if math.isfinite(value) else 0.0
    except OverflowError:
        return 0.0
