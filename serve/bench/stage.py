"""What the scenarios share: a ledger that is theirs, the requests, and servers that they measure."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from prompts.errors import ConfigError
from serve.bench.load import closed_loop
from serve.bench.process import Server
from serve.bench.wire import encoded
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry, shipped_folder

Tell = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and how much there is."""

MEMBERS = 32
"""Members who ask, in turns; all of their trunks fit the cache."""
FEWEST = 5
"""Events that such a member has at least."""
REQUESTS = 1_024
"""So many requests of a kind are drawn; then they come again."""
CLIENTS = 16
"""Clients that find out the capacity."""
CAPACITY_S, STRETCHES = 12.0, 3
"""How long the capacity is looked for, and in how many stretches."""
CANDIDATES = 20
PATIENT_MS = 30_000
"""The deadline of a request that is meant to be answered by the model, however long it takes."""
COPY = "flooded"
"""A second surface like the one that is measured."""
ALONE = "batch_slots: 64\n"
"""Settings under which a batch is one tree: any is larger, and a larger one is a batch of its own."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is measured: the model, a surface, a ledger to be written to, and a folder for what comes by the way.

    `seconds` and `rounds` replace those of the scenarios; `candidates` is how many a ranking has, unless a scenario
    says it itself.
    """

    ledger: str
    model: str
    surface: str
    folder: Path
    seconds: float | None = None
    rounds: int | None = None
    candidates: int = CANDIDATES


class Workload:
    """Requests for members and items of a ledger, drawn with a seed. Raises ConfigError where it has too few."""

    def __init__(self, ledger: Ledger, surface: str, candidates: int = CANDIDATES) -> None:
        self.surface, self.candidates, spec = surface, candidates, Registry.shipped().declared(surface).spec
        self.deadline_s = spec.fallback.deadline_ms / 1000
        self.items = [item.item_id for item in ledger.all_items(spec.item_kind)]
        known = ledger.timelines(random.Random(0).sample(ids := ledger.member_ids(), min(len(ids), 8 * MEMBERS)))
        self.members = [name for name, events in known.items() if len(events) >= FEWEST][:MEMBERS]
        self.actions = sorted({event.action for name in self.members for event in known[name]})
        if len(self.items) < candidates or not self.members:
            raise ConfigError(f"the ledger has too few members with events, or fewer than {candidates} items to rank")

    def rankings(self, candidates: int | None = None, deadline_ms: int | None = None, on: str = "") -> Iterator[bytes]:
        """Without end: rankings of so many candidates; 0 lets the sources retrieve them."""
        candidates = self.candidates if candidates is None else candidates
        rng, path = random.Random(candidates), f"/v1/surfaces/{on or self.surface}/rank"
        drawn = [
            encoded("POST", path, self.ranking(rng, candidates, deadline_ms, number)) for number in range(REQUESTS)
        ]
        return cycle(drawn)

    def ranking(self, rng: random.Random, candidates: int, deadline_ms: int | None, number: int) -> dict[str, object]:
        """The body of one ranking, for the members in turns."""
        body: dict[str, object] = {"member_id": self.members[number % len(self.members)], "k": 10}
        if candidates:
            body["candidates"] = rng.sample(self.items, min(candidates, len(self.items)))
        return body if deadline_ms is None else {**body, "deadline_ms": deadline_ms}

    def event(self, rng: random.Random, event_id: str | None = None) -> dict[str, object]:
        """Something that a member did."""
        told = {"member_id": rng.choice(self.members), "item_id": rng.choice(self.items), "surface": self.surface}
        more = {} if event_id is None else {"event_id": event_id}
        return {**told, "action": rng.choice(self.actions), **more}


@dataclass(eq=False)
class Stage:
    """A workload, and servers for it. A server that several scenarios need is started once."""

    asked: Asked
    workload: Workload
    tell: Tell = lambda *_: None
    _running: dict[str, Server] = field(default_factory=dict)
    _capacity: float | None = None
    _started: int = 0

    async def server(self, settings: str = "") -> Server:
        """A server under some settings that is ready, and whose cache holds the members' trunks."""
        if settings not in self._running:
            self._running[settings] = server = self._launch(settings)
            await server.until_it_answers()
            await self.warm(server)
        return self._running[settings]

    @asynccontextmanager
    async def fresh(
        self,
        *more: str,
        path: str = "/readyz",
    ) -> AsyncIterator[Server]:
        """A server of its own for one scenario, which may break it. It is used when `path` is answered."""
        server = self._launch("", more)
        try:
            await server.until_it_answers(path)
            yield server
        finally:
            await server.stop()

    def _launch(
        self,
        settings: str,
        more: Sequence[str] = (),
    ) -> Server:
        self._started += 1
        self.tell("starting a server", 0, 1)
        asked, options = self.asked, list(more)
        if settings:
            file = asked.folder / f"settings-{self._started}.yaml"
            file.write_text(settings, encoding="utf-8")
            options += ["--settings", str(file)]
        surfaces = str(self.surfaces())
        where = ["serve", "--ledger", asked.ledger, "--model", asked.model, "--surfaces", surfaces, "--port", "0"]
        log = asked.folder / f"server-{self._started}.log"
        return Server([*where, *options], log)

    def surfaces(self) -> Path:
        """A folder with a copy of the surface under another name."""
        folder = self.asked.folder / "surfaces"
        folder.mkdir(exist_ok=True)
        text = (shipped_folder() / f"{self.asked.surface}.yaml").read_text("utf-8")
        copy = text.replace(f"surface: {self.asked.surface}\n", f"surface: {COPY}\n", 1)
        (folder / f"{COPY}.yaml").write_text(copy, encoding="utf-8")
        return folder

    async def warm(self, server: Server) -> None:
        """Ranks once for every member on both surfaces."""
        for name in (self.asked.surface, COPY):
            requests = self.workload.rankings(deadline_ms=PATIENT_MS, on=name)
            for _ in self.workload.members:
                await server.pool.ask(next(requests))

    async def capacity(self) -> float:
        """That of the server under its usual settings; measured once."""
        if self._capacity is None:
            self._capacity = await self.capacity_of(await self.server())
        return self._capacity

    async def capacity_of(self, server: Server, candidates: int | None = None) -> float:
        """Rankings of so many candidates a second that a server answers to clients which keep it busy.

        The best of some stretches: other work on the machine only ever makes it less.
        """
        self.tell("measuring the capacity", 0, 1)
        stretch_s = max(0.5, min(CAPACITY_S, self.asked.seconds or CAPACITY_S) / STRETCHES)
        requests, best = self.workload.rankings(candidates, PATIENT_MS), 1.0
        for _ in range(STRETCHES):
            load = await closed_loop(server.pool, requests, CLIENTS, stretch_s)
            best = max(best, len(load.samples) / max(sample.done for sample in load.samples))
        return best

    def seconds(self, usual: float) -> float:
        """How long a scenario measures in all."""
        return self.asked.seconds or usual

    def rounds(self, usual: int) -> int:
        """How often it does."""
        return self.asked.rounds or usual

    async def close(self) -> None:
        """Ends the servers."""
        for server in self._running.values():
            await server.stop()


def copied(url: str, folder: Path) -> str:
    """The URL of a copy of a ledger in SQLite, in the folder; the URL itself of another, which is used as it is."""
    scheme = "sqlite:///"
    if not url.startswith(scheme):
        return url
    Ledger.open(url, create=False).close()
    target = folder / "ledger.sqlite"
    with closing(sqlite3.connect(url.removeprefix(scheme))) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
    return f"{scheme}{target}"
