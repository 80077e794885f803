"""Attention over packed trees, computed in parts and merged by their log-sum-exp.

A slot attends to its own node causally, and to every ancestor up to where the branch hangs. Each of these is one part:
a dense rectangle of queries and keys, so no mask over the tree is built and the work is linear in the number of leaves
(only short branches along one ancestor, as training has them, share a small staircase of one). The
parts of one slot are softmaxes over disjoint keys; with their log-sum-exps they merge exactly (Dao et al. 2022,
"FlashAttention", section 3.1; Liu et al. 2023, "Ring Attention"). The backward pass runs part by part too: the kernel's
own backward, given the *merged* output and log-sum-exp, returns each part's share of the gradient.

Shapes: N slots, H heads, D head size; B rectangles of the same shape, Q queries and K keys each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from prompts.errors import CheckpointError

IMPLEMENTATION = "prismrank_tree"
LARGEST_STAIRS = 1 << 20
"""Entries of a mask for branches along one ancestor: below this, one call with a mask beats many small ones."""

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Rectangle(NamedTuple):
    """Queries `q_start … q_start+q_size` over keys `k_start … k_start+k_size` of the packed slots."""

    q_start: int
    q_size: int
    k_start: int
    k_size: int


@dataclass(frozen=True, slots=True)
class Rows:
    """`number` runs of `size` slots: from `start` on where they follow each other, else by an index of slots."""

    start: int
    number: int
    size: int
    index: torch.Tensor | None

    def take(self, x_NHD: torch.Tensor) -> torch.Tensor:
        """[B, H, size, D] of [N, H, D]; a view where the rows are contiguous."""
        flat = self.flat(x_NHD)
        return flat.view(self.number, self.size, *x_NHD.shape[1:]).transpose(1, 2)

    def flat(self, x: torch.Tensor) -> torch.Tensor:
        """The rows of `x`, one after another."""
        if self.index is not None:
            return x.index_select(0, self.index)
        return x[self.start : self.start + self.number * self.size]

    def put(self, target: torch.Tensor, value: torch.Tensor) -> None:
        """Write rows back, flat; rows of one `Rows` never overlap when they are queries."""
        if self.index is not None:
            target.index_copy_(0, self.index, value)
        else:
            target[self.start : self.start + self.number * self.size] = value

    def add(self, target: torch.Tensor, value: torch.Tensor) -> None:
        """Add to rows, flat; rows that occur twice are added twice."""
        if self.index is not None:
            target.index_add_(0, self.index, value)
        else:
            target[self.start : self.start + self.number * self.size] += value


class Part(NamedTuple):
    """One call of the attention kernel."""

    queries: Rows
    keys: Rows
    causal: bool
    stairs: torch.Tensor | None = None
    """[queries, keys], 0 where a query sees a key and -inf where not: many short branches along one ancestor."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which parts make up the attention of a packed batch: first every node over itself, then the ancestors."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, nodes: Iterable[tuple[int, int]], ancestors: Iterable[Rectangle]) -> Plan:
        """From each node's (start, size), and the rectangles of descendants over their ancestors.

        Rectangles of the same shape go into one call, and so do those that follow each other along one ancestor.
        """
        by_size: dict[int, list[int]] = defaultdict(list)
        for start, size in nodes:
            by_size[size].append(start)
        parts = []
        for size, starts in by_size.items():
            rows = _rows(starts, size)
            parts.append(Part(rows, rows, causal=True))
        by_shape: dict[tuple[int, int], list[Rectangle]] = defaultdict(list)
        for run in _runs(ancestors):
            if len(run) > 1:
                parts.append(_staircase(run))
            else:
                by_shape[run[0].q_size, run[0].k_size].append(run[0])
        for (q_size, k_size), group in by_shape.items():
            for level in _without_shared_queries(group):
                queries = _rows([r.q_start for r in level], q_size)
                parts.append(Part(queries, _rows([r.k_start for r in level], k_size), causal=False))
        return cls(tuple(parts))


def _runs(rectangles: Iterable[Rectangle]) -> list[list[Rectangle]]:
    """Rectangles over one ancestor whose queries follow each other, as long as a mask for them stays small."""
    runs: list[list[Rectangle]] = []
    for one in sorted(rectangles, key=lambda r: (r.k_start, r.q_start)):
        last = runs[-1][-1] if runs else None
        if last and last.k_start == one.k_start and last.q_start + last.q_size == one.q_start:
            queries = one.q_start + one.q_size - runs[-1][0].q_start
            if queries * max(one.k_size, last.k_size) <= LARGEST_STAIRS:
                runs[-1].append(one)
                continue
        runs.append([one])
    return runs


def _staircase(run: Sequence[Rectangle]) -> Part:
    """One part for branches along an ancestor: they hang in order, so each sees as much as the one before, or more."""
    queries = sum(one.q_size for one in run)
    keys = max(one.k_size for one in run)
    sees_Q = torch.tensor([one.k_size for one in run]).repeat_interleave(torch.tensor([one.q_size for one in run]))
    stairs_QK = torch.zeros(queries, keys).masked_fill(torch.arange(keys) >= sees_Q[:, None], float("-inf"))
    return Part(_rows([run[0].q_start], queries), _rows([run[0].k_start], keys), causal=False, stairs=stairs_QK)


def _without_shared_queries(group: Sequence[Rectangle]) -> list[list[Rectangle]]:
    """Split a group so that no slot is a query twice in one call (a slot may have two ancestors of one shape)."""
    levels: list[list[Rectangle]] = []
    ends: list[int] = []
    for rectangle in sorted(group):
        for level, end in enumerate(ends):
            if end <= rectangle.q_start:
                levels[level].append(rectangle)
                ends[level] = rectangle.q_start + rectangle.q_size
                break
        else:
            levels.append([rectangle])
            ends.append(rectangle.q_start + rectangle.q_size)
    return levels


def _rows(starts: Sequence[int], size: int) -> Rows:
    first, count = starts[0], len(starts)
    if all(start == first + i * size for i, start in enumerate(starts)):
        return Rows(first, count, size, None)
    index = torch.tensor(starts)[:, None] + torch.arange(size)
    return Rows(first, count, size, index.flatten())


class _TreeAttention(torch.autograd.Function):
    """out_NHD of q, k, v [N, H, D], by `plan`."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, plan: Plan, scale: float) -> torch.Tensor:
        out, lse = merged_attention(q, k, v, plan, scale)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.plan, ctx.scale = plan, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None]:
        q, k, v, out, lse = ctx.saved_tensors
        grads = tuple(torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
        grad = grad.contiguous()
        for queries, keys, causal, stairs in ctx.plan.parts:
            mask = None if stairs is None else stairs.to(q.dtype)
            given = [rows.take(x) for rows, x in ((queries, grad), (queries, q), (keys, k), (keys, v), (queries, out))]
            lse_BHQ = queries.take(lse[..., None]).squeeze(-1).contiguous()
            shares = _backward(*given, lse_BHQ, 0.0, causal, attn_mask=mask, scale=ctx.scale)
            for rows, total, share in zip((queries, keys, keys), grads, shares, strict=True):
                rows.add(total, share.transpose(1, 2).flatten(0, 1))
        return (*grads, None, None)  # type: ignore[return-value]


def merged_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, plan: Plan, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [N, H, D] and log-sum-exp [N, H] of attention by `plan`; every slot is in one causal part."""
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    lse = torch.empty(q.shape[:2], dtype=q.dtype)
    for queries, keys, causal, stairs in plan.parts:
        mask = None if stairs is None else stairs.to(q.dtype)
        given = queries.take(q), keys.take(k), keys.take(v)
        part_BHQD, part_BHQ = _forward(*given, 0.0, causal, attn_mask=mask, scale=scale)
        part, part_lse = part_BHQD.transpose(1, 2).flatten(0, 1), part_BHQ.transpose(1, 2).flatten(0, 1).to(q.dtype)
        if not causal:
            so_far = queries.flat(lse)
            total = torch.logaddexp(so_far, part_lse)
            part = queries.flat(out) * (so_far - total).exp()[..., None] + part * (part_lse - total).exp()[..., None]
            part_lse = total
        queries.put(out, part)
        queries.put(lse, part_lse)
    return out, lse


def tree_attention(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    scaling: float | None = None,
    *,
    tree_plan: Plan,
    **options: object,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every layer: q [1, H, N, D], k and v [1, H / groups, N, D] → [1, N, H, D]."""
    for name in ("sliding_window", "softcap", "s_aux"):
        if options.get(name) is not None:
            raise CheckpointError(f"the model's attention has {name}, which attention over trees does not do yet")
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    out: torch.Tensor = _TreeAttention.apply(q, k, v, tree_plan, scale)  # type: ignore[no-untyped-call]
    return out[None], None


def register() -> str:
    """Make the attention known to transformers; returns the name for `attn_implementation`."""
    AttentionInterface.register(IMPLEMENTATION, tree_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, lambda *_, **__: None)
    return IMPLEMENTATION
