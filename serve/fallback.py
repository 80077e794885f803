"""The slate when the model's answer is not to be had: the candidates in the order in which they were retrieved."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from serve.schemas import RankedItem
from serve.served import ServedSurface
from serve.shortlist import Shortlist
from surfaces.policies.base import Entry, by_place

logger = logging.getLogger(__name__)


def in_retrieval_order(shortlist: Shortlist, surface: ServedSurface, k: int) -> list[RankedItem]:
    """The first `k` candidates as `fallback.order` and the policies have them, without probabilities."""
    entries = shortlist.entries(by_place(len(shortlist.candidates)), surface)
    try:
        placed = on_slate(entries, shortlist, surface, k)
    except Exception:  # the last resort of a request: whatever a policy makes of odd data, there is a slate
        logger.exception("the policies of '%s' failed; the slate goes without them", surface.spec.surface)
        placed = entries[:k]
    candidates = {candidate.item_id: candidate for candidate in shortlist.candidates}
    return [
        RankedItem(
            item_id=entry.item_id,
            rank=rank,
            utility=None,
            heads={},
            sources=shortlist.sources(candidates[entry.item_id]),
            propensity=entry.propensity,
        )
        for rank, entry in enumerate(placed, 1)
    ]


def on_slate(entries: Sequence[Entry], shortlist: Shortlist, surface: ServedSurface, k: int) -> list[Entry]:
    """The first `k` entries after the policies. Of a list that the caller gave, none is dropped."""
    return surface.after_policies(entries, shortlist.visit, k, whole=shortlist.whole)[:k]
