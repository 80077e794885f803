"""Who goes with whom, when both sides choose.

D. Gale, L. Shapley, "College admissions and the stability of marriage", American Mathematical Monthly 69 (1962); many
to many: A. Roth, "Stability and polarization of interests in job matching", Econometrica 52 (1984).
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappush, heappushpop

Wishes = Sequence[Sequence[int]]
Likes = Sequence[Sequence[float]]


def deferred_acceptance(wishes: Wishes, likes: Likes, slots: int, capacity: int) -> list[list[int]]:
    """By suitor, the people who keep them, in the order of the suitor's wishes: a stable matching, the suitors' best.

    `wishes[s]` are the numbers of people that suitor `s` wants, the dearest first, each once; `likes[s][c]` is how much
    person `wishes[s][c]` likes suitor `s` (of two who are liked alike, the one with the lower number is dearer). A
    suitor goes with at most `slots` people, a person keeps at most `capacity` suitors.

    Stable: no suitor and person who do not go together would both rather do so, in a free place or in the place of
    one that they have. Takes at most one step a wish, each of the order of log(capacity).
    """
    people = 1 + max((max(row) for row in wishes if len(row)), default=-1)
    kept: list[list[tuple[float, int, int]]] = [[] for _ in range(people)]
    asked = [0] * len(wishes)
    waiting = [suitor for suitor in range(len(wishes)) for _ in range(slots)]
    while waiting:
        suitor = waiting.pop()
        place = asked[suitor]
        if place == len(wishes[suitor]):
            continue
        asked[suitor] += 1
        person, offer = wishes[suitor][place], (likes[suitor][place], -suitor, place)
        if len(kept[person]) < capacity:
            heappush(kept[person], offer)
        else:
            waiting.append(-heappushpop(kept[person], offer)[1])
    return _by_suitor(wishes, kept)


def _by_suitor(wishes: Wishes, kept: Sequence[Sequence[tuple[float, int, int]]]) -> list[list[int]]:
    places: list[list[int]] = [[] for _ in wishes]
    for suitors in kept:
        for _, suitor, place in suitors:
            places[-suitor].append(place)
    return [[wishes[suitor][place] for place in sorted(mine)] for suitor, mine in enumerate(places)]
