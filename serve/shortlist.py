"""The first stage of every ranking, and its fallback: who the member is, and which candidates there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prompts.errors import UnknownError
from serve.schemas import RankRequest, TimelineEvent
from serve.served import ServedSurface
from surfaces.happenings import readable
from surfaces.ledger.records import IMPRESSION, Event, Item, Member, quoted
from surfaces.ledger.store import Ledger
from surfaces.policies.seen import Seen
from surfaces.sources.merge import Candidate, fallback_order

REQUEST = "request"
"""The source of a candidate that the caller gave."""


class Shortlist(NamedTuple):
    """A member, and the candidates for them in the order of the fallback.

    `items` has every candidate's item, and those of the events that fit the trunk, by id.
    """

    member: Member
    timeline: Sequence[Event]
    candidates: Sequence[Candidate]
    items: Mapping[str, Item]
    given: bool

    def sources(self, candidate: Candidate) -> list[str]:
        """Where a candidate came from, the source that ranks it best first."""
        return [REQUEST] if self.given else sorted(candidate.sources, key=candidate.sources.__getitem__)

    def slate(self, best_first: Sequence[Candidate], surface: ServedSurface) -> list[Candidate]:
        """Candidates after the surface's policies. Those that the caller gave are all kept."""
        return list(best_first) if self.given else surface.after_policies(best_first, self.timeline)


def draw_up(request: RankRequest, surface: ServedSurface, ledger: Ledger) -> Shortlist:
    """The shortlist for a request. Raises UnknownError for a member or an item that nobody knows."""
    member, timeline = _member(request, surface.spec.surface, ledger)
    candidates = _retrieved(surface, timeline) if request.candidates is None else _given(request, surface, timeline)
    candidates = fallback_order(candidates, surface.spec.fallback.order)
    items = _items(request, surface, timeline, candidates, ledger)
    return Shortlist(member, timeline, candidates, items, given=request.candidates is not None)


def _member(request: RankRequest, surface: str, ledger: Ledger) -> tuple[Member, list[Event]]:
    if request.member is None:
        member = ledger.member(request.member_id or "")
        return member, ledger.timeline(member.member_id)
    timeline = [
        Event("", event.item_id, event.surface or surface, event.action, _seconds(event, place))
        for place, event in enumerate(request.member.timeline)
    ]
    return Member("", request.member.profile), timeline


def _seconds(event: TimelineEvent, place: int) -> float:
    return float(place) if event.timestamp is None else event.timestamp


def _retrieved(surface: ServedSurface, timeline: Sequence[Event]) -> list[Candidate]:
    """What the sources bring. Where the policies drop what was seen, it is left out here: no place goes to waste."""
    if not any(isinstance(policy, Seen) for policy in surface.policies):
        return surface.retrieval.gather(timeline)
    return surface.retrieval.gather(timeline, {event.item_id for event in timeline if event.action != IMPRESSION})


def _given(request: RankRequest, surface: ServedSurface, timeline: Sequence[Event]) -> list[Candidate]:
    """The caller's candidates, with the rank among themselves that each source gives to those that it knows."""
    names = [each if isinstance(each, str) else each.item_id for each in request.candidates or ()]
    return surface.retrieval.place(timeline, names)


def _items(
    request: RankRequest,
    surface: ServedSurface,
    timeline: Sequence[Event],
    candidates: Sequence[Candidate],
    ledger: Ledger,
) -> dict[str, Item]:
    """Items by id: those that the request describes, and the ledger's. Raises UnknownError for one in neither."""
    kind = surface.spec.item_kind
    told = {
        event.item_id: Item(event.item_id, kind, event.item)
        for event in (request.member.timeline if request.member else ())
        if event.item is not None
    }
    for each in request.candidates or ():
        if not isinstance(each, str) and each.attributes():
            told[each.item_id] = Item(each.item_id, kind, each.attributes())
    events = readable(timeline, surface.form.budget)
    names = dict.fromkeys([*(event.item_id for event in events), *(each.item_id for each in candidates)])
    found = ledger.items(name for name in names if name not in told)
    missing = [name for name in names if name not in told and name not in found]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        advice = "the ledger must hold an item, or the request bring its attributes"
        raise UnknownError(f"unknown item {quoted(missing[0])}{more}; {advice}")
    return {**found, **told}
