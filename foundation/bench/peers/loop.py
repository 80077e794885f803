"""What runs inside a peer's own Python: `python -P loop.py DRIVER MODEL THREADS PRECISION`.

Only the standard library stands here: nothing of prismrank is installed where this runs. A driver is a file with
`load(model, threads, precision) -> Driver`. One JSON object a line comes in on stdin and goes out on stdout:

                                                                      {"about": {…what the peer says of itself}}
    {"context": [ids], "candidates": [[ids], …], "answers": [ids]}  → {"logp": [[…], …], "cpu_s": …, "wall_s": …}

Whatever a library prints goes to stderr, and so does the traceback that ends the process when something goes wrong.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Iterable
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any, Protocol, TextIO


class Driver(Protocol):
    """One library with one model."""

    about: dict[str, object]

    def warm(self, context: list[int], candidates: list[list[int]]) -> None:
        """Make room for a request and leave the keys and values of its context, and of nothing else, in the cache."""
        ...

    def score(self, context: list[int], candidates: list[list[int]], answers: list[int]) -> list[list[float]]:
        """Log-probabilities [candidates, answers] behind the last token of each candidate."""
        ...


def main() -> None:
    """Serve until stdin ends. Leaves at once, since what libraries print or wait for at their end serves nobody."""
    replies = _claim_stdout()
    path, model, threads, precision = sys.argv[1:]
    try:
        serve(driver_module(path).load(model, int(threads), precision), sys.stdin, replies)
    except Exception:
        traceback.print_exc()
        _leave(1)
    _leave(0)


def serve(driver: Driver, requests: Iterable[str], replies: TextIO) -> None:
    """Answer every line. The clocks run while the driver scores, and stand while it warms its cache."""
    _say(replies, {"about": driver.about})
    for line in requests:
        asked: dict[str, Any] = json.loads(line)
        driver.warm(asked["context"], asked["candidates"])
        cpu, wall = time.process_time(), time.perf_counter()
        logp = driver.score(asked["context"], asked["candidates"], asked["answers"])
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        _say(replies, {"logp": logp, "cpu_s": cpu, "wall_s": wall})


def _claim_stdout() -> TextIO:
    pipe = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(pipe, "w", encoding="utf-8")


def driver_module(path: str) -> ModuleType:
    """The driver's file as a module, wherever it lies."""
    spec = spec_from_file_location("driver", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _say(replies: TextIO, message: dict[str, object]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def _leave(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
