"""The process's heap: freed memory is kept for the next forward."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Names of glibc's settings (mallopt(3))."""


def keep_freed_memory(limit: int = 1 << 30) -> bool:
    """Up to `limit` bytes go back to the system no more; whether this C library can be told so (glibc can).

    A forward frees and asks again for the same tensors. As glibc comes, their pages go back to the system in between,
    and are zeroed anew at the first touch: a fifth of a small model's time.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: limit, M_TOP_PAD: 64 << 20}
    return all(mallopt(name, value) == 1 for name, value in settings.items())
