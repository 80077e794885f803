"""Real parts for the serve floor: a tiny model, engines that are slow or fail on purpose, a ledger, a server."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from foundation.engine.base import CacheStats, Engine, LeafScores, TokenTree
from foundation.engine.torch import TorchEngine
from prompts.tree import Piece, PromptNode, PromptTree
from serve.server import bind, serving
from serve.services import Services
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry


class Controlled:
    """The real engine, with a switch: `delay_s` before each forward, `error` in its place, and a log of batches."""

    def __init__(self, engine: TorchEngine) -> None:
        self.engine = engine
        self.name, self.model_version = engine.name, engine.model_version
        self.delay_s = 0.0
        self.error: Exception | None = None
        self.spoiled = False
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[int] = []
        self.threads: set[int] = set()

    def count(self, piece: Piece) -> int:
        return self.engine.count(piece)

    def read(self, tree: PromptTree) -> TokenTree:
        return self.engine.read(tree)

    @property
    def cache_stats(self) -> CacheStats:
        return self.engine.cache_stats

    def score(self, trees: Sequence[TokenTree]) -> list[LeafScores]:
        self.batches.append(len(trees))
        self.threads.add(threading.get_ident())
        self.gate.wait(10)
        time.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        scores = self.engine.score(trees)
        if self.spoiled:
            scores[0] = LeafScores([logp * np.nan for logp in scores[0].logp], scores[0].likelihood)
        return scores

    def forget(self) -> None:
        self.engine.forget()

    def embed(self, texts: Sequence[str], salt: str = "") -> npt.NDArray[np.float32]:
        return self.engine.embed(texts, salt)


@pytest.fixture
def engine(tiny_engine: TorchEngine) -> Iterator[Controlled]:
    """A real engine under control. It is let go at the end, whatever the test did to it."""
    controlled = Controlled(tiny_engine)
    yield controlled
    controlled.gate.set()


def tree_of(leaves: int, text: str = "a film") -> PromptTree:
    """A trunk and some leaves."""
    leaf = [PromptNode((Piece(f"{text} {n}"),), parent=0, answers=("yes", "no")) for n in range(leaves)]
    return PromptTree((PromptNode((Piece("a member"),)), *leaf))


class Reply(NamedTuple):
    """A response; `json` is what its body says, where that is JSON."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def item_ids(self) -> list[str]:
        return [entry["item_id"] for entry in self.json["slate"]]


class Client:
    """Speaks HTTP to a real server on this machine."""

    def __init__(self, url: str, services: Services) -> None:
        self.url, self.services = url, services
        self.port = int(url.rpartition(":")[2])

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Reply:
        """One request; `body` is sent as JSON, or as it is if it is bytes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kind = {} if data is None else {"content-type": "application/json"}
        try:
            connection.request(method, path, data, {**kind, **{k.replace("_", "-"): v for k, v in headers.items()}})
            response = connection.getresponse()
            return Reply(response.status, dict(response.headers), response.read().decode())
        finally:
            connection.close()

    def rank(self, surface: str = "movies", **body: object) -> Reply:
        return self.ask("POST", f"/v1/surfaces/{surface}/rank", body)

    def until_ready(self) -> None:
        end = time.monotonic() + 20
        while self.ask("GET", "/readyz").status != 200:
            assert time.monotonic() < end, "it never became ready"
            time.sleep(0.01)


GENRES = ("Comedy", "Drama", "Action", "Horror")


def fill(ledger: Ledger) -> None:
    """40 films of four kinds, 12 members who have each seen some films of their kind, a newcomer, and one book."""
    films = [
        Item(f"f{n}", "movie", {"title": f"Film {n}", "year": 1960 + n, "genres": [GENRES[n % 4]]}) for n in range(40)
    ]
    ledger.put_items([*films, Item("b0", "book", {"title": "A book"})])
    ledger.put_members(Member(f"m{n}", {"age": 20 + n, "gender": "F", "occupation": "artist"}) for n in range(12))
    ledger.put_members([Member("new", {})])
    rng = np.random.default_rng(0)
    actions = ("like", "watch", "dislike")
    ledger.add_events(
        Event(f"m{n}", f"f{4 * int(film) + n % 4}", "movies", actions[place % 3], 1000.0 * n + place)
        for n in range(12)
        for place, film in enumerate(rng.permutation(10)[:6])
    )


@pytest.fixture(scope="module")
def model(tiny_engine: TorchEngine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model as a folder."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_engine.ranker.save(folder, tiny_engine.encoder)
    return str(folder)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small ledger, as a URL."""
    found = f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.sqlite'}"
    with Ledger.open(found) as ledger:
        fill(ledger)
    return found


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A small ledger in a file of SQLite."""
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as opened:
        fill(opened)
        yield opened


@pytest.fixture
def services(ledger: Ledger, engine: Controlled) -> Services:
    """Services over the shipped surfaces, the small ledger and the tiny model."""
    return Services.open(ledger, engine, Registry.shipped())


@contextmanager
def served(services: Services) -> Iterator[Client]:
    """A server over services, and a client to it."""
    with bind("127.0.0.1", 0) as bound, serving(services, bound) as url:
        yield Client(url, services)


@pytest.fixture
def client(services: Services) -> Iterator[Client]:
    """A client to a server that is ready."""
    with served(services) as client:
        client.until_ready()
        yield client


@pytest.fixture(scope="module")
def shared(tiny_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client to a server that a whole module uses; its tests change nothing."""
    folder = tmp_path_factory.mktemp("shared")
    with Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}") as ledger:
        fill(ledger)
        with served(Services.open(ledger, tiny_engine, Registry.shipped())) as client:
            client.until_ready()
            yield client
