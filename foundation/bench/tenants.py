"""`prismrank bench tenants`: whether one tenant can tell from times what another one has asked.

A trunk is scored for one tenant, and then for another; beside it, in turns drawn at random, a trunk of the same length
that nobody has scored before. Where times tell nothing, the area under the curve is one half. The same tenant, who may
find the trunk, shows that the test would see it. A trunk is tokens, or texts that the model reads as vectors.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import rankdata

from foundation.bench.machine import clock, machine
from foundation.bench.workload import Workload
from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.torch import TorchEngine

WORKLOAD = Workload(context=400, few=5, candidate=24)
EVENTS, WORDS = 60, 10
"""Of a trunk of vectors: so many texts, of so many tokens."""
BOUNDS = 0.45, 0.55
"""Between these the area says that times tell nothing, for a thousand pairs or so."""


@dataclass(frozen=True, slots=True)
class Told:
    """Slots of a trunk that were found, of all trunks that had been scored, and what times tell of it."""

    pairs: int
    found_slots: int
    area: float


class Question(NamedTuple):
    """Who has scored the trunk before, who asks, and what the trunk is made of."""

    name: str
    asks: str
    trunk: Callable[[int, str], TokenTree]


def run(json_out: Path | None, folder: Path, pairs: int) -> None:
    """Measures, prints a table, and writes `json_out`."""
    rows = measure(TorchEngine.load(folder), pairs)
    Console().print(table(rows))
    if json_out is not None:
        report = {"rows": {name: asdict(row) for name, row in rows.items()}, "machine": machine()}
        json_out.write_text(json.dumps(report, indent=1), encoding="utf-8")


def measure(engine: TorchEngine, pairs: int) -> dict[str, Told]:
    """Every question, `pairs` times; tenant `a` has scored the trunk."""
    questions = [
        Question(f"{who}, a trunk of {what}", asks, trunk)
        for what, trunk in (("tokens", of_tokens), ("vectors", of_vectors))
        for who, asks in (("another tenant", "b"), ("the same tenant", "a"))
    ]
    return {each.name: _told(engine, each, pairs) for each in questions}


def of_tokens(vocabulary: int, seed: str) -> TokenTree:
    """A trunk that no other seed has, with a stem and a few leaves."""
    tree = WORKLOAD.surface(vocabulary, 0)
    return _over(tree, TokenNode(tuple(_draw(vocabulary, seed, WORKLOAD.context))))


def of_vectors(vocabulary: int, seed: str) -> TokenTree:
    """The same, where the trunk is texts of which the model makes vectors."""
    texts = tuple(tuple(_draw(vocabulary, f"{seed} {event}", WORDS)) for event in range(EVENTS))
    return _over(WORKLOAD.surface(vocabulary, 0), TokenNode(tuple(range(-1, -1 - EVENTS, -1)), vectors=texts))


def _over(tree: TokenTree, trunk: TokenNode) -> TokenTree:
    return replace(tree, nodes=(trunk, *tree.nodes[1:]))


def _draw(vocabulary: int, seed: str, count: int) -> Iterator[int]:
    rng = random.Random(seed)
    return (rng.randrange(8, vocabulary) for _ in range(count))


def _told(engine: TorchEngine, question: Question, pairs: int) -> Told:
    vocabulary, rng = len(engine.encoder.tokenizer), random.Random(0)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    found = 0
    for number in track(range(pairs), question.name, console=Console(stderr=True), transient=True):
        for known in rng.sample((True, False), 2):
            engine.forget()
            before = question.trunk(vocabulary, f"{number} {known}")
            asked = question.trunk(vocabulary, f"{number} {known or 'new'}")  # made anew, as each request's is
            engine.score([replace(before, salt="a")])
            hits = engine.cache_stats.hit_slots
            seconds[known].append(_timed(engine, replace(asked, salt=question.asks)))
            found += (engine.cache_stats.hit_slots - hits) * known
    return Told(pairs, found, area(seconds[False], seconds[True]))


def _timed(engine: TorchEngine, tree: TokenTree) -> float:
    now = clock()
    began = now()
    engine.score([tree])
    return now() - began


def area(slow: list[float], fast: list[float]) -> float:
    """How often one of `slow` took longer than one of `fast`; ties count half (Mann and Whitney's U)."""
    ranks = rankdata([*slow, *fast])[: len(slow)]
    return float((ranks.sum() - len(slow) * (len(slow) + 1) / 2) / (len(slow) * len(fast)))


def table(rows: dict[str, Told]) -> Table:
    """The figures for a terminal."""
    found = Table(title="What a tenant can tell of a trunk that tenant a has scored")
    for column in ("", "pairs", "slots found", "area under the curve"):
        found.add_column(column, justify="right" if column else "left")
    for name, row in rows.items():
        found.add_row(name, f"{row.pairs:,}", f"{row.found_slots:,}", f"{row.area:.3f}")
    found.caption = f"{torch.get_num_threads()} threads; times tell nothing between {BOUNDS[0]} and {BOUNDS[1]}"
    return found
