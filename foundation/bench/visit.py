"""`prismrank bench visit`: one member on four surfaces, against four members on one surface each.

Every surface that names the same trunk shares its keys and values, so that a member's visit to all of them reads the
timeline once. Counted are the tokens that the engine computes; the leaves are the same number on both sides.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from foundation.bench.machine import Turn, interleaved, machine
from foundation.bench.workload import Workload
from foundation.engine.base import TokenTree
from foundation.engine.torch import TorchEngine

SURFACES = 4
WORKLOAD = Workload(context=400, few=20, candidate=24)


@dataclass(frozen=True, slots=True)
class Visit:
    """Tokens that the engine computes for four rankings, and the seconds that they take, one after the other."""

    trunk_tokens: int
    all_tokens: int
    seconds: float


def run(json_out: Path | None, folder: Path, rounds: int) -> None:
    """Measures, prints a table, and writes `json_out`."""
    engine = TorchEngine.load(folder)
    rows = measure(engine, rounds)
    console = Console()
    console.print(table(rows))
    if json_out is not None:
        report = {"rows": {name: asdict(row) for name, row in rows.items()}, "machine": machine()}
        json_out.write_text(json.dumps(report, indent=1), encoding="utf-8")


def measure(engine: TorchEngine, rounds: int) -> dict[str, Visit]:
    """Both sides, in turns."""
    ways = {
        "one member, four surfaces": rankings(len(engine.encoder.tokenizer), members=1),
        "four members, one surface each": rankings(len(engine.encoder.tokenizer), members=SURFACES),
    }
    turns = [Turn(partial(_visit, engine, trees), engine.forget) for trees in ways.values()]
    seconds = interleaved(turns, rounds)
    return {
        name: Visit(*computed(engine, trees), seconds=took)
        for (name, trees), took in zip(ways.items(), seconds, strict=True)
    }


def rankings(vocabulary: int, members: int) -> list[TokenTree]:
    """Four rankings on four surfaces, for one member or for as many as there are surfaces."""
    return [WORKLOAD.surface(vocabulary, number, member=number % members) for number in range(SURFACES)]


def computed(engine: TorchEngine, trees: Sequence[TokenTree]) -> tuple[int, int]:
    """Tokens of trunks, and of everything, that the engine computes for the rankings one after the other."""
    engine.forget()
    before = engine.cache_stats.missed_slots
    _visit(engine, trees)
    shared = engine.cache_stats.missed_slots - before
    stems = sum(len(tree.nodes[1].slots) for tree in trees)
    leaves = sum(len(leaf.slots) for tree in trees for leaf in tree.nodes[2:])
    return shared - stems, shared + leaves


def _visit(engine: TorchEngine, trees: Sequence[TokenTree]) -> None:
    for tree in trees:
        engine.score([tree])


def table(rows: dict[str, Visit]) -> Table:
    """The figures for a terminal, with how many times less the first side computes."""
    found = Table(title=f"{SURFACES} rankings of {WORKLOAD.few} candidates behind {WORKLOAD.context} tokens")
    for column in ("", "trunk tokens computed", "all tokens computed", "ms"):
        found.add_column(column, justify="right" if column else "left")
    for name, row in rows.items():
        found.add_row(name, f"{row.trunk_tokens:,}", f"{row.all_tokens:,}", f"{1000 * row.seconds:.1f}")
    one, four = rows.values()
    ratios = (four.trunk_tokens / one.trunk_tokens, four.all_tokens / one.all_tokens, four.seconds / one.seconds)
    found.add_row("times fewer", *(f"{ratio:.2f}x" for ratio in ratios))
    found.caption = f"{torch.get_num_threads()} threads, medians, in turns"
    return found
