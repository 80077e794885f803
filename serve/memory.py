"""Memory that goes back: how the C library's allocator is told to serve a process of many threads."""

from __future__ import annotations

import ctypes

ARENAS = 2
_M_ARENA_MAX = -8
"""Of glibc's malloc.h."""


def share_arenas() -> bool:
    """Has all threads share a few of malloc's arenas; says whether the C library can.

    By glibc's default each thread has its own, in which what others still use keeps the rest from being given back: a
    server under a mixed load then grew by 36 MB a minute. Call it before there are threads.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library, or none that can be asked
        return False
    return bool(mallopt(_M_ARENA_MAX, ARENAS))
