"""Ways to score the same candidates. Each way gives what it answered, so that speed is compared for equal answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache

from foundation.bench.naive import NaiveRanker
from foundation.engine.base import TokenTree
from foundation.engine.torch import TorchEngine

EXPANDED = 16
"""Candidates of a batch behind an expanded cache."""

Answers = npt.NDArray[np.float64]


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Way:
    """`run` is timed and gives the answers [candidates, …]; `prepare` is not timed. `tokens`: of its whole prompts."""

    name: str
    candidates: int
    tokens: int
    run: Callable[[], Answers]
    prepare: Callable[[], object] = field(default=_nothing)


def cold(engine: TorchEngine, tree: TokenTree) -> tuple[Callable[[], Answers], Callable[[], object]]:
    """The engine with an empty cache."""
    return lambda: answered(engine, tree), engine.forget


def after(engine: TorchEngine, first: TokenTree, tree: TokenTree) -> tuple[Callable[[], Answers], Callable[[], object]]:
    """The engine that has just scored `first`, and nothing before it."""

    def prepare() -> None:
        engine.forget()
        engine.score([first])

    return lambda: answered(engine, tree), prepare


def answered(engine: TorchEngine, tree: TokenTree) -> Answers:
    """Log-probabilities [leaves, answers], or likelihoods [leaves, 1] of a tree that asks for them."""
    scores = engine.score([tree])[0]
    if tree.nodes[-1].likelihood:
        return scores.likelihood[:, None]
    return scores.table().astype(np.float64)


class ExpandedRanker:
    """The context's keys and values computed once by transformers, and expanded to batches of candidates."""

    def __init__(self, naive: NaiveRanker) -> None:
        self.lm = naive.ranker.lm

    def log_probabilities(self, tree: TokenTree) -> Answers:
        """[leaves, answers] of a trunk with leaves of one size."""
        known = self._states(torch.tensor([tree.nodes[0].slots]), None).past_key_values
        leaves = torch.tensor([node.slots for node in tree.nodes[1:]])
        head = cast(Any, self.lm).get_output_embeddings()
        logits = [
            head(self._states(batch, _expanded(known, len(batch))).last_hidden_state[:, -1])
            for batch in torch.split(leaves, EXPANDED)
        ]
        answers = torch.cat(logits)[:, list(tree.nodes[-1].answers)]
        return cast(Answers, answers.log_softmax(dim=-1).double().numpy())

    def _states(self, ids: torch.Tensor, known: DynamicCache | None) -> Any:
        return cast(Any, self.lm.base_model)(input_ids=ids, past_key_values=known, use_cache=True)


def _expanded(known: Any, size: int) -> DynamicCache:
    return DynamicCache(
        [(layer.keys.expand(size, -1, -1, -1), layer.values.expand(size, -1, -1, -1)) for layer in known.layers]
    )
