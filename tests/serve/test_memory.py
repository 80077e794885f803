"""What the allocator is told."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from serve.memory import ARENAS

THREADS = """
import ctypes, sys, threading
from serve.memory import share_arenas

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
