"""The mean of two models that one came from the other, weight by weight.

What a model learns more of its own surfaces it loses on others; the mean of before and after keeps most of both.
M. Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022.
"""

from __future__ import annotations

from pathlib import Path

import torch

from foundation import model as models
from prompts.errors import CheckpointError, ConfigError


def average(before: Path, after: Path, out: Path, share: float = 0.5) -> None:
    """Writes a model folder whose weights are `share` of those after and the rest of those before, in 16 bits.

    Raises ConfigError for a share outside 0 to 1 or a folder that is there, CheckpointError for models of two shapes or
    two vocabularies.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"share: {share:g} is outside 0 to 1")
    if out.exists():
        raise ConfigError(f"{out}: it is there already; name another folder")
    (one, encoder), (other, told) = models.load(before), models.load(after)
    first, second = dict(one.named_parameters()), dict(other.named_parameters())  # each once, tied or not
    if {name: tensor.shape for name, tensor in first.items()} != {name: t.shape for name, t in second.items()}:
        raise CheckpointError(f"{before} and {after} are models of two shapes: they have no mean")
    if encoder.tokenizer.get_vocab() != told.tokenizer.get_vocab():
        raise CheckpointError(f"{before} and {after} have two vocabularies: their weights do not mean the same")
    with torch.no_grad():
        for name, tensor in first.items():
            tensor.lerp_(second[name], share)
    one.save(out, encoder, torch.float16)
