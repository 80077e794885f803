"""Distillation: a student learns what a teacher answers of the same leaves, beside the labels or without any.

G. Hinton, O. Vinyals and J. Dean, "Distilling the knowledge in a neural network", 2015: both models' logits are divided
by a temperature, and the divergence counts its square, which keeps the gradient's size. A teacher has a tokenizer of
its own, so it is given the tree as text.
Shapes: L leaves, A answers, S leaves of one spot.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from foundation.engine.base import TokenTree
from foundation.engine.pack import pack
from foundation.engine.reading import Reading
from foundation.model import Ranker
from foundation.tokenizer import TextEncoder
from foundation.training.labels import LabelledTree
from prompts.errors import TrainingError
from prompts.tree import PromptTree

if TYPE_CHECKING:
    from foundation.training.ahead import Data


class WithTeacher:
    """Data whose trees carry what a teacher answers. Implements `foundation.training.trainer.Data`."""

    def __init__(self, data: Data, teacher: Ranker, encoder: TextEncoder) -> None:
        self._data, self._teacher, self._encoder = data, teacher.eval(), encoder

    def batch(self, step: int) -> list[LabelledTree]:
        """The data's trees of a step. Raises TrainingError for trees that are not given as text."""
        trees = list(self._data.batch(step))
        compresses = self._teacher.compressor is not None
        reading = Reading(self._encoder, compresses=compresses)
        asked = [reading.read(_text(labelled)) for labelled in trees]
        taught = frozen_logits(self._teacher, asked)
        return [tree._replace(taught_LA=logits_LA) for tree, logits_LA in zip(trees, taught, strict=True)]


def _text(labelled: LabelledTree) -> PromptTree:
    if labelled.prompt is None:
        raise TrainingError("these trees hold tokens alone, which a teacher cannot read: leave 'teacher' away for them")
    return labelled.prompt


@torch.no_grad()
def frozen_logits(ranker: Ranker, trees: Sequence[TokenTree]) -> list[torch.Tensor]:
    """[L, A] of each tree, by a model that is not learning; they depend on the trees alone, not on what came before."""
    packed = pack(trees)
    return list(ranker(packed).split(packed.leaves))


def spots(labelled: LabelledTree) -> list[list[int]]:
    """The leaves that hang side by side, as numbers of leaves; none where no teacher answered."""
    if labelled.taught_LA is None:
        return []
    found: dict[int, list[int]] = defaultdict(list)
    leaves = (node for node in labelled.tree.nodes if node.answers)
    for number, node in enumerate(leaves):
        found[node.parent].append(number)
    return list(found.values())


def distill_loss(logits_LA: torch.Tensor, trees: Sequence[LabelledTree], temperature: float) -> torch.Tensor:
    """Mean over spots of the divergence of the student's answers from the teacher's, in nats.

    For a spot it is that of the softmax over its leaves of log-odds yes against no, and the mean over its leaves of
    that of yes against no and of the choice, as far as the tree's labels speak of them. Rows of `logits_LA` are the
    leaves, tree after tree.
    """
    found, base = [logits_LA.new_zeros(0)], 0
    for labelled in trees:
        rows = slice(base, base := base + labelled.leaves)
        if labelled.taught_LA is not None:
            found.append(_divergences(logits_LA[rows] / temperature, labelled, labelled.taught_LA / temperature))
    every = torch.cat(found)
    return every.mean() * temperature**2 if len(every) else logits_LA.new_zeros(())


def _divergences(student_LA: torch.Tensor, labelled: LabelledTree, teacher_LA: torch.Tensor) -> torch.Tensor:
    """[spots] of one tree."""
    odds = {(one.yes, one.no) for one in labelled.lists} | {(one.yes, one.no) for one in labelled.graded}
    questions = sorted({*odds, *(one.columns for one in labelled.choices)})
    each_L = student_LA.new_zeros(len(student_LA))
    for columns in questions:
        each_L = each_L + _divergence(student_LA[:, list(columns)], teacher_LA[:, list(columns)])
    return torch.stack([
        each_L[spot].mean() + sum(_divergence(_odds(student_LA[spot], *pair), _odds(teacher_LA[spot], *pair))
                                  for pair in sorted(odds))
        for spot in spots(labelled)
    ])  # fmt: skip


def _odds(logits_SA: torch.Tensor, yes: int, no: int) -> torch.Tensor:
    return logits_SA[:, yes] - logits_SA[:, no]


def _divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Kullback and Leibler's KL(teacher || student) of softmaxes over the last dimension."""
    log_q, log_p = student.log_softmax(dim=-1), teacher.to(student.dtype).log_softmax(dim=-1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)
