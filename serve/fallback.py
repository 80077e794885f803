"""The slate when the model's answer is not to be had: the candidates in the order in which they were retrieved."""

from __future__ import annotations

from prompts.errors import PrismrankError
from serve.schemas import RankedItem, Reason
from serve.served import ServedSurface
from serve.shortlist import Shortlist


class DegradedError(PrismrankError):
    """The engine gave no answer for this request. The request still gets its slate, in retrieval order."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"the engine gave no answer: {reason}")
        self.reason: Reason = reason


def in_retrieval_order(shortlist: Shortlist, surface: ServedSurface, k: int) -> list[RankedItem]:
    """The first `k` candidates as `fallback.order` has them, without probabilities."""
    entries = shortlist.slate(shortlist.candidates, surface)[:k]
    return [
        RankedItem(item_id=entry.item_id, rank=rank, utility=None, heads={}, sources=shortlist.sources(entry))
        for rank, entry in enumerate(entries, 1)
    ]
