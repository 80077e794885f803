"""Ours against other engines, where they are installed: warm on both sides, one thread, processor time, in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from scipy.special import log_softmax

from foundation.bench.machine import Turn, interleaved
from foundation.bench.naive import BATCH, NaiveRanker, whole_prompts
from foundation.bench.peers.peer import Peer, PeerError, Scored, installed
from foundation.bench.ways import Answers, after
from foundation.bench.workload import ANSWERS, Workload
from foundation.engine.base import TokenTree
from foundation.engine.torch import TorchEngine

WHOLE_BLOCKS = 416
"""Tokens of the context: 13 whole blocks of vLLM's CPU build, which shares only whole ones."""
OPPONENTS = {"vllm": ("fp32",), "llama_cpp": ("fp32", "fp32_kv16")}
"""The precisions in which each peer is asked: ours, and the one in which llama.cpp is fastest."""
OURS = "tree_cached_416"

Figures = dict[str, float]


class Opponent(NamedTuple):
    """A row's name, the peer, and what it took and answered."""

    name: str
    peer: Peer
    replies: list[Scored]


def against(
    engine: TorchEngine, naive: NaiveRanker, folder: Path, work: Workload, rounds: int, tell: Callable[[str], object]
) -> dict[str, Figures]:
    """Rows of the peers, and ours on the same candidates; empty where none is installed."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with ExitStack() as stack:
            opponents = _started(stack, folder, tell)
            return _compared(engine, naive, work, rounds, opponents, tell) if opponents else {}
    finally:
        torch.set_num_threads(threads)


def _started(stack: ExitStack, folder: Path, tell: Callable[[str], object]) -> list[Opponent]:
    found = []
    for name in installed():
        for precision in OPPONENTS.get(name, ()):
            row = name if precision == "fp32" else f"{name}_{precision}"
            tell(f"starting {row}")
            try:
                found.append(Opponent(row, stack.enter_context(Peer(name, folder, 1, precision)), []))
            except PeerError as error:
                Console(stderr=True, soft_wrap=True).print(f"without {row}: {error}", markup=False)
    return found


@torch.inference_mode()
def _compared(
    engine: TorchEngine, naive: NaiveRanker, work: Workload, rounds: int, opponents: Sequence[Opponent],
    tell: Callable[[str], object],
) -> dict[str, Figures]:  # fmt: skip
    tree = work.tree(len(engine.encoder.tokenizer))
    prompts = whole_prompts(tree)
    answered: list[Answers] = []
    run, prepare = after(engine, replace(work, candidates=1).tree(len(engine.encoder.tokenizer)), tree)
    turns = [Turn(lambda: naive.logits(prompts[:BATCH])), Turn(lambda: answered.append(run()), prepare)]
    turns += [Turn(_asked(opponent, tree, tell)) for opponent in opponents]
    slow, ours, *_ = interleaved(turns, rounds)
    plain = slow / BATCH  # a candidate, the naive way
    expected = naive.log_probabilities(prompts)
    rows = {OURS: _row(work.candidates, ours, plain, answered[-1], expected)}
    for opponent in opponents:
        seconds = median(reply.cpu_seconds for reply in opponent.replies[-rounds:])
        answers = log_softmax(opponent.replies[-1].logp, axis=1)
        rows[opponent.name] = _row(work.candidates, seconds, plain, answers, expected)
    return rows


def _asked(opponent: Opponent, tree: TokenTree, tell: Callable[[str], object]) -> Callable[[], None]:
    context, candidates = tree.nodes[0].slots, [node.slots for node in tree.nodes[1:]]

    def ask() -> None:
        tell(opponent.name)
        opponent.replies.append(opponent.peer.score(context, candidates, ANSWERS))

    return ask


def _row(candidates: int, seconds: float, plain: float, answers: Answers, expected: Answers) -> Figures:
    return {
        "candidates_per_s": candidates / seconds,
        "ratio_to_naive": plain * candidates / seconds,
        "max_abs_diff": float(np.abs(answers - expected).max()),
    }


def lead(rows: dict[str, Figures]) -> Figures:
    """How many times more candidates a second ours scores than each peer."""
    ours = rows.get(OURS, {}).get("candidates_per_s", 0.0)
    return {name: ours / row["candidates_per_s"] for name, row in rows.items() if name != OURS}
