"""Attention over packed trees, computed in parts and merged by their log-sum-exp.

A slot attends to its own node causally, and to every ancestor up to where the branch hangs. Each of these is one part:
a dense rectangle of queries and keys, so no mask over the tree is built and the work is linear in the number of leaves.
The parts of one slot are softmaxes over disjoint keys; with their log-sum-exps they merge exactly (Dao et al. 2022,
"FlashAttention", section 3.1; Liu et al. 2023, "Ring Attention"). The backward pass runs part by part too: the kernel's
own backward, given the *merged* output and log-sum-exp, returns each part's share of the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from foundation.attention.cpu import CpuKernel, chosen
from foundation.attention.geometry import Geometry, Positions
from foundation.attention.parts import Kernel, Part


class Remembered(NamedTuple):
    """Keys and values [C, heads, D] of slots that an earlier forward computed, in one layer."""

    keys: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True, slots=True)
class Plan:
    """A geometry and who computes it; the parts are made once for all layers of one window."""

    geometry: Geometry
    kernel: Kernel = field(default_factory=CpuKernel)
    _made: dict[int | None, tuple[Part, ...]] = field(default_factory=dict)

    def parts(self, window: int | None = None) -> tuple[Part, ...]:
        """For layers whose slots see at most the last `window` positions; None: all of them."""
        if window not in self._made:
            self._made[window] = self.kernel.parts(self.geometry, window)
        return self._made[window]

    def only(self, rows: Positions) -> Plan:
        """The same for these queries alone."""
        return Plan(self.geometry.only(rows), self.kernel)


def merged_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    parts: Sequence[Part],
    scale: float,
    remembered: Remembered | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [N, H, D] and log-sum-exp [N, H] of q [N, H, D] over k and v [M, H / groups, D], part by part."""
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(q.shape[:2], dtype=torch.promote_types(q.dtype, torch.float32), device=q.device)
    for part in parts:
        keys, values = remembered if part.remembered and remembered else (k, v)
        found, found_lse = part.attend(q, keys, values, scale)
        if part.opens:
            part.queries.put(out, found)
            part.queries.put(lse, found_lse.to(lse.dtype))
        else:
            _merge(part, out, lse, found, found_lse.to(lse.dtype))
    return out, lse


def _merge(part: Part, out: torch.Tensor, lse: torch.Tensor, found: torch.Tensor, found_lse: torch.Tensor) -> None:
    """The share of a part is a sigmoid of the difference of two log-sum-exps."""
    so_far, so_far_lse = part.queries.flat(out), part.queries.flat(lse)
    share = torch.sigmoid(found_lse - so_far_lse)[..., None].to(out.dtype)
    so_far.lerp_(found, share)  # rows that follow each other are a view: this writes them in place
    total = torch.logaddexp(so_far_lse, found_lse)
    if part.queries.index is not None:
        part.queries.put(out, so_far)
    part.queries.put(lse, total)


class _TreeAttention(torch.autograd.Function):
    """out_NHD of q, k, v [N, H, D], by `plan`."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, parts: Sequence[Part], scale: float
    ) -> torch.Tensor:
        out, lse = merged_attention(q, k, v, parts, scale)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.parts, ctx.scale = parts, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None]:
        q, k, v, out, lse = ctx.saved_tensors
        grads = tuple(torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
        for part in chosen(ctx.parts):
            shares = part.gradients(grad.contiguous(), q, k, v, out, lse, ctx.scale)
            for total, (rows, share) in zip(grads, shares, strict=True):
                rows.add(total, share)
        return (*grads, None, None)  # type: ignore[return-value]


def differentiable_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, parts: Sequence[Part], scale: float
) -> torch.Tensor:
    """Output [N, H, D], with a backward pass; q, k and v have the same number of heads."""
    out: torch.Tensor = _TreeAttention.apply(q, k, v, parts, scale)  # type: ignore[no-untyped-call]
    return out
