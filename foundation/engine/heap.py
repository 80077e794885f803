"""The process's heap: how the C library is told to serve forwards, and a process of many threads, for long."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8
"""Names of glibc's settings (mallopt(3))."""
ARENAS = 1
"""So many arenas all threads share."""
LARGE = 256 << 10
"""Bytes. Blocks from this size on come from the system, and go back to it at once, where large ones are kept apart."""
SELDOM = 100_000, 10, 10
"""Objects more than were freed, until the young ones are looked at; of such looks, until the older and the old are."""
TRIM_S = 20.0
"""So often free memory goes back; the next forward pays for about as much of it as it needs, some milliseconds."""


def keep_freed_memory(limit: int = 1 << 30) -> bool:
    """Up to `limit` bytes go back to the system no more; whether this C library can be told so (glibc can).

    A forward frees and asks again for the same tensors. As glibc comes, their pages go back to the system in between,
    and are zeroed anew at the first touch: a fifth of a small model's time.
    """
    return _told({M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: limit, M_TOP_PAD: 64 << 20})


def keep_large_apart() -> bool:
    """Gives large blocks pages of their own; whether this C library can be told so. Not for who computes forwards.

    As glibc comes, it takes them from the heap once one was freed. What a server learns at its start then leaves holes
    of a hundred megabytes there, over which what is kept of requests is strewn, a little to a page: its memory grew by
    2 MB a minute while no more of it was in use.
    """
    return _told({M_MMAP_THRESHOLD: LARGE, M_TRIM_THRESHOLD: 64 << 20})


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Has Python look for garbage that holds itself seldom, while inside, and never among what there is by now.

    There is next to none: requests leave nothing of that kind. But looking for it stops all threads, and walks what
    caches hold; as Python comes, a busy server did so several times a second, for 5 to 100 ms.
    """
    gc.collect()
    gc.freeze()
    before = gc.get_threshold()
    gc.set_threshold(*SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def share_arenas() -> bool:
    """Has all threads share one of malloc's arenas; says whether the C library can.

    By glibc's default each thread has its own, in which what others still use keeps the rest from being given back: a
    server under a mixed load then grew by 36 MB a minute. Call it before there are threads.
    """
    return _told({M_ARENA_MAX: ARENAS})


@contextmanager
def trimming(every_s: float = TRIM_S) -> Iterator[None]:
    """Gives free memory back to the system now and then, while inside.

    What is kept of a request lies between what was freed after it, in pieces that the next one often cannot use: the
    memory of a server whose caches are full grew by 20 MB a minute all the same.
    """
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(every_s):
            trim()

    thread = threading.Thread(target=work, name="memory", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def trim() -> bool:
    """Gives what is free back to the system; says whether the C library can, and there was any."""
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError, TypeError):  # another C library, or none that can be asked
        return False


def _told(settings: Mapping[int, int]) -> bool:
    """Whether the C library took all of the settings."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library, or none that can be asked
        return False
    return all(mallopt(name, value) == 1 for name, value in settings.items())
