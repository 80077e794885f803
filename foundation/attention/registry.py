"""Tree attention in transformers' attention registry: any causal language model there can read trees."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from foundation.attention.merge import Plan, Remembered, differentiable_attention, merged_attention
from prompts.errors import CheckpointError

IMPLEMENTATION = "prismrank_tree"


class Window(NamedTuple):
    """What stands for a mask: how many slots back a layer sees."""

    slots: int


class Asked(NamedTuple):
    """What a layer asks of its attention."""

    window: int | None
    scale: float


Hear = Callable[[int, Asked, torch.Tensor, torch.Tensor], Remembered | None]
"""Called by each layer with its number, what it asks, its new keys and values [N, heads, D]; gives what is known."""


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Window | None,
    scaling: float | None = None,
    *,
    tree_plan: Plan,
    tree_hear: Hear | None = None,
    **options: object,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every layer: q [1, H, N, D], k and v [1, H / groups, N, D] → [1, N, H, D]."""
    for name in ("softcap", "s_aux"):
        if options.get(name) is not None:
            raise CheckpointError(f"the model's attention has {name}, which attention over trees does not do yet")
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    asked = Asked(_agreed(options.get("sliding_window"), attention_mask), scaling or query.shape[-1] ** -0.5)
    remembered = tree_hear(int(getattr(module, "layer_idx", 0)), asked, k, v) if tree_hear else None
    parts = tree_plan.parts(asked.window)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        groups = q.shape[1] // k.shape[1]
        if groups > 1:
            k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        return differentiable_attention(q, k, v, parts, asked.scale)[None], None
    return merged_attention(q, k, v, parts, asked.scale, remembered)[0][None], None


def _agreed(said: object, told: Window | None) -> int | None:
    """The window of a layer. transformers tells a layer of it twice, where an architecture does not forget one."""
    window = said if isinstance(said, int) else None
    if window != (told.slots if told else None):
        raise CheckpointError("a layer's mask and its attention do not agree on a sliding window")
    return window


def _mask(*_: object, local_size: int | None = None, **__: object) -> Window | None:
    return None if local_size is None else Window(local_size)


def register() -> str:
    """Make the attention known to transformers; returns the name for `attn_implementation`."""
    AttentionInterface.register(IMPLEMENTATION, tree_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, _mask)
    return IMPLEMENTATION
