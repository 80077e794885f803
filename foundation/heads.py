"""From answer log-probabilities to probabilities. L leaves, A answers.

Log-probabilities that are normalised over more answers than a head asks about keep their differences, so a head
renormalises over its own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def choice(logp_LA: npt.ArrayLike) -> Array:
    """Shares [L, A] of a softmax over a head's answers."""
    logits = np.asarray(logp_LA, dtype=np.float64)
    weights: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Array = weights / weights.sum(axis=1, keepdims=True)
    return shares


def pointwise(logp_L2: npt.ArrayLike) -> Array:
    """Probability [L] of the first answer (yes) against the second (no)."""
    return choice(logp_L2)[:, 0]
