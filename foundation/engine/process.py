"""The embedded engine in a process of its own: its forwards, and what others compute in Python, run beside each other.

One interpreter runs one thread at a time. Beside an engine in its own process a server has all of its interpreter for
requests, a crash or a lack of memory in the engine leaves the server standing, and the engine is started anew.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from foundation.engine.base import CacheStats, LeafScores, TokenTree
from foundation.engine.message import from_trees, receive, send, to_scores
from foundation.engine.reading import Reading
from foundation.engine.torch import SERVING, EngineSettings
from foundation.tokenizer import TextEncoder
from prompts.errors import CheckpointError, EngineError

logger = logging.getLogger(__name__)

FIRST_S, LONGEST_S = 0.1, 30.0
"""So long a process that has ended is left alone before there is another one: twice as long each time."""
SOUND_S = 60.0
"""One that ran for so long did not end because of what it is."""


class About(NamedTuple):
    """What a process tells of the engine that it has loaded."""

    model_version: str
    compresses: bool
    adapters: tuple[str, ...]


class _Line:
    """A connection on which one caller at a time asks, and waits for the answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, Lock()

    def ask(self, *message: object) -> tuple[Any, CacheStats]:
        """What came of it, or raises that; and the cache's figures. Raises EngineError where nobody answers."""
        with self._lock:
            try:
                send(self._connection, message)
                well, answer, stats = receive(self._connection)
            except (EOFError, OSError):
                raise EngineError("the engine's process has ended; another one is being started") from None
        if not well:
            raise answer
        return answer, CacheStats(*stats)

    def close(self) -> None:
        """No more is asked."""
        with self._lock:
            self._connection.close()


class _Worker:
    """A process, and the two lines to it."""

    def __init__(self) -> None:
        ours, theirs = zip(*(socket.socketpair() for _ in range(2)), strict=True)
        path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
        numbers = [each.fileno() for each in theirs]
        try:
            self.process = subprocess.Popen(  # noqa: S603 - our own
                [sys.executable, "-P", "-m", "foundation.engine.worker", *map(str, numbers)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=numbers,
                env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        finally:
            for each in theirs:
                each.close()
        self.work, self.care = (_Line(Connection(each.detach())) for each in ours)
        self.ready = False

    def load(self, folder: Path, settings: EngineSettings) -> About:
        """Has it load a model. Raises what that raises."""
        told, _ = self.care.ask(folder, settings)
        return About(*told)

    def end(self) -> int:
        """Ends it, which has nothing to lose; its exit status."""
        self.process.kill()
        status = self.process.wait()
        for line in (self.work, self.care):  # who waited on them has heard of the end
            line.close()
        return status


class _Keeper:
    """Has a process that runs the engine of a folder, and another one where it ends."""

    def __init__(self, folder: Path, settings: EngineSettings) -> None:
        self.folder, self.settings, self.stats = folder, settings, CacheStats()
        self.adapters: dict[str, Path] = {}
        self._lock, self._closed = Lock(), Event()
        self._worker = _Worker()
        try:
            self.about = self._worker.load(folder, settings)
        except BaseException:
            self._worker.end()
            raise
        self._worker.ready = True
        Thread(target=self._watch, name="engine-keeper", daemon=True).start()

    def ask(self, line: Callable[[_Worker], _Line], *message: object) -> Any:
        """What the process answers on a line. Raises EngineError where there is none just now."""
        worker = self._worker
        if not worker.ready:
            raise EngineError("the engine's process has ended; another one is being started")
        answer, self.stats = line(worker).ask(*message)
        return answer

    def close(self) -> None:
        """Ends the process for good."""
        with self._lock:
            self._closed.set()
            self._worker.end()

    def _watch(self) -> None:
        rest, since = FIRST_S, time.monotonic()
        while True:
            self._worker.process.wait()
            if self._closed.is_set():
                return
            logger.error("the engine's process has ended with status %d; another one is started", self._worker.end())
            rest = FIRST_S if time.monotonic() - since > SOUND_S else min(LONGEST_S, 2 * rest)
            if self._closed.wait(rest):
                return
            since = time.monotonic()
            if self._begin():
                logger.warning("the engine's process was started anew in %.1f s", time.monotonic() - since)

    def _begin(self) -> bool:
        """Starts another process; says whether it is ready."""
        try:
            with self._lock:
                if self._closed.is_set():
                    return False
                self._worker = _Worker()
            worker = self._worker
            version = worker.load(self.folder, self.settings).model_version
            if version != self.about.model_version:
                raise CheckpointError(f"{self.folder}: its weights have changed")
            for name, folder in list(self.adapters.items()):
                self._adapt(worker, name, folder)
        except Exception as error:
            logger.error("the engine's process could not be started anew: %s", error)
            self._worker.process.kill()
            return False
        worker.ready = True
        return True

    def _adapt(self, worker: _Worker, name: str, folder: Path) -> None:
        try:
            worker.care.ask("add_adapter", (name, folder))
        except CheckpointError as error:
            logger.error("the adapter '%s' is lost: %s", name, error)
            self.adapters.pop(name, None)


class ProcessEngine(Reading):
    """Implements `Engine` by a `TorchEngine` in another process, which it starts and, where it ends, starts anew.

    Its calls raise EngineError while there is none.
    """

    name = "torch"
    elsewhere = True

    def __init__(self, folder: Path, settings: EngineSettings = SERVING) -> None:
        """From a Hugging Face folder. Raises CheckpointError, and ConfigError, as `TorchEngine.load`."""
        with ThreadPoolExecutor(1) as beside:
            reading = beside.submit(TextEncoder.load, folder)
            self._keeper = _Keeper(folder, settings)
            self._end = weakref.finalize(self, self._keeper.close)
            encoder = reading.result()
        super().__init__(encoder, compresses=self._keeper.about.compresses)
        self.model_version = self._keeper.about.model_version

    def close(self) -> None:
        """Ends the process."""
        self._end()

    @property
    def cache_stats(self) -> CacheStats:
        """What the cache of trunks and stems had done when it was last heard of."""
        return self._keeper.stats

    def score(self, trees: Sequence[TokenTree]) -> list[LeafScores]:
        """See `TorchEngine.score`."""
        return to_scores(self._keeper.ask(_work, "score", (from_trees(trees),)))

    def embed(self, texts: Sequence[str], salt: str = "") -> npt.NDArray[np.float32]:
        """See `TorchEngine.embed`."""
        return cast(npt.NDArray[np.float32], self._keeper.ask(_work, "embed", (list(texts), salt)))

    def forget(self) -> None:
        """Forgets what was computed of anybody, and texts as tokens. A process that has ended remembers nothing."""
        self.forget_texts()
        with suppress(EngineError):
            self._keeper.ask(_care, "forget", ())

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names that a tree may give to its nodes: those of the ranker, and those added since."""
        return tuple(sorted({*self._keeper.about.adapters, *self._keeper.adapters}))

    def add_adapter(self, name: str, folder: Path) -> None:
        """See `TorchEngine.add_adapter`."""
        self._keeper.ask(_care, "add_adapter", (name, folder))
        self._keeper.adapters[name] = folder

    def remove_adapter(self, name: str) -> None:
        """See `TorchEngine.remove_adapter`."""
        self._keeper.ask(_care, "remove_adapter", (name,))
        self._keeper.adapters.pop(name, None)


def _work(worker: _Worker) -> _Line:
    return worker.work


def _care(worker: _Worker) -> _Line:
    return worker.care
