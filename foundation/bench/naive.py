"""The naive way, as a yardstick: every leaf a whole prompt of its own.

Right-padded batches of 8, no cache, transformers' own attention, the LM head on the last position only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from foundation.engine.base import TokenNode, TokenTree, Vector
from foundation.engine.pack import pack
from foundation.model import Ranker

BATCH = 8


class Path(NamedTuple):
    """A leaf by itself: its slots from the root on, and which (node, slot) of the tree each of them is."""

    slots: tuple[int, ...]
    vectors: tuple[Vector, ...]
    origin: tuple[tuple[int, int], ...]


def path(tree: TokenTree, leaf: int) -> Path:
    """What a leaf sees, end to end: its ancestors up to where the branch hangs, and itself."""
    origin: list[tuple[int, int]] = []
    index, seen = leaf, len(tree.nodes[leaf].slots)
    while index >= 0:
        node = tree.nodes[index]
        origin = [(index, place) for place in range(seen)] + origin
        seen = len(tree.nodes[node.parent].slots) if node.after is None else node.after
        index = node.parent
    slots: list[int] = []
    vectors: list[Vector] = []
    for index, place in origin:
        node = tree.nodes[index]
        slot = node.slots[place]
        if slot < 0:
            vectors.append(node.vectors[-1 - slot])
            slot = -len(vectors)
        slots.append(slot)
    return Path(tuple(slots), tuple(vectors), tuple(origin))


def whole_prompts(tree: TokenTree) -> list[TokenTree]:
    """Every leaf of a tree as a tree of one node."""
    prompts = []
    for index, node in enumerate(tree.nodes):
        if node.answers:
            found = path(tree, index)
            prompts.append(TokenTree((TokenNode(found.slots, answers=node.answers, vectors=found.vectors),)))
    return prompts


class NaiveRanker:
    """A ranker's weights, run as anyone would run them. It changes the attention of the ranker it is given."""

    def __init__(self, ranker: Ranker) -> None:
        ranker.lm.set_attn_implementation("sdpa")
        self.ranker = ranker

    def logits(self, prompts: Sequence[TokenTree]) -> torch.Tensor:
        """Answer logits [prompts, answers]; every prompt asks for the same answers."""
        return torch.cat([self._batch(prompts[at : at + BATCH]) for at in range(0, len(prompts), BATCH)])

    def log_probabilities(self, prompts: Sequence[TokenTree]) -> npt.NDArray[np.float64]:
        """[prompts, answers], normalised over them."""
        return self.logits(prompts).log_softmax(dim=-1).double().numpy()

    def likelihoods(self, tree: TokenTree, begin: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """[leaves, 1]: log p(leaf | trunk) - log p(leaf | begin) a token, of leaves that hang from the trunk's end."""
        trunk, leaves = tree.nodes[0].slots, [node.slots for node in tree.nodes[1:]]
        gains = [self._mean_logp(trunk, leaf) - self._mean_logp(begin, leaf) for leaf in leaves]
        return np.array(gains)[:, None]

    def _mean_logp(self, before: tuple[int, ...], leaf: tuple[int, ...]) -> float:
        logits_TV = self.ranker.lm(torch.tensor([before + leaf])).logits[0, len(before) - 1 : -1]
        return float(logits_TV.log_softmax(dim=-1).gather(1, torch.tensor(leaf)[:, None]).double().mean())

    def _batch(self, prompts: Sequence[TokenTree]) -> torch.Tensor:
        lm, packed = self.ranker.lm, pack(prompts)
        sizes = [prompt.size for prompt in prompts]
        embeds_BTD = nn.utils.rnn.pad_sequence(
            list(torch.split(self.ranker.embed_slots(packed.slots, packed.vectors), sizes)), batch_first=True
        )  # causal attention never looks at the padding on the right
        states_BTD = lm.base_model(inputs_embeds=embeds_BTD, use_cache=False).last_hidden_state
        last_BD = states_BTD[torch.arange(len(sizes)), torch.tensor(sizes) - 1]
        head = cast(nn.Linear, lm.get_output_embeddings())  # type: ignore[no-untyped-call]
        logits_BV: torch.Tensor = head(last_BD)
        return logits_BV[:, list(prompts[0].nodes[0].answers)]
