"""`prismrank bench train`: labelled leaves a second, trees against one leaf a sequence.

Both ways have the same labels, the same losses and the same weights, and make the same gradient: a forward, a backward
and an optimizer's step each. One leaf a sequence is the naive way of `foundation.bench.naive`.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from foundation.bench.machine import interleaved, machine
from foundation.bench.naive import NaiveRanker, whole_prompts
from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.pack import pack
from foundation.model import COMPRESSOR_FILE, Ranker, load, shipped
from foundation.training.labels import Choice, LabelledTree, Listwise, losses

ANSWERS = (3, 4, 5, 6, 7)


@dataclass(frozen=True, slots=True)
class Shape:
    """A labelled tree: events in the trunk, positions with a stem and leaves. Sizes in slots."""

    name: str
    trunk: int
    positions: int
    stem: int
    leaves: int
    leaf: int
    vectors: bool

    def tree(self, vocabulary: int) -> LabelledTree:
        """Random tokens (or texts of 12 tokens as vectors), one chosen leaf a position."""
        rng = random.Random(0)

        def node(size: int, parent: int, after: int | None, answers: tuple[int, ...], vectors: bool) -> TokenNode:
            if not vectors:
                return TokenNode(tuple(rng.randrange(8, vocabulary) for _ in range(size)), parent, after, answers)
            texts = tuple(tuple(rng.randrange(8, vocabulary) for _ in range(12)) for _ in range(size))
            return TokenNode(tuple(-1 - place for place in range(size)), parent, after, answers, texts)

        nodes, lists, choices = [node(self.trunk, -1, None, (), self.vectors)], [], []
        for position in range(self.positions):
            stem, first = len(nodes), position * self.leaves
            nodes.append(node(self.stem, 0, rng.randint(self.trunk // 2, self.trunk), (), False))
            nodes += [node(self.leaf, stem, None, ANSWERS, self.vectors) for _ in range(self.leaves)]
            places = tuple(range(first, first + self.leaves))
            lists.append(Listwise(places, 0, 3, 4, (1.0,) * self.leaves))
            choices.append(Choice(first, (0, 1, 2), 0))
        return LabelledTree(TokenTree(tuple(nodes)), tuple(lists), tuple(choices))


SHAPES = (
    Shape("events and candidates as vectors", trunk=100, positions=4, stem=11, leaves=49, leaf=2, vectors=True),
    Shape("events and candidates as text", trunk=200, positions=4, stem=11, leaves=17, leaf=12, vectors=False),
    Shape("text, a longer trunk, more leaves", trunk=400, positions=4, stem=11, leaves=25, leaf=12, vectors=False),
)


@dataclass(frozen=True, slots=True)
class Row:
    """Leaves a second of both ways, their ratio, and the largest difference of two gradients over the largest one."""

    trees: float
    one_leaf_a_sequence: float
    ratio: float
    gradient_difference: float


class Learner:
    """One copy of the weights and its optimizer."""

    def __init__(self, ranker: Ranker, labelled: LabelledTree, *, naive: bool) -> None:
        self.ranker, self.labelled = ranker, labelled
        self._prompts = whole_prompts(labelled.tree) if naive else []
        self._naive = NaiveRanker(ranker) if naive else None
        self._optimizer = torch.optim.AdamW(ranker.parameters(), lr=0.0)

    def learn(self) -> None:
        """Forward, backward, step (of length zero: every round starts from the same weights)."""
        self.ranker.train()
        logits = self._naive.logits(self._prompts) if self._naive else self.ranker(pack([self.labelled.tree]))
        found = losses(logits, [self.labelled])
        self._optimizer.zero_grad(set_to_none=True)
        (found.listwise + found.pointwise + found.choice).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def gradient(self) -> torch.Tensor:
        """All gradients of the last step in one vector."""
        return torch.cat([p.grad.flatten() for p in self.ranker.parameters() if p.grad is not None])


def run(json_out: Path | None, model: Path | None = None, rounds: int = 5) -> None:
    """Measure, print one table, and write the figures where asked."""
    folder = model or shipped("nano")
    reads_vectors = (folder / COMPRESSOR_FILE).is_file()
    rows = {shape.name: measure(folder, shape, rounds) for shape in SHAPES if reads_vectors or not shape.vectors}
    Console().print(table(rows, folder.name))
    if json_out is not None:
        lowest = min(row.ratio for row in rows.values())
        report = {
            "leaves_per_s_ratio": lowest, "rows": {n: asdict(row) for n, row in rows.items()}, "machine": machine(),
        }  # fmt: skip
        json_out.write_text(json.dumps(report, indent=1), encoding="utf-8")


def measure(folder: Path, shape: Shape, rounds: int) -> Row:
    """One shape, both ways in turn."""
    ranker, encoder = load(folder)
    labelled = shape.tree(len(encoder.tokenizer))
    trees = Learner(ranker, labelled, naive=False)
    sequences = Learner(load(folder)[0], labelled, naive=True)
    tree_seconds, sequence_seconds = interleaved([trees.learn, sequences.learn], rounds)
    leaves = shape.positions * shape.leaves
    expected = sequences.gradient()
    difference = float((trees.gradient() - expected).abs().max() / expected.abs().max())
    return Row(leaves / tree_seconds, leaves / sequence_seconds, sequence_seconds / tree_seconds, difference)


def table(rows: dict[str, Row], name: str) -> Table:
    """The figures for people."""
    caption = ", ".join(f"{key} {value}" for key, value in machine().items())
    shown = Table(title=f"Training {name}: labelled leaves a second", caption=caption)
    for heading in ("shape", "trees", "one leaf a sequence", "ratio", "gradients differ by"):
        shown.add_column(heading, justify="left" if heading == "shape" else "right")
    for shape, row in rows.items():
        figures = (f"{row.trees:,.0f}", f"{row.one_leaf_a_sequence:,.1f}", f"{row.ratio:.1f}x")
        shown.add_row(shape, *figures, f"{row.gradient_difference:.0e}")
    return shown
