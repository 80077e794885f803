"""Joins concurrent requests of any surface into one forward.

The engine runs in one thread of its own, never on the event loop. Trees wait in flows, one a surface: within a flow in
the order of their deadlines, and between flows the one is next that was served least lately, so that a flood on one
surface is that surface's own trouble. A batch takes as many as fit and as can still be in time together; where several
surfaces are asked it is a short one, as who comes meanwhile waits for its end. A tree leaves the queue when its caller
goes away, and an answer that comes too late is dropped. An engine that fails again and again is left alone for a while
(a circuit breaker), and tried with one batch before it gets the next. All times are in seconds of the event loop's
clock.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Condition, RLock, Thread
from typing import NamedTuple
from weakref import ref

import numpy as np

from foundation.engine.base import Engine, LeafScores, TokenTree
from prompts.errors import CapacityError, TreeError
from serve.degraded import DegradedError
from serve.figures import Figures
from serve.lane import Lane
from serve.shares import Shares
from serve.timing import clock
from surfaces.adapters import Adaptable

logger = logging.getLogger(__name__)

MEASURED_SLOTS = 256  # a smaller batch is mostly overhead: it tells only that the pace is no slower than that
FAILURES = 3  # forwards in a row that end in an error, until the engine is left alone
FIRST_S, LONGEST_S = 0.1, 1.0  # for how long: twice as long each time
PATIENCE_S = 0.02  # so much later than it came the engine has its turn, where others compute
LATELY = 0.9  # how much of what flows took is kept at the next batch: who asks for little may ask for several at once
SHORT_S = 0.04  # so long a batch may be expected to take where several flows were served lately
OPTIMISM = 0.7  # a tree is refused only if an engine this much faster than lately would still be late
BUSY = 0.5  # of the time up to the deadline: who would wait longer for their forward is not put into words


@dataclass(frozen=True, slots=True)
class Limits:
    """How much work there is room for, in slots (the unit of `TokenTree.size`).

    A tree larger than a batch is a batch of its own: the engine computes it in chunks.
    """

    batch_slots: int = 16_384
    queue_slots: int = 65_536
    gather_s: float = 0.002


class Scored(NamedTuple):
    """A tree's scores, how long the tree waited, and how long the forward took that it was part of."""

    scores: LeafScores
    queue_s: float
    score_s: float
    back: tuple[LeafScores, ...] = ()


def together(found: Sequence[Scored]) -> Scored:
    """What came of several trees that ask the same: the first, with the others as its `back`."""
    first, *others = found
    queue_s = max(each.queue_s for each in found)
    return Scored(first.scores, queue_s, first.score_s, tuple(each.scores for each in others))


def drop(waiting: Sequence[Future[Scored]]) -> None:
    """Takes off the queue what nobody waits for any longer."""
    for each in waiting:
        each.cancel()


@dataclass(eq=False, slots=True, weakref_slot=True)
class _Waiting:
    tree: TokenTree
    deadline: float
    flow: str
    since: float
    outcome: Future[Scored]


@dataclass(slots=True)
class Pace:
    """What a forward costs, learned from those that ran: a decayed mean of seconds per slot."""

    seconds_per_slot: float = 0.0

    def learn(self, slots: int, seconds: float) -> None:
        """A forward over `slots` took `seconds`."""
        rate = seconds / max(1, slots)
        if slots >= MEASURED_SLOTS or (slots and rate < self.seconds_per_slot):
            self.seconds_per_slot += (rate - self.seconds_per_slot) * (0.3 if self.seconds_per_slot else 1.0)

    def expects(self, slots: int) -> float:
        """Seconds for a forward over `slots`; 0 as long as nothing is known."""
        return slots * self.seconds_per_slot


@dataclass(slots=True)
class Breaker:
    """Whether the engine is asked. After `FAILURES` in a row it is not, but for one batch now and then."""

    failures: int = 0
    closed_at: float = 0.0
    trying: bool = False

    @property
    def open(self) -> bool:
        """Whether the engine is left alone."""
        return self.failures >= FAILURES

    def lets(self, now: float) -> bool:
        """Whether a tree may wait for the engine now."""
        return not self.open or (now >= self.closed_at and not self.trying)

    def learn(self, now: float, *, well: bool) -> None:
        """A forward ended."""
        self.trying = False
        self.failures = 0 if well else self.failures + 1
        if self.open:
            self.closed_at = now + min(LONGEST_S, FIRST_S * 2.0 ** min(self.failures - FAILURES, 10))


class _Forward(NamedTuple):
    """The forward that runs now."""

    since: float
    slots: int
    batch: Sequence[_Waiting]


@dataclass(eq=False)
class Batcher:
    """One queue before one engine. Use it inside `with batcher.running():`, from any thread."""

    engine: Engine
    limits: Limits = field(default_factory=Limits)
    pace: Pace = field(default_factory=Pace)
    breaker: Breaker = field(default_factory=Breaker)
    figures: Figures = field(default_factory=Figures)
    lane: Lane | None = None

    def __post_init__(self) -> None:
        self._waiting: set[_Waiting] = set()
        self.queued_slots = 0
        self._queued: dict[str, int] = {}
        self._lately = Shares(least=1)
        self._presses = False
        self._forward: _Forward | None = None
        self._lock = RLock()
        self._arrived = Condition(self._lock)
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many trees wait for a forward."""
        return len(self._waiting)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Takes work until it is left; what still waits then is degraded."""
        self._closed = False
        Thread(target=self._serve, name="engine").start()
        try:
            yield
        finally:
            with self._lock:
                self._closed = True
                self._arrived.notify()
                left = [*self._waiting, *(self._forward.batch if self._forward else ())]
            for entry in left:
                _settle(entry, DegradedError("engine"))

    async def score(self, tree: TokenTree, deadline: float, back: Sequence[TokenTree] = (), flow: str = "") -> Scored:
        """The scores of `tree`, and of the trees that ask `back`, by `deadline`. Raises DegradedError; see `put`."""
        waiting = self.put([tree, *back], deadline, flow)
        try:
            async with asyncio.timeout_at(deadline):
                return together([await asyncio.wrap_future(each) for each in waiting])
        except TimeoutError:
            raise DegradedError("deadline") from None
        finally:
            drop(waiting)

    def put(self, trees: Sequence[TokenTree], deadline: float, flow: str = "") -> list[Future[Scored]]:
        """The scores of each tree, which are wanted by `deadline`; `flow` is whose share they take.

        Raises DegradedError when there is no room or time clearly will run out, and so may the futures, or when the
        engine fails. Those that are cancelled leave the queue.
        """
        with self._lock:
            giving = self._admit(deadline, sum(tree.size for tree in trees), flow)
            waiting = [self._enter(_Waiting(tree, deadline, flow, clock(), Future())) for tree in trees]
        for entry in giving:
            _settle(entry, DegradedError("capacity"))
        return waiting

    def admit(self, deadline: float, slots: int = 0, flow: str = "") -> None:
        """Raises DegradedError when `slots` have no room, would wait long, or clearly not be scored by the deadline.

        Where the queue is full, a flow that has more in it than this one would have makes room: its least urgent trees
        are degraded. The queue stays short: trees that wait up to their deadline make small batches, and late ones.
        """
        with self._lock:
            giving = self._admit(deadline, slots, flow, wait=BUSY)
        for entry in giving:
            _settle(entry, DegradedError("capacity"))

    def _admit(self, deadline: float, slots: int, flow: str, wait: float = math.inf) -> list[_Waiting]:
        """Makes room, and says who gave it; `wait`: the part of the time up to the deadline that may be waited."""
        now = clock()
        if self._closed or not self.breaker.lets(now):
            raise DegradedError("engine")
        if self.queued_slots + slots <= self.limits.queue_slots:
            giving = list[_Waiting]()
        else:
            giving = self._those_who_give(slots, flow)
        left, expected = deadline - now, self._expects(slots, deadline, now, flow) if self._forward else 0.0
        if left <= 0 or OPTIMISM * expected > left:
            raise DegradedError("deadline")
        if flow in self._queued and expected > wait * left:  # behind others of its own, and not one forward that hangs
            raise DegradedError("capacity")
        for entry in giving:  # only for one that comes in
            self._leave(entry)
        return giving

    def _those_who_give(self, slots: int, flow: str) -> list[_Waiting]:
        """The trees whose places make room for so many slots. Raises DegradedError where there is none to be had."""
        over = self.queued_slots + slots - self.limits.queue_slots
        own, left, giving = self._queued.get(flow, 0) + slots, dict(self._queued), list[_Waiting]()
        while over > 0:
            heaviest = max(left, key=lambda name: left[name], default=flow)
            theirs = [entry for entry in self._waiting if entry.flow == heaviest and entry not in giving]
            last = max(theirs, key=_urgency, default=None)
            if heaviest == flow or last is None or left[heaviest] - last.tree.size < own:
                raise DegradedError("capacity")
            giving.append(last)
            left[heaviest] -= last.tree.size
            over -= last.tree.size
        return giving

    def _expects(self, slots: int, deadline: float, now: float, flow: str) -> float:
        """Seconds until so many slots would be scored: after the forward that runs, and what comes before them.

        That is what is more urgent in their flow, and of each other flow at most as much.
        """
        mine = sum(entry.tree.size for entry in self._waiting if entry.flow == flow and entry.deadline <= deadline)
        others = sum(min(queued, mine + slots) for name, queued in self._queued.items() if name != flow)
        return self._remaining(now) + self.pace.expects(mine + others + slots)

    def _remaining(self, now: float) -> float:
        """Seconds that the running forward still needs. One that is late may take as long again as it is late."""
        if self._forward is None:
            return 0.0
        return abs(self.pace.expects(self._forward.slots) - (now - self._forward.since))

    def _enter(self, entry: _Waiting) -> Future[Scored]:
        with self._lock:
            self._waiting.add(entry)
            self._count(entry.flow, entry.tree.size)
            self._arrived.notify()
            if self._lately.asks_little(entry.flow):  # it does not wait for company
                self._presses = True
                if self.lane:
                    self.lane.hasten()
        waits = ref(entry)  # else the two would hold each other
        entry.outcome.add_done_callback(lambda _: self._leave(waits()))
        return entry.outcome

    def _leave(self, entry: _Waiting | None) -> None:
        with self._lock:
            if entry is not None and entry in self._waiting:
                self._waiting.remove(entry)
                self._count(entry.flow, -entry.tree.size)

    def _count(self, flow: str, slots: int) -> None:
        self.queued_slots += slots
        self._queued[flow] = self._queued.get(flow, 0) + slots
        if not self._queued[flow]:
            del self._queued[flow]
        self.figures.queued(self.waiting, self.queued_slots)

    def _serve(self) -> None:
        """The engine's thread. It goes on whatever happens: nobody else would serve those who wait."""
        while self._awaits():
            try:
                self._turn()
            except Exception:
                logger.exception("a batch could not be put together")

    def _awaits(self) -> bool:
        """Waits for trees; False at the end.

        It waits a little for more of them, but for those who ask little and came while a forward ran, not once more.
        """
        with self._arrived:
            behind = bool(self._waiting)
            self._arrived.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return False
            ready = self._is_full() or (behind and self._presses)
        if not ready:
            time.sleep(self.limits.gather_s)
        return True

    def _is_full(self) -> bool:
        """Whether no more trees would have room in the next batch."""
        room_s = self._room_s(self._queued)
        return self.queued_slots >= self.limits.batch_slots or self.pace.expects(self.queued_slots) >= room_s

    def _room_s(self, flows: Iterable[str]) -> float:
        """So long a batch may be expected to take, where trees of these flows wait."""
        return SHORT_S if self._lately.several(flows) else math.inf

    def _turn(self) -> None:
        """One batch. The engine is patient: what is put into words meanwhile is part of it."""
        mine = self.lane.acquire(-math.inf if self._presses else PATIENCE_S) if self.lane else False
        try:
            with self._lock:
                started = clock()
                late, batch = self._let_go(started), self._take(started)
                slots = sum(entry.tree.size for entry in batch)
                if batch:
                    self._forward, self.breaker.trying = _Forward(started, slots, batch), True
            for entry in late:
                _settle(entry, DegradedError("deadline"))
            if batch:
                self._forwarded(started, batch, slots)
        finally:
            if mine and self.lane:
                self.lane.release()

    def _forwarded(self, started: float, batch: Sequence[_Waiting], slots: int) -> None:
        """Gives everybody of a batch what comes of the engine."""
        scores, error = list[LeafScores | None](), None
        try:
            scores = _sound(batch, _score(self.engine, [entry.tree for entry in batch]))
        except Exception as failed:
            logger.exception("the engine failed on a batch of %d trees", len(batch))
            error = failed
        took, well = clock() - started, error is None or isinstance(error, CapacityError)
        with self._lock:
            self._forward = None
            self.breaker.learn(clock(), well=well)
        self.figures.batched(len(batch), slots, None if error else took, broken=self.breaker.open)
        scored = [(entry, leaves) for entry, leaves in zip(batch, scores, strict=False) if leaves is not None]
        self.pace.learn(sum(entry.tree.size for entry, _ in scored), took)
        for entry, leaves in scored:
            _settle(entry, Scored(leaves, started - entry.since, took))
        for entry in batch:  # those without an answer
            _settle(entry, DegradedError("capacity" if error and well else "engine"))

    def _take(self, now: float) -> list[_Waiting]:
        """Trees that fit into one forward, and make none of them late: of each flow the most urgent ones."""
        flows: dict[str, list[_Waiting]] = {}
        for entry in sorted(self._waiting, key=_urgency, reverse=True):
            flows.setdefault(entry.flow, []).append(entry)
        lately = self._lately
        lately.fade(LATELY)
        if self.pace.seconds_per_slot:  # who had all while nobody else asked does not pay for that
            lately.forgive(SHORT_S / self.pace.seconds_per_slot / (1 - LATELY))
        room_s = self._room_s(flows)
        batch: list[_Waiting] = []
        slots, first = 0, math.inf
        while flows:
            flow = min(flows, key=lambda name: (lately.of(name), flows[name][-1].deadline))
            entry = flows[flow].pop()
            size, soonest = slots + entry.tree.size, min(first, entry.deadline)
            if not batch or self._fits(size, min(soonest, now + room_s), now):
                batch.append(entry)
                slots, first = size, soonest
                lately.add(flow, entry.tree.size)
            if not flows[flow]:
                del flows[flow]
        self._presses = False
        for entry in batch:
            self._leave(entry)
        return batch

    def _fits(self, slots: int, deadline: float, now: float) -> bool:
        """Whether so many slots may be a batch, and would be done by the deadline."""
        return slots <= self.limits.batch_slots and now + self.pace.expects(slots) <= deadline

    def _let_go(self, now: float) -> list[_Waiting]:
        """Those that would be late even if they were next: served first, they would make the others late.

        The last one is tried all the same, so that the pace is measured again.
        """
        soon = sorted(self._waiting, key=_urgency)[:-1]
        late = [each for each in soon if now + OPTIMISM * self.pace.expects(each.tree.size) > each.deadline]
        for entry in late:
            self._leave(entry)
        return late


def _urgency(entry: _Waiting) -> float:
    return entry.deadline


def _score(engine: Engine, trees: Sequence[TokenTree]) -> list[LeafScores | None]:
    """The trees' scores; None for one under an adapter that is no longer loaded, which is not in the others' way."""
    try:
        scores = engine.score(trees)
    except TreeError as error:
        lost = [_lost(tree, engine) for tree in trees]
        if not any(lost):
            raise
        logger.error("%d of %d trees get no answer: %s", sum(lost), len(trees), error)
        rest = iter(_score(engine, [tree for tree, gone in zip(trees, lost, strict=True) if not gone]))
        return [None if gone else next(rest) for gone in lost]
    if len(scores) != len(trees):
        raise ValueError(f"the engine answered {len(scores)} of {len(trees)} trees")
    return list(scores)


def _lost(tree: TokenTree, engine: Engine) -> bool:
    """Whether a node is under an adapter that the engine does not have."""
    known = engine.adapters if isinstance(engine, Adaptable) else ()
    return any(node.adapter and node.adapter not in known for node in tree.nodes)


def _sound(batch: Sequence[_Waiting], scores: Sequence[LeafScores | None]) -> list[LeafScores | None]:
    """The scores without those that are of no use."""
    found = zip(batch, scores, strict=True)
    return [leaves if leaves is not None and _is_sound(entry.tree, leaves) else None for entry, leaves in found]


def _is_sound(tree: TokenTree, leaves: LeafScores) -> bool:
    """Whether every leaf of the tree has a finite number for each thing that it is asked."""
    asked = [node for node in tree.nodes if node.asked]
    if [len(logp) for logp in leaves.logp] != [len(node.answers) for node in asked]:
        return False
    likely = np.isfinite(leaves.likelihood) | ~np.array([node.likelihood for node in asked], dtype=bool)
    return bool(likely.all()) and all(np.isfinite(logp).all() for logp in leaves.logp)


def _settle(entry: _Waiting, outcome: Scored | DegradedError) -> None:
    with suppress(InvalidStateError):  # it has its answer, or its caller has gone
        if isinstance(outcome, DegradedError):
            entry.outcome.set_exception(outcome)
        else:
            entry.outcome.set_result(outcome)
