"""A model is tried out before it is used: over a small tree, against its own attention on each path alone.

transformers knows hundreds of architectures, and a part of one that is missed here would score wrongly without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from foundation.attention.gpu import kernel_for
from foundation.attention.merge import Plan, Remembered
from foundation.attention.registry import Asked, Hear, register
from foundation.decoder import Decoder
from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.pack import pack
from foundation.product import Make, Plain, UnknownArchitectureError
from foundation.tokenizer import TextEncoder
from prompts.errors import CheckpointError

if TYPE_CHECKING:
    from foundation.engine.run import Reader
    from foundation.model import Ranker

BOUND = 1e-3
"""Far above rounding, far below what a missing part of an architecture makes."""


@torch.inference_mode()
def check(ranker: Ranker, encoder: TextEncoder) -> None:
    """Raises CheckpointError for a model whose answers over a tree differ from its own."""
    vocabulary = int(ranker.lm.config.vocab_size)
    if len(encoder.tokenizer) > vocabulary:
        raise CheckpointError(f"the tokenizer has {len(encoder.tokenizer)} tokens, the model {vocabulary}")
    tree, paths, answers = _sample(vocabulary)
    if ranker.compressor is not None and not ranker.compress([tree.nodes[0].slots]).isfinite().all():
        raise CheckpointError("the compressor's weights are no numbers")
    found = ranker(pack([tree]))
    ranker.lm.set_attn_implementation("eager")
    try:
        expected = torch.stack([ranker.lm(torch.tensor([path])).logits[0, -1, list(answers)] for path in paths])
    finally:
        ranker.lm.set_attn_implementation(register())
    if not _close(found, expected):
        raise CheckpointError("its answers over a tree differ from its own: this architecture is not supported yet")


@torch.inference_mode()
def asked_by(ranker: Ranker) -> list[Asked]:
    """What each layer of a model in fp32 asks of its attention, in order."""
    heard: dict[int, Asked] = {}

    def hear(layer: int, asked: Asked, _k: torch.Tensor, _v: torch.Tensor) -> Remembered | None:
        heard[layer] = asked
        return None

    _states(ranker, ranker, hear)
    return [heard[layer] for layer in range(ranker.layers)]


@torch.inference_mode()
def knows(ranker: Ranker, asked: Sequence[Asked], make: Make = Plain) -> bool:
    """Whether our own forward knows the architecture and, in fp32, agrees with transformers'."""
    try:
        found = _states(Decoder(ranker.lm, asked, make), ranker)
    except (UnknownArchitectureError, AttributeError, KeyError):
        return False
    return _close(found, _states(ranker, ranker))


def _states(reader: Reader, ranker: Ranker, hear: Hear = lambda *_: None) -> torch.Tensor:
    """Last hidden states at the sample's answers."""
    packed = pack([_sample(int(ranker.lm.config.vocab_size))[0]])
    positions, rows = (torch.from_numpy(each).to(ranker.device) for each in (packed.positions, packed.rows))
    plan = Plan(packed.plan.geometry, kernel_for(ranker.device, torch.float32, ()))
    return reader.hidden(ranker.embed_slots(packed.slots, packed.vectors), positions, plan, rows, hear)


def _sample(vocabulary: int) -> tuple[TokenTree, Sequence[Sequence[int]], tuple[int, int]]:
    """A trunk with a leaf in its middle and one at its end; each leaf's path; two answers."""
    ids = [(7 * n + 3) % vocabulary for n in range(12)]
    answers = (ids[0], ids[1])
    leaves = [TokenNode(tuple(ids[6:9]), 0, 4, answers), TokenNode(tuple(ids[9:]), 0, None, answers)]
    return TokenTree((TokenNode(tuple(ids[:6])), *leaves)), (ids[:4] + ids[6:9], ids[:6] + ids[9:]), answers


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).abs().max() <= BOUND * max(1.0, float(expected.abs().max())))
