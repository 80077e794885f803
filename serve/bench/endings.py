"""`signals` and `kill9`: what becomes of requests and events when the process ends, asked to or not."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

from serve.bench.process import Server
from serve.bench.reading import Bound, Found, Row
from serve.bench.stage import PATIENT_MS, Stage
from serve.bench.wire import Connection, NoAnswerError, encoded
from surfaces.ledger.store import Ledger

SIGNALS, KILLS = 20, 50
STAYING, CHANGING = 6, 4
"""Clients that keep their connection, and clients that take a new one for each request."""
WRITERS = 4
EVENTS = 3
"""In one write, at most."""
FIRST_S, LAST_S = 0.3, 1.5
"""When the process is ended, in seconds of load: drawn between these."""


@dataclass(slots=True)
class Tally:
    """What became of the requests to a process that ends.

    `lost` were sent before the signal and got no reply; `late` were sent after it on a connection that was in use; what
    was sent after it on a new connection, or was never sent whole, is `refused`.
    """

    answered: int = 0
    lost: int = 0
    late: int = 0
    refused: int = 0
    told: float = float("inf")
    """When the signal was sent, by the loop's clock."""
    statuses: Counter[int] = field(default_factory=Counter)

    def count(self, error: NoAnswerError, began: float) -> None:
        """A request that was begun at a time got no reply."""
        if not error.sent:
            self.refused += 1
        elif began < self.told:
            self.lost += 1
        elif error.accepted:
            self.late += 1
        else:
            self.refused += 1


async def signals(stage: Stage) -> Found:
    """SIGTERM under load, again and again: requests that were taken in and got no reply."""
    rng, rounds = random.Random(0), stage.rounds(SIGNALS)
    tallies, took, exits = list[Tally](), list[float](), Counter[int]()
    for number in range(rounds):
        stage.tell("signals", number, rounds)
        async with stage.fresh() as server:
            tally, seconds, status = await _ended(stage, server, rng.uniform(FIRST_S, LAST_S))
            tallies.append(tally)
            took.append(seconds)
            exits[status] += 1
    names = ("answered", "lost", "late", "refused")
    counts = {name: sum(getattr(tally, name) for tally in tallies) for name in names}
    replies = sum((tally.statuses for tally in tallies), Counter[int]())
    row: Row = {"signals": rounds, **counts, "slowest_end_s": max(took)}
    row |= {"statuses": _told(replies), "exits": _told(exits)}
    bound = Bound("accepted requests without a reply", counts["lost"] + counts["late"], 0)
    return Found("SIGTERM under load", [row], [bound])


async def _ended(stage: Stage, server: Server, after_s: float) -> tuple[Tally, float, int]:
    """What became of the requests, how long the process took to end, and its exit status."""
    loop, tally = asyncio.get_running_loop(), Tally()
    requests = stage.workload.rankings(deadline_ms=PATIENT_MS)
    clients = [
        asyncio.create_task(_asks(server, requests, tally, stays=place < STAYING))
        for place in range(STAYING + CHANGING)
    ]
    await asyncio.sleep(after_s)
    tally.told = loop.time()
    server.send(signal.SIGTERM)
    status = await server.ended()
    took = loop.time() - tally.told
    await asyncio.gather(*clients)
    return tally, took, status


async def _asks(server: Server, requests: Iterator[bytes], tally: Tally, *, stays: bool) -> None:
    """A client, until the server takes no more."""
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        try:
            with closing(await Connection.open(server.url)) as connection:
                while connection.fresh:
                    began = loop.time()
                    answer = await connection.ask(next(requests))
                    tally.answered += 1
                    tally.statuses[answer.status] += 1
                    if not stays:
                        break
        except NoAnswerError as error:
            tally.count(error, began)
            if began > tally.told:
                return


def _told(counts: Counter[int]) -> str:
    return ", ".join(f"{value}: {count}" for value, count in sorted(counts.items()))


@dataclass(slots=True)
class Posts:
    """Events by id that were sent, and which of them were acknowledged."""

    sent: dict[str, dict[str, object]] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    again: int = 0

    @property
    def open(self) -> list[dict[str, object]]:
        """Those whose fate is not known."""
        return [event for name, event in self.sent.items() if name not in self.acknowledged]


async def kill9(stage: Stage) -> Found:
    """SIGKILL while events come in, again and again; what was not acknowledged is sent again to the next process."""
    rng, rounds, posts = random.Random(0), stage.rounds(KILLS), Posts()
    with Ledger.open(stage.asked.ledger, create=False) as ledger:
        before = ledger.counts().events
    for number in range(rounds + 1):
        stage.tell("kill -9", number, rounds)
        async with stage.fresh(path="/livez") as server:
            posts.again += len(posts.open)
            await _resend(server, posts)
            if number < rounds:
                await _killed(stage, server, posts, number, rng.uniform(FIRST_S, LAST_S))
    return _compared(stage, posts, before, rounds)


async def _killed(stage: Stage, server: Server, posts: Posts, number: int, after_s: float) -> None:
    """Writers, and the end of the process in their midst."""
    writers = [asyncio.create_task(_write(stage, server, posts, f"{number}-{writer}")) for writer in range(WRITERS)]
    await asyncio.sleep(after_s)
    server.send(signal.SIGKILL)
    await server.ended()
    await asyncio.gather(*writers)


async def _write(stage: Stage, server: Server, posts: Posts, name: str) -> None:
    """Sends events until the server is gone."""
    rng, count = random.Random(name), 0
    try:
        with closing(await Connection.open(server.url)) as connection:
            while True:
                names = [f"bench-{name}-{count + more}" for more in range(rng.randint(1, EVENTS))]
                count += len(names)
                posts.sent |= {each: stage.workload.event(rng, each) for each in names}
                await _post(connection, posts, names)
    except NoAnswerError:
        return


async def _resend(server: Server, posts: Posts) -> None:
    if names := [str(event["event_id"]) for event in posts.open]:
        with closing(await Connection.open(server.url)) as connection:
            await _post(connection, posts, names)


async def _post(connection: Connection, posts: Posts, names: list[str]) -> None:
    """Sends events of these names. Raises NoAnswerError."""
    body = {"events": [posts.sent[name] for name in names]}
    answer = await connection.ask(encoded("POST", "/v1/events", body))
    if answer.status == 200:
        posts.acknowledged |= set(names)


def _compared(stage: Stage, posts: Posts, before: int, rounds: int) -> Found:
    """The ledger against what was sent."""
    with Ledger.open(stage.asked.ledger, create=False) as ledger:
        kept = Counter(event.event_id for event in ledger.all_events() if event.event_id in posts.sent)
        grown = ledger.counts().events - before
    lost, doubled = len(posts.acknowledged - set(kept)), grown - len(kept)
    row: Row = {"kills": rounds, "sent": len(posts.sent), "acknowledged": len(posts.acknowledged)}
    row |= {"sent_again": posts.again, "kept": len(kept), "lost": lost, "doubled": doubled}
    bounds = [Bound("acknowledged events lost", lost, 0), Bound("events doubled", doubled, 0)]
    return Found("SIGKILL while events come in", [row], bounds)
