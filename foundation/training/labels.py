"""Labelled trees, and the losses on their answers. Nothing but answers is learned from.

Leaves are numbered as `TokenTree` orders them; columns are places in a leaf's `answers`.
Shapes: P positions, K leaves of the longest list, C labelled choices, A answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from foundation.engine.base import TokenTree


class Listwise(NamedTuple):
    """One of these leaves was chosen: a softmax over them of log-odds yes against no.

    `stands_for` says for how many items each leaf stands: 1 for the chosen, more for a leaf that was drawn from many.
    The softmax counts it so often, which makes it an estimate of the one over all items (Horvitz and Thompson 1952).
    """

    leaves: tuple[int, ...]
    chosen: int
    yes: int
    no: int
    stands_for: tuple[float, ...]


class Choice(NamedTuple):
    """What was done with one leaf: a softmax over the answers in `columns`, of which `columns[chosen]` is right."""

    leaf: int
    columns: tuple[int, ...]
    chosen: int


class LabelledTree(NamedTuple):
    """A tree, and what is known of its leaves."""

    tree: TokenTree
    lists: tuple[Listwise, ...]
    choices: tuple[Choice, ...]


class Losses(NamedTuple):
    """Means in nats; `accuracy` is the share of lists whose chosen leaf came first."""

    listwise: torch.Tensor
    pointwise: torch.Tensor
    choice: torch.Tensor
    accuracy: torch.Tensor


def losses(logits_LA: torch.Tensor, trees: Sequence[LabelledTree]) -> Losses:
    """Of a batch whose leaves are the rows of `logits_LA`, tree after tree."""
    lists, choices, base = [], [], 0
    for labelled in trees:
        lists += [one._replace(leaves=tuple(base + leaf for leaf in one.leaves)) for one in labelled.lists]
        choices += [one._replace(leaf=base + one.leaf) for one in labelled.choices]
        base += sum(1 for node in labelled.tree.nodes if node.answers)
    return Losses(*_list_losses(logits_LA, lists), choice_loss(logits_LA, choices), _accuracy(logits_LA, lists))


def _odds(logits_LA: torch.Tensor, lists: Sequence[Listwise]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-odds [P, K], -inf past a list's end; index of the chosen one [P]."""
    width = max(len(one.leaves) for one in lists)
    leaf_PK = torch.tensor([one.leaves + (-1,) * (width - len(one.leaves)) for one in lists])
    yes_P, no_P = (torch.tensor([getattr(one, name) for one in lists])[:, None] for name in ("yes", "no"))
    rows_PK = leaf_PK.clamp(min=0)
    odds_PK = logits_LA[rows_PK, yes_P] - logits_LA[rows_PK, no_P]
    return odds_PK.masked_fill(leaf_PK < 0, float("-inf")), torch.tensor([one.chosen for one in lists])


def _list_losses(logits_LA: torch.Tensor, lists: Sequence[Listwise]) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax over each list, and yes/no of each leaf by itself (this one sets the level of the probability)."""
    if not lists:
        return logits_LA.new_zeros(()), logits_LA.new_zeros(())
    odds_PK, chosen_P = _odds(logits_LA, lists)
    target_PK = F.one_hot(chosen_P, odds_PK.shape[1]).to(odds_PK.dtype)
    real = odds_PK.isfinite()
    pointwise = F.binary_cross_entropy_with_logits(odds_PK[real], target_PK[real])
    weight_PK = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(one.stands_for, dtype=odds_PK.dtype) for one in lists], batch_first=True, padding_value=1.0
    )
    return F.cross_entropy(odds_PK + weight_PK.log(), chosen_P), pointwise


def choice_loss(logits_LA: torch.Tensor, choices: Sequence[Choice]) -> torch.Tensor:
    """Mean cross-entropy of the labelled choices."""
    if not choices:
        return logits_LA.new_zeros(())
    by_columns: dict[tuple[int, ...], list[Choice]] = defaultdict(list)
    for one in choices:
        by_columns[one.columns].append(one)
    total = logits_LA.new_zeros(())
    for columns, group in by_columns.items():
        logits_CA = logits_LA[[one.leaf for one in group]][:, list(columns)]
        chosen_C = torch.tensor([one.chosen for one in group])
        total = total + F.cross_entropy(logits_CA, chosen_C, reduction="sum")
    return total / len(choices)


@torch.no_grad()
def _accuracy(logits_LA: torch.Tensor, lists: Sequence[Listwise]) -> torch.Tensor:
    if not lists:
        return logits_LA.new_zeros(())
    odds_PK, chosen_P = _odds(logits_LA, lists)
    return (odds_PK.argmax(dim=1) == chosen_P).float().mean()
