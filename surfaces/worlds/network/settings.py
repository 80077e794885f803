"""What the four simulated surfaces are like: slates, tastes, rates. One record a surface, and nothing else tunes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Draw = Literal["popular", "topic", "industry", "city", "uniform"]


@dataclass(frozen=True, slots=True)
class Simulated:
    """One surface.

    A positive action's probability, once the item is examined, is the logistic function of a bias (see `calibration`)
    and these weights times: `affinity` (cosine of interest and item), `local` (same city, or anywhere), `level` (1 for
    the same seniority, less by a fifth for each step), `company` (the member's own), `recent` (1 when new, halved
    every `half_life` days), `popular` (standard deviations of the log-popularity).
    """

    surface: str
    kind: str
    share: float
    """Of all sessions."""
    slate: int
    pool: tuple[tuple[Draw, int], ...]
    """How many candidates each way of drawing brings."""
    positive: tuple[tuple[str, float], ...]
    """Positive actions and their shares; the first is the commonest."""
    negative: tuple[tuple[str, float], ...]
    """Negative actions and their probability, once examined, where nothing fits at all."""
    rate: float
    """Positive actions for each impression, in the mean."""
    affinity: float
    local: float = 0.0
    level: float = 0.0
    company: float = 0.0
    recent: float = 0.0
    half_life: float = 1.0
    popular: float = 0.0
    mutual: bool = False
    """Whether the other side must want it too."""


SURFACES = (
    Simulated(
        "feed", "post", 0.5, 10,
        (("popular", 6), ("topic", 8), ("industry", 5), ("city", 2), ("uniform", 3)),
        (("like", 0.8), ("comment", 0.13), ("share", 0.07)), (("hide", 0.02),),
        rate=0.1, affinity=4.5, local=0.6, company=1.0, recent=1.0, half_life=2.0, popular=0.6,
    ),
    Simulated(
        "jobs", "job", 0.17, 8,
        (("popular", 4), ("topic", 7), ("industry", 4), ("city", 3), ("uniform", 2)),
        (("apply", 0.55), ("save", 0.45)), (("dismiss", 0.03),),
        rate=0.08, affinity=4.5, local=1.0, level=2.5, recent=0.5, half_life=10.0, popular=0.5,
    ),
    Simulated(
        "ads", "ad", 0.18, 4,
        (("popular", 5), ("topic", 4), ("industry", 2), ("uniform", 1)),
        (("click", 1.0),), (("hide", 0.015),),
        rate=0.03, affinity=4.2, popular=0.5,
    ),
    Simulated(
        "people", "person", 0.15, 8,
        (("popular", 3), ("topic", 7), ("industry", 4), ("city", 4), ("uniform", 2)),
        (("connect", 1.0),), (),
        rate=0.1, affinity=3.2, local=1.2, level=0.8, company=2.0, popular=1.0, mutual=True,
    ),
)  # fmt: skip

SESSIONS = 12.0
"""The mean of sessions per member over the whole period."""

EXAMINATION = 0.6
"""A place is examined with probability 1 / (1 + place) ** 0.6: the shape that Joachims, Swaminathan and Schnabel give
it in "Unbiased learning-to-rank with biased feedback" (WSDM 2017), where the exponent is called eta."""

EXPLORATION = 0.1
"""With this probability a place of a slate goes to any candidate of the pool, all alike."""
LOGGED_AFFINITY, LOGGED_POPULARITY = 2.0, 0.6
"""The logging policy's taste: weights of the member's and item's cosine, without drift, and of the log-popularity."""
