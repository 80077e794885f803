"""What came of an experiment that the server ran: the ledger's exposures, joined with what members did then."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prompts.errors import LedgerError
from surfaces.experiments.estimators import Estimate, Floats, WinRate, difference, linearised, win_rate
from surfaces.ledger.exposures import Shown
from surfaces.ledger.records import Event
from surfaces.ledger.store import Ledger

WITHIN = 86_400.0
"""So many seconds after a slate an action still counts for it."""


class Outcome(NamedTuple):
    """A row for each slate that showed anything, a column for each arm. `kind` is `ab` or `interleave`."""

    kind: str
    arms: tuple[str, ...]
    member_S: npt.NDArray[np.str_]
    shown_SA: Floats
    """Items of that arm on the slate: all of them in an A/B test, about half where slates are interleaved."""
    rewards_SA: Floats
    """The sum of what was done with them."""

    def won(self, first: str, second: str) -> WinRate:
        """Of interleaved slates. Raises LedgerError for another kind, an absent arm, or fewer than two members."""
        self._must_be("interleave")
        one, two = self._column(first), self._column(second)
        return win_rate(self.rewards_SA[:, one], self.rewards_SA[:, two], self.member_S)

    def lift(self, control: str, treated: str) -> Estimate:
        """Of an A/B test: the reward per slate of the members with `treated`, less that of those with `control`.

        Raises LedgerError for another kind, and for an arm that was never shown, or shown to fewer than two members.
        """
        self._must_be("ab")
        return difference(self._per_slate(control), self._per_slate(treated))

    def gaps(self, first: str, second: str) -> Floats:
        """(M) the first arm's credit less the second's on all of a member's interleaved slates, in the order in which
        the members came: units of a `SequentialTest`. Raises LedgerError for another kind, and for an absent arm.
        """
        self._must_be("interleave")
        gap_S = self.rewards_SA[:, self._column(first)] - self.rewards_SA[:, self._column(second)]
        _, came_M, place_S = np.unique(self.member_S, return_index=True, return_inverse=True)
        return np.asarray(np.bincount(place_S, gap_S)[np.argsort(came_M)])

    def _must_be(self, kind: str) -> None:
        if self.kind and self.kind != kind:
            raise LedgerError(f"the experiment is of the kind '{self.kind}'; this reads one of the kind '{kind}'")

    def _per_slate(self, arm: str) -> Floats:
        column = self._column(arm)
        own_S = self.shown_SA[:, column] > 0
        _, place_S = np.unique(self.member_S[own_S], return_inverse=True)
        return linearised(np.bincount(place_S, self.rewards_SA[own_S, column]), np.bincount(place_S))

    def _column(self, arm: str) -> int:
        if arm not in self.arms:
            raise LedgerError(f"arm {arm!r} was never shown; {', '.join(self.arms) or 'nothing'} was")
        return self.arms.index(arm)


def outcome(ledger: Ledger, experiment: str, rewards: Mapping[str, float], *, within: float = WITHIN) -> Outcome:
    """What the experiment's slates brought: `rewards` says what each action is worth, others are worth nothing.

    An action with an item counts for the member's last slate of the same surface that showed it, up to `within`
    seconds before. A degraded slate counts for the arm that was assigned (intention to treat); interleaved, it has no
    teams, and is left out. Raises LedgerError where two kinds of slates have the experiment's name.
    """
    shown = [row for row in ledger.exposures(experiment) if row.arm is not None]
    kinds = sorted({row.kind for row in shown})
    if len(kinds) > 1:
        raise LedgerError(
            f"experiment '{experiment}' has slates of two kinds, {' and '.join(kinds)}: they say no one thing"
        )
    slates = {key: place for place, key in enumerate(dict.fromkeys(row.exposure_id for row in shown))}
    arms = tuple(sorted({row.arm for row in shown if row.arm}))
    member_S = np.empty(len(slates), dtype=object)
    shown_SA, rewards_SA = np.zeros((2, len(slates), len(arms)))
    gains = _gains(shown, ledger.timelines({row.member_id for row in shown}), rewards, within)
    for row, gain in zip(shown, gains, strict=True):
        at = slates[row.exposure_id], arms.index(row.arm or "")
        member_S[at[0]] = row.member_id
        shown_SA[at] += 1
        rewards_SA[at] += gain
    return Outcome(kinds[0] if kinds else "", arms, member_S.astype(np.str_), shown_SA, rewards_SA)


def _gains(
    shown: Iterable[Shown], timelines: Mapping[str, Iterable[Event]], rewards: Mapping[str, float], within: float
) -> list[float]:
    """The reward of each row of `shown`, which come in the order of time."""
    times, gains = defaultdict[tuple[str, str, str], list[tuple[float, int]]](list), list[float]()
    for row in shown:
        times[row.member_id, row.surface, row.item_id].append((row.timestamp, len(gains)))
        gains.append(0.0)
    for member_id, events in timelines.items():
        for event in events:
            seen = times.get((member_id, event.surface, event.item_id))
            if seen and (last := bisect_right(seen, event.timestamp, key=lambda one: one[0])):
                since, place = seen[last - 1]
                gains[place] += rewards.get(event.action, 0.0) if event.timestamp - since <= within else 0.0
    return gains
