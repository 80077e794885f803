"""The way of one request, from a member's name to a slate."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np

from foundation.engine.base import LeafScores, TokenTree
from prompts.errors import CapacityError
from prompts.tree import PromptTree
from serve.fallback import DegradedError, in_retrieval_order
from serve.schemas import Explanation, RankedItem, RankReply, RankRequest
from serve.served import ServedSurface
from serve.services import Services
from serve.shortlist import Shortlist, draw_up
from serve.timing import Stopwatch
from serve.workers import Workers
from surfaces.compose import Composer
from surfaces.heads import read_heads

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Prompt(NamedTuple):
    """A request as text, and as the engine reads it."""

    tree: PromptTree
    tokens: TokenTree


async def rank(request: RankRequest, name: str, services: Services, arrived: float) -> RankReply:
    """The slate that `request` asks for on the surface `name`, by its deadline.

    `arrived` is when the request came, by the event loop's clock. Raises UnknownError for a surface, member or item
    that nobody knows, and CapacityError when too many requests wait for their candidates.
    """
    watch, prompt, reason = Stopwatch(arrived), None, None
    surface = services.surface(name)
    deadline = arrived + (request.deadline_ms or surface.spec.fallback.deadline_ms) / 1000
    with watch.part("retrieve"):
        shortlist = await services.retrieval.run(draw_up, request, surface, services.ledger)
    try:
        services.batcher.admit(deadline - services.composing.expects())
        with watch.part("compose"):
            prompt = await _by(deadline, services.composing, write, request, surface, shortlist, services)
        with watch.part("queue"):
            scored = await services.batcher.score(prompt.tokens, deadline)
        watch.parts["queue"], watch.parts["score"] = scored.queue_s, scored.score_s
        slate = judge(scored.scores, shortlist, surface, request.k)
    except DegradedError as error:
        slate, reason = in_retrieval_order(shortlist, surface, request.k), error.reason
    return RankReply(
        surface=name,
        slate=slate,
        degraded=reason is not None,
        reason=reason,
        model=services.engine.model_version,
        surface_version=surface.spec.version,
        timing_ms=watch.read(),
        explain=explain(prompt, shortlist, slate) if request.explain and prompt else None,
    )


def write(request: RankRequest, surface: ServedSurface, shortlist: Shortlist, services: Services) -> Prompt:
    """The request as a tree of text: the member, the surface, and a leaf for each candidate of the shortlist."""
    engine = services.engine
    composer = Composer(surface.spec, surface.form, surface.retrieval, engine.count)
    names = [candidate.item_id for candidate in shortlist.candidates]
    tree = composer.tree(shortlist.member.profile, shortlist.timeline, shortlist.items, names, request.context)
    return Prompt(tree, replace(engine.read(tree), salt=services.ledger.tenant))


def judge(scores: LeafScores, shortlist: Shortlist, surface: ServedSurface, k: int) -> list[RankedItem]:
    """The `k` candidates of the highest utility, as the policies leave them; ties in retrieval order."""
    answers = np.reshape(scores.logp, (len(shortlist.candidates), len(surface.spec.answers)))
    reading = read_heads(surface.spec, answers, scores.likelihood)
    places = {shortlist.candidates[place].item_id: place for place in np.argsort(-reading.utility, kind="stable")}
    best_first = [shortlist.candidates[place] for place in places.values()]
    return [
        RankedItem(
            item_id=entry.item_id,
            rank=rank,
            utility=float(reading.utility[places[entry.item_id]]),
            heads={head: float(p_L[places[entry.item_id]]) for head, p_L in reading.values.items()},
            sources=shortlist.sources(entry),
        )
        for rank, entry in enumerate(shortlist.slate(best_first, surface)[:k], 1)
    ]


def explain(prompt: Prompt, shortlist: Shortlist, slate: list[RankedItem]) -> Explanation:
    """The text that the model read (or was about to read) for the candidates of the slate."""
    trunk, stem, *leaves = ([piece.text for piece in node.pieces] for node in prompt.tree.nodes)
    texts = {entry.item_id: "".join(leaf) for entry, leaf in zip(shortlist.candidates, leaves, strict=True)}
    return Explanation(trunk=trunk, stem=stem, leaves={entry.item_id: texts[entry.item_id] for entry in slate})


async def _by(deadline: float, workers: Workers, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns. Raises DegradedError when it is not done by the deadline, has no room, or fails."""
    try:
        async with asyncio.timeout_at(deadline):
            return await workers.run(work, *args, **kwargs)
    except TimeoutError:
        raise DegradedError("deadline") from None
    except CapacityError:
        raise DegradedError("capacity") from None
    except Exception:
        logger.exception("a request could not be put into words")
        raise DegradedError("engine") from None
