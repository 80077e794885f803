"""Which kernel a device gets."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import cast

import torch

from foundation.attention.cpu import CpuKernel
from foundation.attention.flash import FlashKernel, Varlen
from foundation.attention.flex import FlexKernel
from foundation.attention.parts import Kernel

HALVES = (torch.float16, torch.bfloat16)
OLDEST = (8, 0)
"""The first compute capability that flash-attn has kernels for (Ampere)."""


def kernel_for(device: torch.device, dtype: torch.dtype, windows: Sequence[int | None]) -> Kernel:
    """The kernel for a model on `device` in `dtype`, whose layers have these sliding windows (None: no window).

    flash-attn where it is installed and can do it, on other devices than a CPU else FlexAttention.
    """
    if device.type == "cpu":
        return CpuKernel()
    fits = dtype in HALVES and all(window is None for window in windows)
    varlen = _flash_attn(device) if fits else None
    return FlexKernel(device) if varlen is None else FlashKernel(device, varlen)


def _flash_attn(device: torch.device) -> Varlen | None:
    """flash-attn's call, if it is installed, whole, and has kernels for the device."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < OLDEST:
        return None
    try:
        return cast(Varlen | None, getattr(importlib.import_module("flash_attn"), "flash_attn_varlen_func", None))
    except ImportError:
        return None
