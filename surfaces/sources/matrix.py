"""The matrix of members and items that the classical methods learn from, and how a history is weighed for them."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import sparse

from prompts.errors import ConfigError
from surfaces.sources.base import Indices, Interactions, Scores

DECAY = 0.9

ROWS_AT_ONCE = 256
STEP = 1e-5

Square = npt.NDArray[np.float32]
"""[items, items]."""

Decay = Annotated[
    float,
    Field(
        gt=0, le=1, description="The newest item of a timeline counts 1, and each older one so many times the next one."
    ),
]
"""What `weighed` takes, as a key of a surface file."""


def choices(data: Interactions) -> sparse.csr_array:
    """[members, items], float32: 1 where the member chose the item at least once."""
    lengths = [len(sequence) for sequence in data.sequences]
    members = np.repeat(np.arange(len(lengths)), lengths)
    items = np.concatenate([np.zeros(0, dtype=np.int64), *data.sequences])
    shape = (len(lengths), len(data.item_ids))
    chosen_MI = sparse.csr_array((np.ones(len(items), dtype=np.float32), (members, items)), shape=shape)
    chosen_MI.data[:] = 1.0
    return chosen_MI


def with_events(chosen_MI: sparse.csr_array) -> npt.NDArray[np.bool_]:
    """[items]: whether anybody chose the item."""
    _, items = chosen_MI.shape
    return np.bincount(chosen_MI.indices, minlength=items) > 0


def weighed(history_H: Indices, decay: float) -> tuple[Indices, Scores]:
    """Each item of a history once, by its last place there, and its weight: `decay` to the number of items after it.

    The items are in the order of time. A decay of 1 makes every weight 1.
    """
    items, from_end = np.unique(history_H[::-1], return_index=True)
    order = np.argsort(-from_end)
    return items[order], decay ** np.arange(len(items) - 1, -1, -1.0)


def add_product(total_JJ: Square, left_RJ: sparse.csr_array, right_RJ: sparse.csr_array) -> None:
    """Adds left' right, some rows of it at a time, so that it is never there as a sparse matrix, too."""
    left_JR = sparse.csr_array(left_RJ.T)
    for start, stop in blocks(len(total_JJ)):
        total_JJ[start:stop] += (left_JR[start:stop] @ right_RJ).toarray()


def levelled(scores_J: npt.NDArray[np.float32]) -> Scores:
    """[items]: in steps of a hundred-thousandth of the largest, so that rounding alone puts no item above another.

    What a matrix in 32 bits gives depends in its last digits on how many threads worked on it, and on the processor.
    """
    largest = float(np.abs(scores_J).max(initial=0.0))
    step = largest * STEP or 1.0
    return np.round(scores_J.astype(np.float64) / step) * step


def blocks(size: int) -> list[tuple[int, int]]:
    """Ranges of rows that are worked on at once."""
    return [(start, min(start + ROWS_AT_ONCE, size)) for start in range(0, size, ROWS_AT_ONCE)]


def places_of(known_J: Indices, items: int) -> Indices:
    """[items]: each item's place among the known ones, -1 for the others."""
    place_I = np.full(items, -1, dtype=np.int64)
    place_I[known_J] = np.arange(len(known_J))
    return place_I


def check(name: str, **settings: float) -> None:
    """Raises ConfigError for settings that are not above 0, and a decay above 1."""
    wrong = [f"{key} {value}" for key, value in settings.items() if value <= 0 or (key == "decay" and value > 1)]
    if wrong:
        raise ConfigError(f"{name}: {', '.join(wrong)}: settings are above 0, and a decay is at most 1")
