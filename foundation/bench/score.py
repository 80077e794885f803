"""`prismrank bench score`: candidates a second behind one shared context, trees against whole prompts.

The GEMM share says how much of this machine's matrix speed the tree reaches: 2 × active parameters × slots / time, over
the rate at which the model's own matrix products run when nothing else does (embeddings and attention not counted).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from foundation.bench.machine import interleaved, machine
from foundation.bench.naive import NaiveRanker, whole_prompts
from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.pack import pack
from foundation.model import Ranker, load, shipped

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Report:
    """Figures by way, the GEMM share (0 to 1) of the tree, and the machine."""

    rows: dict[str, Figures]
    gemm_share: float
    machine: dict[str, object]


@dataclass(frozen=True, slots=True)
class Workload:
    """One request: a context, and candidates behind it, of random tokens."""

    context: int = 400
    candidates: int = 100
    candidate: int = 24

    def tree(self, vocabulary: int) -> TokenTree:
        """The request as a tree with two answers a leaf."""
        rng = random.Random(0)

        def tokens(count: int) -> tuple[int, ...]:
            return tuple(rng.randrange(3, vocabulary) for _ in range(count))

        leaves = (TokenNode(tokens(self.candidate), 0, None, (3, 4)) for _ in range(self.candidates))
        return TokenTree((TokenNode(tokens(self.context)), *leaves))

    @property
    def bound(self) -> float:
        """How many times fewer tokens the tree computes."""
        whole = self.candidates * (self.context + self.candidate)
        return whole / (self.context + self.candidates * self.candidate)


def run(json_out: Path | None, model: Path | None = None, rounds: int = 7, workload: Workload | None = None) -> None:
    """Measure, print one table, and write the figures where asked."""
    folder, work = model or shipped("nano"), workload or Workload()
    report = measure(folder, work, rounds)
    Console().print(table(report, work, folder.name))
    if json_out is not None:
        json_out.write_text(json.dumps(asdict(report), indent=1), encoding="utf-8")


def measure(folder: Path, work: Workload, rounds: int) -> Report:
    """Both ways in turn, their answers compared, and the rate of the bare matrix products."""
    ranker, encoder = load(folder)
    naive = NaiveRanker(load(folder)[0])
    tree = work.tree(len(encoder.tokenizer))
    prompts = whole_prompts(tree)
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "naive": lambda: naive.logits(prompts),
        "tree": lambda: torch.as_tensor(ranker(pack([tree]))),
    }
    with torch.inference_mode():
        seconds = dict(zip(ways, interleaved(list(ways.values()), rounds), strict=True))
        answers = {name: way().log_softmax(dim=-1) for name, way in ways.items()}
        rate = gemm_rate(ranker, tree.size, rounds)
    rows = {name: _row(name, seconds, answers, work) for name in ways}
    flops = 2 * active_parameters(ranker) * tree.size
    return Report(rows, flops / seconds["tree"] / rate, machine())


def _row(name: str, seconds: dict[str, float], answers: dict[str, torch.Tensor], work: Workload) -> Figures:
    return {
        "candidates_per_s": work.candidates / seconds[name],
        "ratio_to_naive": seconds["naive"] / seconds[name],
        "max_abs_diff": float((answers[name] - answers["naive"]).abs().max()),
    }


def shapes(ranker: Ranker) -> list[tuple[int, int, float]]:
    """The matrix products of one slot: (in, out, how often), experts by the share of slots that each of them sees."""
    config = ranker.lm.config
    hidden, layers = config.hidden_size, config.num_hidden_layers
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    q, kv = config.num_attention_heads * head, config.num_key_value_heads * head
    active = getattr(config, "num_experts_per_tok", 1)
    inner = config.intermediate_size
    return [
        (hidden, q, layers), (hidden, kv, 2 * layers), (q, hidden, layers),
        (hidden, 2 * inner, active * layers), (inner, hidden, active * layers),
    ]  # fmt: skip


def active_parameters(ranker: Ranker) -> float:
    """Weights of the matrix products that one slot takes part in, embeddings and router aside."""
    return sum(n_in * n_out * times for n_in, n_out, times in shapes(ranker))


def gemm_rate(ranker: Ranker, slots: int, rounds: int) -> float:
    """FLOPs a second of the model's own matrix products at this many slots, run bare, each expert's share apart."""
    experts = getattr(ranker.lm.config, "num_local_experts", 1)
    active = getattr(ranker.lm.config, "num_experts_per_tok", 1)
    products = []
    for place, (n_in, n_out, _) in enumerate(shapes(ranker)):
        rows = slots * active // experts if place > 2 else slots
        products.append((torch.randn(rows, n_in), torch.randn(n_out, n_in), experts if place > 2 else 1))

    def multiply() -> None:
        for x, weight, times in products:
            for _ in range(times):
                torch.nn.functional.linear(x, weight)

    work = sum(2 * len(x) * weight.numel() * times for x, weight, times in products)
    return work / interleaved([multiply], 3 * rounds)[0]


def table(report: Report, work: Workload, name: str) -> Table:
    """The report for people."""
    title = f"{work.candidates} candidates of {work.candidate} tokens behind {work.context}, {name}, fp32"
    on = ", ".join(f"{key} {value}" for key, value in report.machine.items())
    caption = f"token count allows {work.bound:.1f}x; GEMM share of the tree {report.gemm_share:.0%}; {on}"
    shown = Table(title=title, caption=caption)
    for heading in ("way", "candidates/s", "against naive", "largest difference"):
        shown.add_column(heading, justify="left" if heading == "way" else "right")
    for way, row in report.rows.items():
        ratio = f"{row['ratio_to_naive']:.1f}x"
        shown.add_row(way, f"{row['candidates_per_s']:,.1f}", ratio, f"{row['max_abs_diff']:.0e}")
    return shown
