"""A model is tried out before it is used: over a small tree, against its own attention on each path alone.

transformers knows hundreds of architectures, and a part of one that is missed here would score wrongly without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from foundation.attention.gpu import kernel_for
from foundation.attention.merge import Plan, Remembered
from foundation.attention.registry import Asked, Hear, register
from foundation.decoder import Decoder
from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.cache import PrefixCache
from foundation.engine.forest import Forest
from foundation.engine.pack import pack
from foundation.engine.run import Reader, Runner, Whose
from foundation.product import Make, Plain, UnknownArchitectureError
from foundation.tokenizer import TextEncoder
from prompts.errors import CheckpointError

if TYPE_CHECKING:
    from foundation.model import Ranker

UNKNOWN = (UnknownArchitectureError, AttributeError, KeyError, TypeError, ValueError, IndexError, RuntimeError)
"""What comes of reading an architecture as if it were another."""
FAR = 1_000_003
"""A position beyond every length at which an architecture changes what it does."""
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
    for module in ranker.lm.modules():
        _check_positions(getattr(module, "rope_type", None))
    found = ranker(pack([tree]))
    ranker.lm.set_attn_implementation("eager")
    try:
        expected = torch.stack([ranker.lm(torch.tensor([path])).logits[0, -1, list(answers)] for path in paths])
    finally:
        ranker.lm.set_attn_implementation(register())
    if not all(_close(each, expected) for each in (found, *_in_pieces(ranker, tree, answers))):
        raise CheckpointError("its answers over a tree differ from its own: this architecture is not supported yet")


def _check_positions(kinds: object) -> None:
    for kind in kinds.values() if isinstance(kinds, dict) else (kinds,):
        if kind in ("dynamic", "longrope"):
            raise CheckpointError(f"its positions ({kind}) depend on the longest text that is scored beside a leaf")


def _in_pieces(ranker: Ranker, tree: TokenTree, answers: tuple[int, ...]) -> Iterator[torch.Tensor]:
    """Answer logits as an engine computes them: a few slots at a time, cold and from the cache."""
    asked = asked_by(ranker)
    runner = Runner(
        reader=Decoder(ranker.lm, asked) if knows(ranker, asked) else ranker,
        embed=lambda laid: ranker.embed_slots(laid.slots, laid.vectors),
        kernel=kernel_for(ranker.device, torch.float32, [each.window for each in asked]),
        device=ranker.device,
        cache=PrefixCache(64 << 20),
        chunk_slots=4,
    )
    forest = Forest.of([tree])
    ends = [Whose(index, len(node.slots) - 1) for index, node in enumerate(tree.nodes) if node.answers]
    for _ in ("cold", "from the cache"):
        states = runner.hidden(forest, {end.node: (end.slot,) for end in ends})
        yield ranker.answer_logits(states.of(ends), [answers] * len(ends))


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
        decoder = Decoder(ranker.lm, asked, make)
        found, expected = ([_states(reader, ranker, first=first) for first in (0, FAR)] for reader in (decoder, ranker))
    except UNKNOWN:
        return False
    return all(map(_close, found, expected))


def _states(reader: Reader, ranker: Ranker, hear: Hear = lambda *_: None, first: int = 0) -> torch.Tensor:
    """Last hidden states at the sample's answers, the root at position `first`."""
    packed = pack([_sample(int(ranker.lm.config.vocab_size))[0]])
    positions, rows = (torch.from_numpy(each).to(ranker.device) for each in (packed.positions + first, packed.rows))
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
