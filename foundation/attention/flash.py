"""Tree attention by flash-attn's call for sequences of various lengths (Dao 2023, "FlashAttention-2").

A rectangle is one sequence of the call: its queries, and its keys gathered behind those of the others. The call gives
the log-sum-exp beside the output, reads grouped heads as they are, and aligns a causal mask to the last query and the
last key, which is how nodes see themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from foundation.attention.geometry import Geometry, Positions
from foundation.attention.parts import Rows
from foundation.attention.ragged import Call, as_rows, calls, end_to_end
from prompts.errors import CheckpointError


class Varlen(Protocol):
    """`flash_attn.flash_attn_varlen_func`, as far as it is used here."""

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_seqlens_q: torch.Tensor, cu_seqlens_k: torch.Tensor,
        max_seqlen_q: int, max_seqlen_k: int, *, softmax_scale: float, causal: bool, return_attn_probs: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:  # fmt: skip
        """Output [rows, H, D], log-sum-exp [H, rows] in fp32, and what only tests of flash-attn read."""
        ...


@dataclass(frozen=True, slots=True)
class Sequences:
    """Rows of sequences; `ends` [sequences + 1], int32, are 0 and the row behind each of them."""

    rows: Rows
    ends: torch.Tensor
    longest: int

    @classmethod
    def of(cls, starts: Positions, sizes: Positions, device: torch.device) -> Sequences:
        """Runs of slots, on the kernel's device."""
        ends = torch.from_numpy(np.cumsum([0, *sizes], dtype=np.int32)).to(device)
        return cls(as_rows(end_to_end(starts, sizes), device), ends, int(sizes.max()))


@dataclass(frozen=True, slots=True)
class FlashPart:
    """One call. A part that `opens` its queries is causal."""

    over: Sequences
    keys: Sequences
    opens: bool
    remembered: bool
    varlen: Varlen

    @property
    def queries(self) -> Rows:
        """See `Part`."""
        return self.over.rows

    def attend(
        self, q_NHD: torch.Tensor, k_NHD: torch.Tensor, v_NHD: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Part`."""
        out_RHD, lse_HR, _ = self.varlen(
            self.over.rows.flat(q_NHD), self.keys.rows.flat(k_NHD), self.keys.rows.flat(v_NHD),
            self.over.ends, self.keys.ends, self.over.longest, self.keys.longest,
            softmax_scale=scale, causal=self.opens, return_attn_probs=True,
        )  # fmt: skip
        return out_RHD, lse_HR.T


class FlashKernel:
    """Implements `Kernel`, for fp16 and bf16, heads of at most 256, and windows that cut through no rectangle."""

    name = "flash"

    def __init__(self, device: torch.device, varlen: Varlen) -> None:
        self.device, self.varlen = device, varlen

    def parts(self, geometry: Geometry, window: int | None) -> tuple[FlashPart, ...]:
        """See `Kernel`."""
        geometry = geometry.windowed(window)
        if any(geometry.needs_mask(one, window) for one in (*geometry.own, *geometry.above)):
            raise CheckpointError(
                f"flash-attn cannot do a sliding window of {window} positions over trees; FlexAttention can, and is "
                f"chosen where a model's windows are known when it is loaded"
            )
        return tuple(self._part(call) for call in calls(geometry))

    def _part(self, call: Call) -> FlashPart:
        over = Sequences.of(call.q_starts, call.q_sizes, self.device)
        keys = Sequences.of(call.k_starts, call.k_sizes, self.device)
        return FlashPart(over, keys, call.own, call.remembered, self.varlen)
