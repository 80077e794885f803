"""Tree attention by FlexAttention (Dong et al. 2024): fp32, and sliding windows over trees, which flash-attn lacks.

In one call a query sees a single run of keys, so the mask is two numbers a query, whether the call is causal, cut by a
window or neither. Nothing is gathered but queries, and no mask of queries by keys is built: of blocks of keys that no
query of a block sees, FlexAttention computes nothing. Compiled for a GPU, it wants heads of at least 16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from foundation.attention.geometry import Geometry, Positions
from foundation.attention.parts import Rows
from foundation.attention.ragged import Call, as_rows, calls

BLOCK = 128
"""Slots of a block. A call has at least two blocks of queries and of keys: compilers treat one as a case of its own."""
GRAPHS = 64
"""It is compiled anew for shapes of another kind: a few times for a model, and never so often."""

FlexAttention = Callable[..., Any]
"""`torch.nn.attention.flex_attention.flex_attention`, as it is or compiled."""
Table = npt.NDArray[np.bool_]


class Spans(NamedTuple):
    """Of each query the first key that it sees, and the one behind the last: [Q] each."""

    first: Positions
    end: Positions


@dataclass(frozen=True, slots=True)
class FlexPart:
    """One call; its queries are padded to whole blocks by rows that see nothing."""

    queries: Rows
    padding: int
    mask: BlockMask
    opens: bool
    remembered: bool
    attention: FlexAttention

    def attend(
        self, q_NHD: torch.Tensor, k_NHD: torch.Tensor, v_NHD: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Part`."""
        q_RHD = F.pad(self.queries.flat(q_NHD), (0, 0, 0, 0, 0, self.padding))
        # contiguous: what is compiled for one layout of memory is compiled again for another
        given = (x.contiguous().transpose(0, 1)[None] for x in (q_RHD, k_NHD, v_NHD))
        out_1HRD, aux = self.attention(
            *given, block_mask=self.mask, scale=scale, enable_gqa=True, return_aux=AuxRequest(lse=True)
        )
        rows = slice(self.queries.number)
        return out_1HRD[0].transpose(0, 1)[rows], aux.lse[0].T[rows]


class FlexKernel:
    """Implements `Kernel`. `attention` is FlexAttention; None: compiled on a GPU, elsewhere as it is."""

    name = "flex"

    def __init__(self, device: torch.device, attention: FlexAttention | None = None) -> None:
        self.device = device
        self.attention = attention or (compiled() if device.type == "cuda" else flex_attention)

    def parts(self, geometry: Geometry, window: int | None) -> tuple[FlexPart, ...]:
        """See `Kernel`."""
        geometry = geometry.windowed(window)
        return tuple(self._part(geometry, call, window) for call in calls(geometry))

    def _part(self, geometry: Geometry, call: Call, window: int | None) -> FlexPart:
        slots = call.queries()
        keys = geometry.remembered_positions if call.remembered else geometry.k_positions
        spans = _spans(call, geometry.q_positions[slots], keys, window)
        padding = max(2, -(-len(slots) // BLOCK)) * BLOCK - len(slots)
        spans = Spans(*(np.pad(each, (0, padding)) for each in spans))
        mask = block_mask(spans, len(keys), self.device)
        return FlexPart(as_rows(slots, self.device), padding, mask, call.own, call.remembered, self.attention)


def compiled(backend: str | Callable[..., Any] = "inductor") -> FlexAttention:
    """FlexAttention as fused kernels, for shapes that change from call to call; `backend` as `torch.compile` has it."""
    found: FlexAttention = torch.compile(  # type: ignore[call-overload]  # its types lack recompile_limit
        flex_attention, backend=backend, dynamic=True, fullgraph=True, recompile_limit=GRAPHS
    )
    return found


def _spans(call: Call, q_positions: Positions, k_positions: Positions, window: int | None) -> Spans:
    """What the queries of a call see, by their positions [Q] and those of all keys [K]."""
    first = np.repeat(call.k_starts, call.q_sizes)
    end = np.repeat(call.k_starts + call.k_sizes, call.q_sizes)
    if window is not None:
        outside = q_positions - window + 1 - k_positions[first]
        first = first + np.maximum(0, outside)
    if call.own:
        last = np.repeat(np.cumsum(call.q_sizes) - 1, call.q_sizes)
        end = end - (last - np.arange(len(last)))
    return Spans(first, end)


def block_mask(spans: Spans, keys: int, device: torch.device) -> BlockMask:
    """The mask of whole blocks of queries over `keys` keys."""
    first_Q, end_Q = (torch.from_numpy(each.astype(np.int32)).to(device) for each in spans)

    def sees(_batch: torch.Tensor, _head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (first_Q[query] <= key) & (key < end_Q[query])

    some, whole = _tables(spans, keys)
    return BlockMask.from_kv_blocks(
        *_listed(some & ~whole, device), *_listed(whole, device), BLOCK_SIZE=BLOCK, mask_mod=sees,
        seq_lengths=(len(spans.first), keys), compute_q_blocks=False,
    )  # fmt: skip


def _tables(spans: Spans, keys: int) -> tuple[Table, Table]:
    """[blocks of queries, blocks of keys]: whether any query sees any key of a block, and whether all see all."""
    starts = np.arange(0, max(keys, BLOCK + 1), BLOCK)
    first, end = (each[:, None] for each in spans)
    some = (first < starts + BLOCK) & (starts < end) & (first < end)
    whole = (first <= starts) & (starts + BLOCK <= end)
    rows = np.arange(0, len(first), BLOCK)
    return np.logical_or.reduceat(some, rows), np.logical_and.reduceat(whole, rows)


def _listed(table: Table, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """As FlexAttention wants a table: by row how many blocks, and which, those first."""
    number, order = table.sum(axis=1), np.argsort(~table, axis=1, kind="stable")
    found = (torch.from_numpy(each.astype(np.int32)).to(device)[None, None] for each in (number, order))
    return next(found), next(found)
