"""`prismrank bench score`: candidates a second behind a shared context, ours against every way that a user could take.

All ways take turns within one run, and score the same candidates with the same weights. The GEMM share says how much of
this machine's matrix speed a cold tree reaches: 2 × active parameters × slots / time, over the rate at which the
model's own matrix products run when nothing else does, as they come or packed, whichever is faster (embeddings and
attention not counted). `gemm_share_computed` counts only the products that are computed: of the last layer, those of
the slots that somebody reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from foundation.bench.against import WHOLE_BLOCKS, against, lead
from foundation.bench.machine import Turn, interleaved, machine
from foundation.bench.naive import NaiveRanker, whole_prompts
from foundation.bench.peak import peak_bytes
from foundation.bench.products import Bare, flops, products
from foundation.bench.ways import Answers, ExpandedRanker, Way, after, cold
from foundation.bench.workload import Workload, prompt_tokens
from foundation.engine.base import TokenTree
from foundation.engine.heap import keep_freed_memory
from foundation.engine.torch import SERVING, TorchEngine
from foundation.model import load, shipped
from foundation.product import Plain, packed_where_faster

MANY = 10
"""How many times more candidates the rows `tree_many` and `tree_many_cached` score."""
SOME = 10
"""Candidates whose likelihoods are compared with each sequence alone, which is slow."""
RATIOS = {
    "second surface over first": ("first_surface", "second_surface"),
    "next visit over cold": ("next_visit_cold", "next_visit"),
    f"{MANY}x candidates cost, cold": ("tree_many", "tree"),
    f"{MANY}x candidates cost, warm": ("tree_many_cached", "tree_cached"),
}
"""What users of a ranker ask: the seconds of one row over those of another."""
MEMORY = f"{MANY}x candidates, peak memory"

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Report:
    """Figures by way; shares of the matrix rate (0 to 1); ratios of rows; the machine."""

    rows: dict[str, Figures]
    gemm_share: float
    gemm_share_computed: float
    ratios: Figures
    machine: dict[str, object]


def run(
    json_out: Path | None,
    model: Path | None = None,
    rounds: int = 5,
    workload: Workload | None = None,
    *,
    peers: bool = False,
) -> None:
    """Measure, print the tables, and write the figures where asked. `peers`: against those that are installed, too."""
    folder, work = model or shipped("nano"), workload or Workload()
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("measuring", total=None)
        report = measure(folder, work, rounds, lambda way: progress.update(task, description=way), peers=peers)
    for each in tables(report, work, folder.name):
        Console().print(each)
    if json_out is not None:
        json_out.write_text(json.dumps(asdict(report), indent=1), encoding="utf-8")


class Bench:
    """Every way over one model, and what each answered last."""

    def __init__(self, folder: Path, work: Workload) -> None:
        ranker, encoder = load(folder)
        self.work, self.vocabulary = work, len(encoder.tokenizer)
        keep_freed_memory()
        self.engine = TorchEngine(ranker, encoder, settings=SERVING)
        self.naive = NaiveRanker(load(folder)[0])
        self.answers: dict[str, Answers] = {}

    def ways(self) -> list[Way]:
        """What transformers alone can do, then ours."""
        work, size = self.work, self.vocabulary
        tree, likely = work.tree(size), work.tree(size, likelihood=True)
        first, second, grown = work.surface(size, 1), work.surface(size, 2), work.surface(size, 1, grown=True)
        many = replace(work, candidates=MANY * work.candidates).tree(size)
        visited = replace(work, candidates=1).tree(size)
        prompts, expanded = whole_prompts(tree), ExpandedRanker(self.naive)
        return [
            Way("naive", work.candidates, prompt_tokens(tree), lambda: self.naive.log_probabilities(prompts)),
            Way("expanded", work.candidates, prompt_tokens(tree), lambda: expanded.log_probabilities(tree)),
            self._ours("tree", tree),
            self._ours("tree_cached", tree, visited),
            self._ours("first_surface", first),
            self._ours("second_surface", second, first),
            self._ours("next_visit_cold", grown),
            self._ours("next_visit", grown, first),
            self._ours("likelihood_first", likely),
            self._ours("likelihood", likely, work.tree(size, likelihood=True, member=1)),
            self._ours("tree_many", many),
            self._ours("tree_many_cached", many, visited),
        ]

    def _ours(self, name: str, tree: TokenTree, before: TokenTree | None = None) -> Way:
        run, prepare = after(self.engine, before, tree) if before else cold(self.engine, tree)
        return Way(name, sum(node.asked for node in tree.nodes), prompt_tokens(tree), run, prepare)

    def turn(self, way: Way, tell: Callable[[str], object]) -> Turn:
        """A way to be timed, its answers kept."""

        def run() -> None:
            self.answers[way.name] = way.run()

        def prepare() -> None:
            tell(way.name)
            way.prepare()

        return Turn(run, prepare)

    def differences(self) -> dict[str, float]:
        """By way, how far an answer is from what its whole prompt answers, at most."""
        work, size = self.work, self.vocabulary
        some = replace(work, candidates=min(SOME, work.candidates)).tree(size, likelihood=True)
        likely = self.naive.likelihoods(some, self.engine.encoder.begin)
        expected = {"likelihood": likely, "likelihood_first": likely}
        for name, tree in {"first": work.surface(size, 1), "second": work.surface(size, 2)}.items():
            expected[f"{name}_surface"] = self.naive.log_probabilities(whole_prompts(tree))
        grown = self.naive.log_probabilities(whole_prompts(work.surface(size, 1, grown=True)))
        expected |= {"next_visit": grown, "next_visit_cold": grown}
        found = {}
        for name, answers in self.answers.items():
            right = expected.get(name, self.answers["naive"])
            found[name] = float(np.abs(answers[: len(right)] - right).max())
        return found


def measure(
    folder: Path, work: Workload, rounds: int, tell: Callable[[str], object] = lambda _: None, *, peers: bool = False
) -> Report:
    """Every way in turn, their answers compared, and the rate of the bare matrix products."""
    bench = Bench(folder, work)
    ranker, slots = bench.engine.ranker, work.context + work.candidates * work.candidate
    ways, bare = bench.ways(), [Bare(products(ranker, slots), make) for make in (Plain, packed_where_faster)]
    with torch.inference_mode():
        turns = [*(bench.turn(way, tell) for way in ways), *(Turn(each) for each in bare)]
        *seconds, plain, packed = interleaved(turns, rounds)
        tell("comparing answers")
        rows = figures(ways, seconds, bench.differences())
    took = {way.name: second for way, second in zip(ways, seconds, strict=True)}
    needed, computed = (flops(products(ranker, slots, read)) for read in (None, work.candidates))
    rate = bare[0].flops / min(plain, packed)
    rows["floor"] = floor(rows["tree"], needed / rate / took["tree"])
    ratios = {name: took[one] / took[other] for name, (one, other) in RATIOS.items()}
    if peers:
        context = replace(work, context=WHOLE_BLOCKS)
        found = against(bench.engine, bench.naive, folder, context, rounds, tell)
        rows |= found
        ratios |= {f"ours over {name}": over for name, over in lead(found).items()}
    tell("peak memory")
    few, many = (peak_bytes(folder, replace(work, candidates=n * work.candidates)) for n in (1, MANY))
    ratios[MEMORY] = many / few
    return Report(rows, needed / took["tree"] / rate, computed / took["tree"] / rate, ratios, machine())


def figures(ways: Sequence[Way], seconds: Sequence[float], differences: dict[str, float]) -> dict[str, Figures]:
    """The rows. The naive way is timed once, on the first workload; elsewhere its time is scaled by prompt tokens."""
    naive = seconds[0] / ways[0].tokens
    return {
        way.name: {
            "candidates_per_s": way.candidates / second,
            "ratio_to_naive": naive * way.tokens / second,
            "max_abs_diff": differences[way.name],
        }
        for way, second in zip(ways, seconds, strict=True)
    }


def floor(tree: Figures, share: float) -> Figures:
    """A tree whose every moment were a matrix product of a whole forward."""
    return {name: tree[name] / share for name in ("candidates_per_s", "ratio_to_naive")} | {"max_abs_diff": 0.0}


def tables(report: Report, work: Workload, name: str) -> list[Table]:
    """The report for people."""
    title = f"{work.candidates} candidates of {work.candidate} tokens behind {work.context}, {name}, fp32"
    shown = Table(title=title, caption=", ".join(f"{key} {value}" for key, value in report.machine.items()))
    for heading in ("way", "candidates/s", "against naive", "largest difference"):
        shown.add_column(heading, justify="left" if heading == "way" else "right")
    for way, row in report.rows.items():
        ratio = f"{row['ratio_to_naive']:.1f}x"
        shown.add_row(way, f"{row['candidates_per_s']:,.1f}", ratio, f"{row['max_abs_diff']:.0e}")
    ratios = Table("figure", "measured", title="ratios", caption=f"token count allows {work.bound:.1f}x against naive")
    ratios.add_row("GEMM share", f"{report.gemm_share:.0%} (of what is computed: {report.gemm_share_computed:.0%})")
    for figure, value in report.ratios.items():
        ratios.add_row(figure, f"{value:.2f}x")
    return [shown, ratios]
