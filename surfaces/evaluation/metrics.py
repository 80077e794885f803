"""Figures of one ranking with one target, from the target's rank.

With one relevant item the ideal gain is 1, so NDCG is 1 / log2(1 + rank): Järvelin and Kekäläinen, "Cumulated
gain-based evaluation of IR techniques", ACM TOIS 20 (2002).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

METRICS = ("ndcg@10", "hr@10", "mrr", "auc")


def rank_of(scores: npt.NDArray[np.floating], target: int) -> float:
    """The expected rank of item `target`, 1 the best: an item with an equal score stands before it half the time."""
    above = np.count_nonzero(scores > scores[target])
    level = np.count_nonzero(scores == scores[target]) - 1
    return 1.0 + above + level / 2


def ndcg(rank: float, k: int) -> float:
    """1 / log2(1 + rank) within the first k, else 0."""
    return 1.0 / math.log2(1.0 + rank) if rank <= k else 0.0


def hit_rate(rank: float, k: int) -> float:
    """1 within the first k, else 0."""
    return 1.0 if rank <= k else 0.0


def reciprocal_rank(rank: float) -> float:
    """1 / rank."""
    return 1.0 / rank


def auc(rank: float, items: int) -> float:
    """The share of the other items that stand behind the target; 0.5 where there are none."""
    return 1.0 - (rank - 1.0) / (items - 1) if items > 1 else 0.5


def figures(rank: float, items: int) -> dict[str, float]:
    """Every figure in `METRICS` for a target at that rank among that many items."""
    return {
        "ndcg@10": ndcg(rank, 10),
        "hr@10": hit_rate(rank, 10),
        "mrr": reciprocal_rank(rank),
        "auc": auc(rank, items),
    }
