"""Two rankings in one slate, so that the same member chooses between them.

Team draft: F. Radlinski, M. Kurup, T. Joachims, "How does clickthrough data reflect retrieval quality?", CIKM 2008,
section 4.2. In each round a coin says which arm picks first; each puts its best item that is not placed yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prompts.errors import ConfigError

Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]


class Placed(NamedTuple):
    """An item of an interleaved slate."""

    item_id: str
    team: str
    """The arm whose pick it was."""


class Drafts(NamedTuple):
    """Many interleaved slates."""

    places_SK: Ints
    """Places among the candidates; -1 where none was left."""
    first_SK: Bools
    """Whether it was the first arm's pick."""


def team_draft(rankings: Mapping[str, Sequence[str]], k: int, rng: np.random.Generator) -> list[Placed]:
    """The first k items of both rankings' draft, best first.

    `rankings` are two arms' items, best first. An arm that has no item left passes, and the other one picks alone.
    Raises ConfigError for other than two arms, and for an item that stands twice in one ranking.
    """
    _check(rankings)
    left, placed, known = {name: iter(items) for name, items in rankings.items()}, list[Placed](), set[str]()
    first, second = rankings
    while len(placed) < k:
        turn = (first, second) if rng.random() < 0.5 else (second, first)
        before = len(placed)
        for team in turn:
            pick = next((item for item in left[team] if item not in known), None)
            if pick is not None and len(placed) < k:
                placed.append(Placed(pick, team))
                known.add(pick)
        if len(placed) == before:
            break
    return placed


def _check(rankings: Mapping[str, Sequence[str]]) -> None:
    if len(rankings) != 2:
        raise ConfigError(f"interleaving: {len(rankings)} arms ({', '.join(rankings)}); team draft takes two")
    for name, items in rankings.items():
        if len(set(items)) < len(items):
            raise ConfigError(f"interleaving: arm {name!r} ranks an item twice")


def credit(slate: Sequence[Placed], gains: Mapping[str, float]) -> dict[str, float]:
    """For each team of the slate, the sum of its picks' gains: item_id to the reward of what the member did.

    Items without a gain count 0, and gains of items that are not on the slate nothing.
    """
    sums: dict[str, float] = {}
    for item_id, team in slate:
        sums[team] = sums.get(team, 0.0) + gains.get(item_id, 0.0)
    return sums


def team_drafts(first_SP: Ints, second_SP: Ints, there_SP: Bools, k: int, rng: np.random.Generator) -> Drafts:
    """`team_draft` of many slates at once, over P candidates each.

    `first_SP` and `second_SP` hold each candidate's rank in the two arms, 0 the best; `there_SP` says which candidates
    there are: both arms rank the same ones. One coin a slate and round is drawn.
    """
    count, size = first_SP.shape
    rows, last = np.arange(count), np.iinfo(np.int32).max
    ranks = [np.where(there_SP, rank, last).astype(np.int32) for rank in (first_SP, second_SP)]
    places, team = np.full((count, k), -1), np.zeros((count, k), np.bool_)
    coins = rng.random((count, (k + 1) // 2)) < 0.5
    for place in range(min(k, size)):
        team[:, place] = coins[:, place // 2] ^ (place % 2 == 1)
        pick = np.where(team[:, place], ranks[0].argmin(axis=1), ranks[1].argmin(axis=1))
        left = ranks[0][rows, pick] < last
        places[left, place] = pick[left]
        for rank in ranks:
            rank[rows, pick] = last
    return Drafts(places, team & (places >= 0))
