"""Preference training: of two leaves under one stem, the preferred one's log-odds are raised over the other's.

Direct preference optimization: R. Rafailov et al., "Direct preference optimization: your language model is secretly a
reward model", NeurIPS 2023, equation 7, with log-odds of yes against no in the place of log-likelihoods. A pair that is
not certain counts both ways, each as far as it is sure (the conservative form: E. Mitchell, "A note on DPO with noisy
preferences & relationship to IPO", 2023). The reference is the model that the run started from.
Shapes: L leaves, A answers, P pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from foundation.model import Ranker
from foundation.training.distillation import frozen_logits
from foundation.training.labels import LabelledTree, Preference

if TYPE_CHECKING:
    from foundation.training.ahead import Data


class WithReference:
    """Data whose preferences know what a frozen model says of them. Implements `foundation.training.trainer.Data`.

    Where a tree brings no preferences, the chosen leaf of each of its lists is preferred to every other of the list.
    """

    def __init__(self, data: Data, reference: Ranker) -> None:
        """The `reference` reads the same tokens as the model that learns, and has no adapter that it is learning."""
        self._data, self._reference = data, reference.eval()

    def batch(self, step: int) -> list[LabelledTree]:
        """The data's trees of a step."""
        trees = list(self._data.batch(step))
        said = frozen_logits(self._reference, [labelled.tree.adapted("") for labelled in trees])
        return [_referred(labelled, logits_LA) for labelled, logits_LA in zip(trees, said, strict=True)]


def _referred(labelled: LabelledTree, logits_LA: torch.Tensor) -> LabelledTree:
    pairs = labelled.preferences or tuple(of_lists(labelled))
    if not pairs:
        return labelled
    margins = margins_of(logits_LA, pairs).tolist()
    known = tuple(pair._replace(reference=margin) for pair, margin in zip(pairs, margins, strict=True))
    return labelled._replace(preferences=known)


def of_lists(labelled: LabelledTree) -> Iterator[Preference]:
    """What a tree's lists say of pairs: the chosen leaf before each other."""
    for one in labelled.lists:
        others = (leaf for place, leaf in enumerate(one.leaves) if place != one.chosen)
        yield from (Preference(one.leaves[one.chosen], other, one.yes, one.no) for other in others)


def margins_of(logits_LA: torch.Tensor, pairs: Sequence[Preference]) -> torch.Tensor:
    """[P]: by how much the log-odds of the preferred leaf are above the other's."""
    preferred, other, yes, no = (
        torch.tensor([getattr(pair, name) for pair in pairs]) for name in ("preferred", "other", "yes", "no")
    )
    return logits_LA[preferred, yes] - logits_LA[preferred, no] - logits_LA[other, yes] + logits_LA[other, no]


def preference_loss(logits_LA: torch.Tensor, trees: Sequence[LabelledTree], beta: float) -> torch.Tensor:
    """Mean over all pairs, in nats; log 2 for the reference itself. Rows are the leaves, tree after tree.

    The larger `beta`, the smaller the change of a margin that satisfies a pair.
    """
    pairs, base = list[Preference](), 0
    for labelled in trees:
        pairs += [p._replace(preferred=base + p.preferred, other=base + p.other) for p in labelled.preferences]
        base += labelled.leaves
    if not pairs:
        return logits_LA.new_zeros(())
    reference_P, sure_P = (logits_LA.new_tensor([getattr(p, name) for p in pairs]) for name in ("reference", "sure"))
    return F.binary_cross_entropy_with_logits(beta * (margins_of(logits_LA, pairs) - reference_P), sure_P)
