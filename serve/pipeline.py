"""The way of one request, from a member's name to a slate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np

from foundation.engine.base import TokenTree
from prompts.errors import CapacityError
from prompts.tree import PromptTree
from serve.admission import Ticket
from serve.batcher import Scored, drop, together
from serve.degraded import DegradedError
from serve.experiments import experiment_of
from serve.fallback import in_retrieval_order, on_slate
from serve.passage import done, gone, in_time
from serve.schemas import Explanation, RankedItem, RankReply, RankRequest, Reason
from serve.served import ServedSurface
from serve.services import Services
from serve.shortlist import Shortlist, draw_up
from serve.timing import Stopwatch
from serve.workers import Workers
from surfaces.compose import Composer
from surfaces.happenings import attributes_of
from surfaces.heads.reading import HeadReading, read_heads
from surfaces.reciprocal import Asker, OtherSides, mutual

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Prompt(NamedTuple):
    """A request as text, and as the engine reads it; `back` are the other sides' questions, on a reciprocal surface."""

    tree: PromptTree
    tokens: TokenTree
    sides: OtherSides
    back: Sequence[TokenTree]


async def rank(
    request: RankRequest, name: str, services: Services, arrived: float, ticket: Ticket | None = None
) -> RankReply:
    """The slate that `request` asks for on the surface `name`, by its deadline.

    `arrived` is when the request came, by the event loop's clock, and `ticket` what it was let in with. Raises
    UnknownError for a surface, member or item that nobody knows, and CapacityError when too many requests wait for
    their candidates.
    """
    surface = services.surface(name)
    with surface.model.used():
        return await rank_on(surface, request, services, arrived, ticket)


async def rank_on(
    surface: ServedSurface, request: RankRequest, services: Services, arrived: float, ticket: Ticket | None = None
) -> RankReply:
    """`rank`, on a surface that is ready; its model is in use."""
    room_s = request.deadline_ms / 1000 if request.deadline_ms else surface.deadline_s
    if ticket is not None:
        ticket.use()
    if ticket is None or room_s < surface.deadline_s:
        ticket = services.admission.let_in(surface.spec.surface, room_s, model=surface.asks_model)
        ticket.use()
    ranking = Ranking(request, surface, services, arrived, arrived + room_s, spared=ticket.spared)
    return await gone(ranking.way(), ranking.deadline)


class Ranking:
    """One request on a surface. Its way goes from thread to thread; see `serve.passage`."""

    def __init__(
        self, request: RankRequest, surface: ServedSurface, services: Services, arrived: float, deadline: float,
        *, spared: bool
    ) -> None:  # fmt: skip
        """`deadline` is a moment; `spared`: it goes without the model."""
        self.request, self.surface, self.services, self.deadline = request, surface, services, deadline
        self.name, self.spared = surface.spec.surface, spared
        self.watch = Stopwatch(arrived, services.traces)
        self.prompt: Prompt | None = None

    async def way(self) -> RankReply:
        """To the reply. Raises UnknownError for a member or an item, CapacityError for no room."""
        request, surface, services, reason = self.request, self.surface, self.services, None
        retrieval, newest = services.retrieval, services.settings.max_timeline
        with self.watch.part("retrieve"):
            shortlist = await done(retrieval.put(self.name, draw_up, request, surface, services.ledger, newest))
        try:
            if shortlist.way.asks_model:
                slate = await self._asking(shortlist)
            else:
                slate = await done(retrieval.put(self.name, in_retrieval_order, shortlist, surface, request.k))
        except DegradedError as error:
            slate, reason = in_retrieval_order(shortlist, surface, request.k), error.reason
        reply = self._reply(shortlist, slate, reason)
        services.rest.over()
        return reply

    async def _asking(self, shortlist: Shortlist) -> list[RankedItem]:
        """The slate as the model has it. Raises DegradedError where its answer is not to be had by the deadline."""
        if self.spared:
            raise DegradedError("capacity")
        services, batcher = self.services, self.surface.model.batcher
        batcher.admit(self.deadline - services.composing.expects(self.name), flow=self.name)
        with self.watch.part("compose"):
            self.prompt = await self._sound(services.composing, write, self.surface, shortlist, services)
        with self.watch.part("queue"):
            scored = await self._scored(self.prompt)
        self.watch.parts["queue"], self.watch.parts["score"] = scored.queue_s, scored.score_s
        return await self._sound(services.judging, judge, scored, self.prompt, shortlist, self.surface, self.request.k)

    async def _scored(self, prompt: Prompt) -> Scored:
        waiting = self.surface.model.batcher.put([prompt.tokens, *prompt.back], self.deadline, self.name)
        try:
            return together([await in_time(each) for each in waiting])
        finally:
            drop(waiting)

    async def _sound(self, workers: Workers, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns. Raises DegradedError when it is not done by the deadline, has no room, or fails."""
        try:
            return await in_time(workers.put(self.name, work, *args, **kwargs))
        except DegradedError:
            raise
        except CapacityError:
            raise DegradedError("capacity") from None
        except Exception:
            logger.exception("a request could not be put into words, or its answers not be read")
            raise DegradedError("engine") from None

    def _reply(self, shortlist: Shortlist, slate: list[RankedItem], reason: Reason | None) -> RankReply:
        """The slate with what is told of it, counted."""
        surface, services, degraded = self.surface, self.services, reason is not None
        services.traffic.record(self.name, shortlist, slate, degraded=degraded)
        timing = self.watch.read()
        services.figures.ranked(self.name, timing, reason)
        return RankReply(
            surface=self.name,
            slate=slate,
            degraded=degraded,
            reason=reason,
            route=shortlist.way.route,
            experiment=experiment_of(shortlist.way),
            model=surface.model.version,
            surface_version=surface.version,
            shares=shortlist.shares([entry.item_id for entry in slate], surface),
            timing_ms=timing,
            explain=explain(self.prompt, shortlist, slate) if self.request.explain and self.prompt else None,
        )


def write(surface: ServedSurface, shortlist: Shortlist, services: Services) -> Prompt:
    """The request as trees of text: the member, the surface, and a leaf for each candidate of the shortlist."""
    model, visit = surface.model, shortlist.visit
    about = surface.spec, surface.form, surface.retrieval
    composer = Composer(*about, model.engine.count, model.trunks, model.leaves)
    names = [candidate.item_id for candidate in shortlist.candidates]
    tree = composer.tree(visit, shortlist.items, names)
    sides = Asker(composer, services.ledger).ask(visit, shortlist.listed)
    tokens, *back = (_tokens(each, surface, services) for each in (tree, *sides.trees))
    return Prompt(tree, tokens, sides, back)


def _tokens(tree: PromptTree, surface: ServedSurface, services: Services) -> TokenTree:
    """The tree under the surface's adapter, its trunk shared within the tenant."""
    adapted = surface.model.engine.read(tree).adapted(surface.spec.adapter or "")
    return replace(adapted, salt=services.ledger.tenant)


def judge(scored: Scored, prompt: Prompt, shortlist: Shortlist, surface: ServedSurface, k: int) -> list[RankedItem]:
    """The `k` candidates that come first on their way, as the policies leave them; ties in retrieval order."""
    reading = read(scored, prompt, shortlist, surface)
    places = {candidate.item_id: place for place, candidate in enumerate(shortlist.candidates)}
    entries, teams = shortlist.ordered(reading.utility, surface)
    return [
        RankedItem(
            item_id=entry.item_id,
            rank=rank,
            utility=float(reading.utility[places[entry.item_id]]),
            heads={head: float(values_L[places[entry.item_id]]) for head, values_L in reading.values.items()},
            sources=shortlist.sources(shortlist.candidates[places[entry.item_id]]),
            propensity=entry.propensity,
            team=teams.get(entry.item_id),
        )
        for rank, entry in enumerate(on_slate(entries, shortlist, surface, k), 1)
    ]


def read(scored: Scored, prompt: Prompt, shortlist: Shortlist, surface: ServedSurface) -> HeadReading:
    """What the heads make of the answers, the other sides' among them."""
    spec, listed = surface.spec, shortlist.listed
    attributes = [attributes_of(item) for item in listed]
    forward = read_heads(
        spec,
        np.reshape(scored.scores.logp, (len(listed), len(spec.answers))),
        scored.scores.likelihood,
        similarity_L=surface.retrieval.similarity(shortlist.visit, [item.item_id for item in listed]),
        attributes=attributes,
        calibration=surface.calibration,
    )
    if not scored.back:
        return forward
    theirs = np.concatenate([np.reshape(scores.logp, (1, len(spec.answers))) for scores in scored.back])
    likely = np.concatenate([scores.likelihood for scores in scored.back])
    back = read_heads(spec, theirs, likely, calibration=surface.calibration)
    return mutual(spec, forward, back.values, prompt.sides.places, attributes)


def explain(prompt: Prompt, shortlist: Shortlist, slate: list[RankedItem]) -> Explanation:
    """The text that the model read (or was about to read) for the candidates of the slate."""
    trunk, stem, *leaves = ([piece.text for piece in node.pieces] for node in prompt.tree.nodes)
    texts = {entry.item_id: "".join(leaf) for entry, leaf in zip(shortlist.candidates, leaves, strict=True)}
    return Explanation(trunk=trunk, stem=stem, leaves={entry.item_id: texts[entry.item_id] for entry in slate})
