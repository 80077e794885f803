"""What the allocator is told."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from foundation.engine.heap import ARENAS, SELDOM, collecting_seldom

THREADS = """
import ctypes, sys, threading
from foundation.engine.heap import share_arenas

if sys.argv[1] == "share":
    assert share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
together = threading.Barrier(9)

def work():
    held = [libc.malloc(1000) for _ in range(100)]
    together.wait()

for _ in range(8):
    threading.Thread(target=work).start()
together.wait()
libc.fopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, out)
libc.fclose(out)
"""


@pytest.mark.parametrize(("how", "at_most"), [("share", ARENAS), ("as usual", 99)])
def test_threads_share_the_arenas_of_the_c_library(tmp_path: Path, how: str, at_most: int) -> None:
    if platform.libc_ver()[0] != "glibc":
        return  # another allocator, which is told nothing
    file = tmp_path / "arenas.xml"
    subprocess.run([sys.executable, "-c", THREADS, how, str(file)], check=True)
    arenas = file.read_text("utf-8").count("<heap nr=")
    assert 1 <= arenas <= at_most
    assert how == "share" or arenas > ARENAS


LARGE = """
import ctypes, sys
from foundation.engine.heap import keep_large_apart

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
if sys.argv[1] == "apart":
    assert keep_large_apart()
libc.free(libc.malloc(8 << 20))  # after which glibc has the heap for everything up to that size
class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    _fields_ = [(name, ctypes.c_size_t) for name in names]
libc.mallinfo2.restype = Info
before = libc.mallinfo2().hblks
held = libc.malloc(1 << 20)
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.parametrize(("how", "apart"), [("apart", 1), ("as usual", 0)])
def test_large_blocks_are_kept_apart(how: str, apart: int) -> None:
    if platform.libc_ver()[0] != "glibc":
        return  # another allocator, which is told nothing
    assert int(subprocess.check_output([sys.executable, "-c", LARGE, how])) == apart


SCATTERED = """
import ctypes, sys, time
from pathlib import Path
from foundation.engine.heap import trimming

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes, libc.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]
held = [libc.malloc(64_000) for _ in range(2_000)]
for block in held:
    libc.memset(block, 1, 64_000)
for block in held[:-1]:  # the last one lies on top of all that is free
    libc.free(block)
before, end = resident(), time.monotonic() + 20
with trimming(0.05):
    while resident() > before - 100 and time.monotonic() < end:
        time.sleep(0.01)
print(before - resident())
"""


def test_free_memory_goes_back_though_something_lies_behind_it() -> None:
    if platform.libc_ver()[0] != "glibc":
        return  # another allocator, which is told nothing
    told = subprocess.run([sys.executable, "-c", SCATTERED], check=True, capture_output=True, text=True)
    assert float(told.stdout) > 100, "of 128 MB"


def test_garbage_that_holds_itself_is_looked_for_seldom_and_then_as_before() -> None:
    before = gc.get_threshold()
    with collecting_seldom():
        assert gc.get_threshold() == SELDOM
        assert gc.get_freeze_count() > 0
    assert gc.get_threshold() == before
