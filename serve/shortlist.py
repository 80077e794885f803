"""The first stage of every ranking, and its fallback: who the member is, and which candidates there are."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from prompts.errors import UnknownError
from serve.schemas import RankRequest, TimelineEvent
from serve.served import ServedSurface
from surfaces.context import moment, told
from surfaces.happenings import attributes_of, readable
from surfaces.heads.base import Array
from surfaces.ledger.records import Event, Item, Member, quoted
from surfaces.ledger.store import ALL, Ledger
from surfaces.policies.base import Entry, best_first, by_place, relevances
from surfaces.routing import Way
from surfaces.sources.merge import Candidate, fallback_order, shares
from surfaces.visit import Visit

REQUEST = "request"
"""The source of a candidate that the caller gave."""
POLICY = "policy"
"""The source of a candidate that a policy wants to be there."""


class Shortlist(NamedTuple):
    """A visit, and the candidates for it in the order of the fallback.

    `items` has every candidate's item, and those of the events that fit the trunk, by id. `whole`: the candidates are
    the caller's own, and none of them may be dropped. `way`: who orders them.
    """

    visit: Visit
    candidates: Sequence[Candidate]
    items: Mapping[str, Item]
    whole: bool
    way: Way

    @property
    def listed(self) -> list[Item]:
        """The candidates' items, in their order."""
        return [self.items[candidate.item_id] for candidate in self.candidates]

    def sources(self, candidate: Candidate) -> list[str]:
        """Where a candidate came from, the source that ranks it best first."""
        found = sorted(candidate.sources, key=candidate.sources.__getitem__)
        return [REQUEST] if self.whole else found or [POLICY]

    def shares(self, slate: Iterable[str], surface: ServedSurface) -> dict[str, float]:
        """Each source's share in what put the slate's candidates forward; nothing for a caller's own list."""
        chosen = set(slate)
        weights = {fitted.name: fitted.weight for fitted in surface.retrieval.sources}
        among = [candidate for candidate in self.candidates if candidate.item_id in chosen]
        return {} if self.whole else shares(among, weights)

    def entries(self, relevances: Sequence[float], surface: ServedSurface) -> list[Entry]:
        """The candidates as policies see them, in their order."""
        return [
            Entry(item.item_id, relevance, attributes_of(item), surface.retrieval.vector(item.item_id))
            for item, relevance in zip(self.listed, relevances, strict=True)
        ]

    def ordered(self, utility_L: Array, surface: ServedSurface) -> tuple[list[Entry], dict[str, str]]:
        """The candidates as policies see them, in the order of their way, where `utility_L` is what the model thinks.

        Beside it, by item, the arm that picked it where two orders are drawn together.
        """
        names, router = [candidate.item_id for candidate in self.candidates], surface.router
        if not self.way.interleaved:
            scores_L = router.scores(self.way.routes[0], utility_L, self.visit, names)
            return best_first(self.entries(relevances(scores_L), surface)), {}
        drafted = router.draft(self.way, utility_L, self.visit, names)
        relevance = dict(zip((each.item_id for each in drafted), by_place(len(drafted)), strict=True))
        entries = self.entries([relevance[name] for name in names], surface)
        return best_first(entries), {each.item_id: each.team for each in drafted}


def draw_up(request: RankRequest, surface: ServedSurface, ledger: Ledger, newest: int = ALL) -> Shortlist:
    """The shortlist for a request, by the `newest` events of a member.

    Raises UnknownError for a member or an item that nobody knows.
    """
    with ledger.together():
        return _drawn_up(request, surface, ledger, newest)


def _drawn_up(request: RankRequest, surface: ServedSurface, ledger: Ledger, newest: int) -> Shortlist:
    known = _Known(request, surface.spec.item_kind, ledger)
    visit = _visit(request, surface.spec.surface, known, newest)
    whole = request.candidates is not None and not surface.takes_candidates
    retrieval, events = surface.retrieval, readable(visit.timeline, surface.form.budget)
    known.lookup([*visit.given, *(event.item_id for event in events if whole)])  # all that will be asked for, at once
    known.all_of(visit.given)
    candidates = retrieval.place(visit, visit.given) if whole else retrieval.gather(visit, surface.brought)
    candidates = fallback_order(candidates, surface.spec.fallback.order)
    listed = [candidate.item_id for candidate in candidates]
    names = dict.fromkeys([*(event.item_id for event in events), *listed])
    return Shortlist(visit, candidates, known.all_of(list(names)), whole, surface.router.way(visit, listed))


class _Known:
    """Items by id: those that the request describes, and the ledger's, each read once for a request."""

    def __init__(self, request: RankRequest, kind: str, ledger: Ledger) -> None:
        self.ledger = ledger
        self.found: dict[str, Item] = {}
        self.absent: set[str] = set()
        for event in request.member.timeline if request.member else ():
            if event.item is not None:
                self.found[event.item_id] = Item(event.item_id, kind, event.item)
        for each in request.candidates or ():
            if not isinstance(each, str) and each.attributes():
                self.found[each.item_id] = Item(each.item_id, kind, each.attributes())

    def lookup(self, item_ids: Iterable[str]) -> dict[str, Item]:
        """Those of the items that there are."""
        names = list(dict.fromkeys(item_ids))
        unread = [name for name in names if name not in self.found and name not in self.absent]
        if unread:
            self.found.update(self.ledger.items(unread))
            self.absent.update(name for name in unread if name not in self.found)
        return {name: self.found[name] for name in names if name in self.found}

    def all_of(self, item_ids: Sequence[str]) -> dict[str, Item]:
        """The items. Raises UnknownError for one that neither the request nor the ledger tells of."""
        items = self.lookup(item_ids)
        missing = [name for name in item_ids if name not in items]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            advice = "the ledger must hold an item, or the request bring its attributes"
            raise UnknownError(f"unknown item {quoted(missing[0])}{more}; {advice}")
        return items


def _visit(request: RankRequest, surface: str, known: _Known, newest: int) -> Visit:
    context, now = request.context or {}, known.ledger.now or time.time()
    member, timeline = _member(request, surface, known.ledger, moment(context, now), newest)
    given = tuple(each if isinstance(each, str) else each.item_id for each in request.candidates or ())
    return Visit(
        timeline=timeline,
        member_id=member.member_id,
        profile=member.profile,
        context=told(context, now),
        now=moment(context, now),
        lookup=known.lookup,
        given=given,
    )


def _member(
    request: RankRequest, surface: str, ledger: Ledger, now: float, newest: int
) -> tuple[Member, Sequence[Event]]:
    if request.member is None:
        return ledger.visitor(request.member_id or "", newest)
    ago = len(request.member.timeline)
    timeline = [
        Event("", event.item_id, event.surface or surface, event.action, _seconds(event, now - ago + place))
        for place, event in enumerate(request.member.timeline)
    ]
    return Member("", request.member.profile), timeline


def _seconds(event: TimelineEvent, lately: float) -> float:
    return lately if event.timestamp is None else event.timestamp
