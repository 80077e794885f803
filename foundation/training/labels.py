"""Labelled trees, and the losses on their answers. Nothing but answers is learned from.

Leaves are numbered as `TokenTree` orders them; columns are places in a leaf's `answers`.
Shapes: P positions, K leaves of the longest list, C labelled choices, A answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from foundation.engine.base import TokenTree
from prompts.tree import PromptTree

TEMPERATURE = 0.1
"""Of cosines."""

Compress = Callable[[Sequence[tuple[int, ...]]], torch.Tensor]
"""Vectors [texts, D] of texts as token ids."""


class Listwise(NamedTuple):
    """One of these leaves was chosen: a softmax over them of log-odds yes against no.

    `stands_for` says for how many items each leaf stands: 1 for the chosen, more for a leaf that was drawn from many.
    The softmax counts it so often, which makes it an estimate of the one over all items (Horvitz and Thompson 1952).
    Where many chose, `shares` says how many of them chose each leaf, as shares of 1, and `chosen` is the one to come
    first.
    """

    leaves: tuple[int, ...]
    chosen: int
    yes: int
    no: int
    stands_for: tuple[float, ...]
    shares: tuple[float, ...] = ()


class Choice(NamedTuple):
    """What was done with one leaf: a softmax over the answers in `columns`, of which `columns[chosen]` is right."""

    leaf: int
    columns: tuple[int, ...]
    chosen: int


class Graded(NamedTuple):
    """Of each of these leaves by itself, whether (or how far, in [0, 1]) the answer is `yes` and not `no`."""

    leaves: tuple[int, ...]
    came: tuple[float, ...]
    yes: int
    no: int


class Pair(NamedTuple):
    """A text that was chosen after others: their vectors' weighted mean should be near to its vector.

    Texts are token ids. `log_share` is the log of how often the text is drawn as a target among those of its `group`;
    groups are learned apart.
    """

    history: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]
    target: tuple[int, ...]
    log_share: float
    group: str


class Preference(NamedTuple):
    """Of two leaves, which should have the higher log-odds yes against no, with the probability `sure` that it is so.

    `reference` is by how much a frozen model's log-odds of the preferred one are the higher, in nats.
    """

    preferred: int
    other: int
    yes: int
    no: int
    sure: float = 1.0
    reference: float = 0.0


class LabelledTree(NamedTuple):
    """A tree, and what is known of its leaves; `pairs` are of texts, and need none.

    `prompt` is the tree as text, for another model to read; `taught_LA` is what a teacher answered to it, as logits of
    every leaf's answers.
    """

    tree: TokenTree
    lists: tuple[Listwise, ...]
    choices: tuple[Choice, ...]
    graded: tuple[Graded, ...] = ()
    pairs: tuple[Pair, ...] = ()
    preferences: tuple[Preference, ...] = ()
    prompt: PromptTree | None = None
    taught_LA: torch.Tensor | None = None

    @property
    def leaves(self) -> int:
        """How many leaves answer."""
        return sum(1 for node in self.tree.nodes if node.answers)


class Losses(NamedTuple):
    """Means in nats; `accuracy` is the share of lists whose chosen leaf came first."""

    listwise: torch.Tensor
    pointwise: torch.Tensor
    choice: torch.Tensor
    contrast: torch.Tensor
    distill: torch.Tensor
    preference: torch.Tensor
    accuracy: torch.Tensor


def losses(logits_LA: torch.Tensor, trees: Sequence[LabelledTree]) -> Losses:
    """Of a batch whose leaves are the rows of `logits_LA`, tree after tree.

    What is not learned from labels of leaves alone is 0 here: `contrast`, `distill`, `preference`.
    """
    lists, choices, graded, base = [], [], [], 0
    for labelled in trees:
        lists += [one._replace(leaves=tuple(base + leaf for leaf in one.leaves)) for one in labelled.lists]
        choices += [one._replace(leaf=base + one.leaf) for one in labelled.choices]
        graded += [one._replace(leaves=tuple(base + leaf for leaf in one.leaves)) for one in labelled.graded]
        base += labelled.leaves
    nothing = logits_LA.new_zeros(())
    return Losses(
        listwise=list_loss(logits_LA, lists),
        pointwise=graded_loss(logits_LA, graded),
        choice=choice_loss(logits_LA, choices),
        contrast=nothing,
        distill=nothing,
        preference=nothing,
        accuracy=_accuracy(logits_LA, lists),
    )


def _odds(logits_LA: torch.Tensor, lists: Sequence[Listwise]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-odds [P, K], -inf past a list's end; index of the chosen one [P]."""
    width = max(len(one.leaves) for one in lists)
    leaf_PK = torch.tensor([one.leaves + (-1,) * (width - len(one.leaves)) for one in lists])
    yes_P, no_P = (torch.tensor([getattr(one, name) for one in lists])[:, None] for name in ("yes", "no"))
    rows_PK = leaf_PK.clamp(min=0)
    odds_PK = logits_LA[rows_PK, yes_P] - logits_LA[rows_PK, no_P]
    return odds_PK.masked_fill(leaf_PK < 0, float("-inf")), torch.tensor([one.chosen for one in lists])


def list_loss(logits_LA: torch.Tensor, lists: Sequence[Listwise]) -> torch.Tensor:
    """Mean over the lists of the negative log-likelihood of the chosen leaf, or of the choices that `shares` count."""
    if not lists:
        return logits_LA.new_zeros(())
    odds_PK, chosen_P = _odds(logits_LA, lists)
    weight_PK = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(one.stands_for, dtype=odds_PK.dtype) for one in lists], batch_first=True, padding_value=1.0
    )
    logits_PK = odds_PK + weight_PK.log()
    if not any(one.shares for one in lists):
        return F.cross_entropy(logits_PK, chosen_P)
    share_PK = logits_PK.new_tensor([_shares(one) + [0.0] * (logits_PK.shape[1] - len(one.leaves)) for one in lists])
    logp_PK = logits_PK.log_softmax(dim=1)
    return -(share_PK * logp_PK.masked_fill(share_PK == 0, 0.0)).sum(dim=1).mean()


def _shares(one: Listwise) -> list[float]:
    return list(one.shares) or [float(place == one.chosen) for place in range(len(one.leaves))]


def graded_loss(logits_LA: torch.Tensor, graded: Sequence[Graded]) -> torch.Tensor:
    """Mean over the leaves of yes or no of each by itself: this one sets the level of the probability."""
    if not graded:
        return logits_LA.new_zeros(())
    leaves = torch.tensor([leaf for one in graded for leaf in one.leaves])
    yes, no = (
        torch.tensor([column for one in graded for column in [getattr(one, name)] * len(one.leaves)])
        for name in ("yes", "no")
    )
    came = torch.tensor([came for one in graded for came in one.came], dtype=logits_LA.dtype)
    return F.binary_cross_entropy_with_logits(logits_LA[leaves, yes] - logits_LA[leaves, no], came)


def contrast_loss(trees: Sequence[LabelledTree], compress: Compress, temperature: float = TEMPERATURE) -> torch.Tensor:
    """Mean over pairs of the softmax of a target's cosine with its history among all targets of the batch and group.

    A target that is drawn often is there often as another's negative, too: the logits are corrected for that. Yi et
    al., "Sampling-bias-corrected neural modeling for large corpus item recommendations", RecSys 2019, equation 3.
    """
    pairs = [pair for labelled in trees for pair in labelled.pairs]
    groups = {group: [pair for pair in pairs if pair.group == group] for group in dict.fromkeys(p.group for p in pairs)}
    texts = list(dict.fromkeys(text for pair in pairs for text in (*pair.history, pair.target)))
    if not texts:
        return torch.zeros(())
    unit_UD = F.normalize(compress(texts), dim=-1)
    row = {text: n for n, text in enumerate(texts)}
    found = [_contrasts(group, unit_UD, row, temperature) for group in groups.values()]
    return torch.cat(found).mean()


def _contrasts(
    pairs: Sequence[Pair], unit_UD: torch.Tensor, row: Mapping[tuple[int, ...], int], temperature: float
) -> torch.Tensor:
    """Losses [pairs] of one group; what a history holds, or is the target itself, is no other target for it."""
    share = {pair.target: pair.log_share for pair in pairs}
    aims = {aim: place for place, aim in enumerate(share)}
    share_T = unit_UD.new_tensor(list(share.values()))
    weight_PU = unit_UD.new_zeros(len(pairs), len(unit_UD))
    for n, pair in enumerate(pairs):
        at = torch.tensor([row[text] for text in pair.history])
        weight_PU[n].index_add_(0, at, unit_UD.new_tensor(pair.weights))
    member_PD = F.normalize(weight_PU @ unit_UD, dim=-1)
    logits_PT = member_PD @ unit_UD[[row[aim] for aim in aims]].T / temperature - share_T
    known = [set(pair.history) - {pair.target} for pair in pairs]
    seen_PT = torch.tensor([[aim in history for aim in aims] for history in known])
    target_P = torch.tensor([aims[pair.target] for pair in pairs])
    return F.cross_entropy(logits_PT.masked_fill(seen_PT, float("-inf")), target_P, reduction="none")


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
