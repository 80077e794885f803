"""Answers of the model, read as a surface's heads. L leaves, A answers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from foundation.heads import choice, pointwise
from surfaces.spec import NO, NONE, YES, SurfaceSpec

Array = npt.NDArray[np.float64]


class HeadReading(NamedTuple):
    """`values` [L] of every head by name, and the `utility` [L] by which candidates are ordered.

    A choice or pointwise head's value is a probability; a likelihood head's is in nats a token, above 0 where the
    member makes the candidate's text more likely.
    """

    values: dict[str, Array]
    utility: Array


def read_heads(spec: SurfaceSpec, logp_LA: npt.ArrayLike, likelihood_L: npt.ArrayLike = ()) -> HeadReading:
    """Values from log-probabilities whose columns are `spec.answers`; utility is their weighted sum.

    `likelihood_L` is read by a likelihood head. Raises ValueError when shapes are not those of the surface's heads.
    """
    table_LA, likely_L = np.asarray(logp_LA, dtype=np.float64), np.asarray(likelihood_L, dtype=np.float64)
    if table_LA.ndim != 2 or table_LA.shape[1] != len(spec.answers):
        raise ValueError(f"the answers' shape is {table_LA.shape}; [leaves, {len(spec.answers)}] is expected")
    if spec.likelihood and likely_L.shape != table_LA.shape[:1]:
        raise ValueError(f"the likelihoods' shape is {likely_L.shape}; [{len(table_LA)}] is expected")
    by_type = {"pointwise": _yes(spec, table_LA), "likelihood": likely_L}
    shares = _choices(spec, table_LA)
    values = {head.name: shares[head.name] if head.type == "choice" else by_type[head.type] for head in spec.heads}
    utility = np.zeros(len(table_LA))
    for head in spec.heads:
        utility += head.weight * values[head.name]
    return HeadReading(values, utility)


def _columns(spec: SurfaceSpec, words: tuple[str, ...]) -> list[int]:
    return [spec.answers.index(word) for word in words]


def _choices(spec: SurfaceSpec, table_LA: Array) -> dict[str, Array]:
    words = (*(head.name for head in spec.choices), NONE)
    if not spec.choices or not len(table_LA):
        return {word: np.zeros(0) for word in words}
    shares = choice(table_LA[:, _columns(spec, words)])
    return dict(zip(words, shares.T, strict=True))


def _yes(spec: SurfaceSpec, table_LA: Array) -> Array:
    if YES not in spec.answers or not len(table_LA):
        return np.zeros(0)
    return pointwise(table_LA[:, _columns(spec, (YES, NO))])
