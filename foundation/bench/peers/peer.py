"""Other engines, asked for the same scores: each in a process and a virtual environment of its own.

    with Peer("vllm", folder, threads=1) as peer:
        scored = peer.score(context, candidates, answers=(3, 4))

`make bench-peers` installs them. Before each request a peer warms its cache with the context; what comes after
is timed.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt

from prompts.errors import PrismrankError

DRIVERS = Path(__file__).resolve().parent
LOOP = DRIVERS / "loop.py"
HOME = DRIVERS.parents[2] / ".peers"
"""One folder a peer: its virtual environment, made by `make bench-peers`, and the log of its last run."""
INSTALLED = ".installed"
"""The file that `make bench-peers` leaves in an environment that is complete."""
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 33)}
"""glibc gives no memory back between two requests: 7% more candidates a second of vLLM, as its tcmalloc gives."""
LAST_LINES = 3
LONGEST_TAIL = 600
PATIENCE_S = 10.0
"""How long a peer may take to leave when nobody asks it anything any more."""


class PeerError(PrismrankError):
    """A peer that is not installed, or that ended before it answered."""


class Scored(NamedTuple):
    """Log-probabilities over the whole vocabulary [candidates, answers], and what they took behind a cached context.

    `cpu_seconds` counts every thread of the peer's process.
    """

    logp: npt.NDArray[np.float64]
    cpu_seconds: float
    wall_seconds: float


def installed() -> list[str]:
    """Names of the peers that `make bench-peers` has installed."""
    return sorted(mark.parent.name for mark in HOME.glob(f"*/{INSTALLED}"))


class Peer:
    """A peer with one model. Starting one takes seconds, and minutes where it compiles.

    `about` is what it says of itself: version, precision, how it is tuned. Every call raises PeerError, one line with
    the end of the peer's log, where the peer has died; whoever holds it can then go on without it.
    """

    def __init__(self, name: str, model: Path, threads: int = 1, precision: str = "fp32") -> None:
        if name not in installed():
            there = ", ".join(installed()) or "none"
            raise PeerError(f"the peer '{name}' is not installed (installed: {there}): run `make bench-peers`")
        self.name, self.model, self.threads, self.precision = name, model.resolve(), threads, precision
        self.about: dict[str, object] = {}
        self._log = HOME / name / "log.txt"

    def __enter__(self) -> Self:
        self._process = self._start()
        self._requests, self._replies = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        try:
            self.about = self._hear("while it loaded the model")["about"]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            self._requests.close()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._replies.close()

    def score(self, context: Sequence[int], candidates: Sequence[Sequence[int]], answers: Sequence[int]) -> Scored:
        """Answers at the last token of every candidate behind one context, all given as token ids."""
        asked = {"context": list(context), "candidates": [list(each) for each in candidates], "answers": list(answers)}
        with suppress(BrokenPipeError):  # a peer that has died is heard of below
            self._requests.write(json.dumps(asked) + "\n")
            self._requests.flush()
        heard = self._hear("while it scored")
        return Scored(np.array(heard["logp"], dtype=np.float64), heard["cpu_s"], heard["wall_s"])

    def _start(self) -> subprocess.Popen[str]:
        python, driver = HOME / self.name / "bin" / "python", DRIVERS / f"{self.name}_driver.py"
        arguments = (driver, self.model, self.threads, self.precision)
        command = [str(part) for part in (python, "-P", LOOP, *arguments)]
        try:
            with self._log.open("wb") as log:
                return subprocess.Popen(  # noqa: S603 - our own file, run by the Python that we installed
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, encoding="utf-8",
                    env={**os.environ, **KEEP_MEMORY},
                )  # fmt: skip
        except OSError as error:
            raise PeerError(f"the peer '{self.name}' does not start: {error}") from None

    def _hear(self, doing: str) -> dict[str, Any]:
        line = self._replies.readline()
        if not line.endswith("\n"):
            status = self._process.wait()
            raise PeerError(f"the peer '{self.name}' ended {doing} (status {status}): {self._last_words()}")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines()]
        last = [line for line in lines if line][-LAST_LINES:]
        return " | ".join(last)[-LONGEST_TAIL:] or "it left no log"
