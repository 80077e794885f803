"""The CPU kernel behind `scaled_dot_product_attention`, which also returns its log-sum-exp.

It wants rectangles of one shape in a call. Short nodes of about one size share a call, padded on the right, where
causal attention never looks. Masks are made where a sliding window cuts through a rectangle, and for many short
branches along one ancestor, as training has them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from foundation.attention.geometry import Geometry, Rectangle, without_shared_queries
from foundation.attention.parts import Part, Rows

LARGEST_STAIRS = 1 << 20
"""Entries of a mask for branches along one ancestor: below this, one call with a mask beats many small ones."""
PADDED = 64
"""Nodes up to this size are padded to a multiple of `PAD`, so that those of about one size share a call."""
PAD = 8

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True, slots=True)
class CpuPart:
    """`mask` [B or 1, 1, Q, K] or [Q, K] holds 0 where a query sees a key, -inf where not; `blind` [B, 1, Q] or None
    says which queries see none at all, for which the kernel's log-sum-exp is wrong (0, not -inf)."""

    queries: Rows
    keys: Rows
    opens: bool
    causal: bool = False
    remembered: bool = False
    mask: torch.Tensor | None = None
    blind: torch.Tensor | None = None

    def attend(
        self, q_NHD: torch.Tensor, k_NHD: torch.Tensor, v_NHD: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Part`."""
        mask = None if self.mask is None else self.mask.to(q_NHD.dtype)
        given = self.queries.take(q_NHD), self.keys.take(k_NHD), self.keys.take(v_NHD)
        out_BHQD, lse_BHQ = _forward(*given, 0.0, self.causal, attn_mask=mask, scale=scale)
        if self.blind is not None:
            lse_BHQ = lse_BHQ.masked_fill(self.blind, float("-inf"))
        return out_BHQD.transpose(1, 2).flatten(0, 1), lse_BHQ.transpose(1, 2).flatten(0, 1)

    def gradients(
        self, grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor,
        out: torch.Tensor, lse: torch.Tensor, scale: float,
    ) -> Iterator[tuple[Rows, torch.Tensor]]:  # fmt: skip
        """The part's share of the gradients of q, k and v, flat, given the *merged* output and log-sum-exp."""
        mask = None if self.mask is None else self.mask.to(q.dtype)
        own = self.queries.silenced(self.queries.flat(grad))
        given = [own.view(self.queries.number, self.queries.size, *own.shape[1:]).transpose(1, 2)]
        given += [rows.take(x) for rows, x in ((self.queries, q), (self.keys, k), (self.keys, v), (self.queries, out))]
        lse_BHQ = self.queries.take(lse[..., None]).squeeze(-1).contiguous()
        shares = _backward(*given, lse_BHQ, 0.0, self.causal, attn_mask=mask, scale=scale)
        for rows, share in zip((self.queries, self.keys, self.keys), shares, strict=True):
            yield rows, share.transpose(1, 2).flatten(0, 1)


class CpuKernel:
    """Implements `Kernel`."""

    name = "cpu"

    def parts(self, geometry: Geometry, window: int | None) -> tuple[CpuPart, ...]:
        """See `Kernel`."""
        geometry = geometry.windowed(window)
        cut = [one for one in geometry.above if geometry.needs_mask(one, window)]
        whole = [one for one in geometry.above if not geometry.needs_mask(one, window)]
        return (
            *_own(geometry, window),
            *_above(whole),
            *(_masked(geometry, one, window, causal=False) for one in cut),
        )


def _own(geometry: Geometry, window: int | None) -> Iterator[CpuPart]:
    """Nodes over themselves: of one size, or padded to one; then single slots over their node's slots before."""
    by_size: dict[int, list[Rectangle]] = defaultdict(list)
    singles: dict[int, list[Rectangle]] = defaultdict(list)
    for one in geometry.own:
        if (one.q_start, one.q_size) != (one.k_start, one.k_size):
            singles[_padded(one.k_size)].append(one)
        elif geometry.needs_mask(one, window):
            yield _masked(geometry, one, window, causal=True)
        else:
            by_size[_padded(one.q_size)].append(one)
    for group in by_size.values():
        size = max(one.q_size for one in group)
        rows = Rows.of([one.q_start for one in group], [one.q_size for one in group], size)
        yield CpuPart(rows, rows, opens=True, causal=True)
    for group in singles.values():
        yield _singles(group)


def _padded(size: int) -> int:
    return size if size > PADDED else -(-size // PAD) * PAD


def _singles(group: Sequence[Rectangle]) -> CpuPart:
    size = max(one.k_size for one in group)
    queries = Rows.of([one.q_start for one in group], [1] * len(group), 1)
    keys = Rows.of([one.k_start for one in group], [one.k_size for one in group], size)
    mask = None if keys.real is None else _mask(keys.real.view(len(group), 1, 1, size))
    return CpuPart(queries, keys, opens=True, mask=mask)


def _above(rectangles: Iterable[Rectangle]) -> Iterator[CpuPart]:
    """Rectangles of the same shape go into one call, and so do those that follow each other along one ancestor."""
    by_shape: dict[tuple[int, int, bool], list[Rectangle]] = defaultdict(list)
    for run in _runs(rectangles):
        if len(run) > 1:
            yield _staircase(run)
        else:
            by_shape[run[0].q_size, run[0].k_size, run[0].remembered].append(run[0])
    for (q_size, k_size, remembered), group in by_shape.items():
        for level in without_shared_queries(group):
            queries = Rows.of([one.q_start for one in level], [q_size] * len(level), q_size)
            keys = Rows.of([one.k_start for one in level], [k_size] * len(level), k_size)
            yield CpuPart(queries, keys, opens=False, remembered=remembered)


def _runs(rectangles: Iterable[Rectangle]) -> list[list[Rectangle]]:
    """Rectangles over one ancestor whose queries follow each other, as long as a mask for them stays small."""
    runs: list[list[Rectangle]] = []
    for one in sorted(rectangles, key=lambda r: (r.remembered, r.k_start, r.q_start)):
        last = runs[-1][-1] if runs else None
        if (
            last
            and (last.remembered, last.k_start) == (one.remembered, one.k_start)
            and last.q_start + last.q_size == one.q_start
        ):
            queries = one.q_start + one.q_size - runs[-1][0].q_start
            if queries * max(one.k_size, last.k_size) <= LARGEST_STAIRS:
                runs[-1].append(one)
                continue
        runs.append([one])
    return runs


def _staircase(run: Sequence[Rectangle]) -> CpuPart:
    """One part for branches along an ancestor: they hang in order, so each sees as much as the one before, or more."""
    queries = sum(one.q_size for one in run)
    keys = max(one.k_size for one in run)
    sees_Q = torch.tensor([one.k_size for one in run]).repeat_interleave(torch.tensor([one.q_size for one in run]))
    return CpuPart(
        Rows(run[0].q_start, 1, queries), Rows(run[0].k_start, 1, keys), opens=False,
        remembered=run[0].remembered, mask=_mask(torch.arange(keys) < sees_Q[:, None]),
    )  # fmt: skip


def _masked(geometry: Geometry, one: Rectangle, window: int | None, *, causal: bool) -> CpuPart:
    """A rectangle that the window cuts through."""
    queries, keys = (torch.from_numpy(positions) for positions in geometry.positions(one))
    ago_QK = queries[:, None] - keys
    sees_QK = ago_QK < (window or 0)
    if causal:
        sees_QK &= ago_QK >= 0
    blind_Q = ~sees_QK.any(dim=1)
    return CpuPart(
        Rows(one.q_start, 1, one.q_size), Rows(one.k_start, 1, one.k_size), opens=causal,
        remembered=one.remembered, mask=_mask(sees_QK), blind=blind_Q if blind_Q.any() else None,
    )  # fmt: skip


def _mask(sees: torch.Tensor) -> torch.Tensor:
    return torch.zeros(sees.shape).masked_fill(~sees, float("-inf"))


def chosen(parts: Iterable[Part]) -> Iterator[CpuPart]:
    """Parts that have a backward pass. Raises TypeError for those of another kernel."""
    for part in parts:
        if not isinstance(part, CpuPart):
            raise TypeError("only the CPU kernel's parts have a backward pass of their own")
        yield part
