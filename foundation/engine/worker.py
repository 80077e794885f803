"""`python -m foundation.engine.worker WORK CARE`: the process behind a `ProcessEngine`.

WORK and CARE are file descriptors of sockets, the other ends of which its parent holds: it scores and embeds for the
one, and takes everything else from the other meanwhile. It ends when the parent does, and hears no signal that was
meant for the parent.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from foundation.engine.heap import collecting_seldom, share_arenas, trimming
from foundation.engine.message import Scores, Text, Trees, from_scores, receive, send, to_trees
from foundation.engine.torch import EngineSettings, TorchEngine

KEPT = 16_384
"""So many texts are known again."""


@lru_cache(maxsize=KEPT)
def _same(text: Text) -> Text:
    """The first of equal texts: each message brings its own, and what is kept of them is kept once."""
    return text


class Works:
    """An engine for calls from elsewhere."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine

    def score(self, trees: Trees) -> Scores:
        return from_scores(self._engine.score(to_trees(trees, _same)))

    def embed(self, texts: Sequence[str], salt: str) -> npt.NDArray[np.float32]:
        return self._engine.embed(texts, salt)


class Cares:
    """What an engine is asked beside its work."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine

    def add_adapter(self, name: str, folder: Path) -> None:
        self._engine.add_adapter(name, folder)

    def remove_adapter(self, name: str) -> None:
        self._engine.remove_adapter(name)

    def forget(self) -> None:
        _same.cache_clear()
        self._engine.forget()


def main(work: int, care: int) -> None:
    """Serves until the parent ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    share_arenas()
    working, caring = Connection(work), Connection(care)
    with suppress(EOFError, OSError):
        folder, settings = receive(caring)
        try:
            engine = _loaded(folder, settings)
        except Exception as error:
            send(caring, (False, _sendable(error), ()))
            return
        about = engine.model_version, engine.compresses, engine.adapters
        send(caring, (True, about, astuple(engine.cache_stats)))
        Thread(target=_serve, args=(caring, Cares(engine), engine), name="care", daemon=True).start()
        with collecting_seldom(), trimming():
            _serve(working, Works(engine), engine)


def _loaded(folder: Path, settings: EngineSettings) -> TorchEngine:
    if "OMP_NUM_THREADS" not in os.environ:  # one processor is for the parent
        torch.set_num_threads(max(1, torch.get_num_threads() - 1))
    return TorchEngine.load(folder, settings)


def _serve(connection: Connection, calls: Works | Cares, engine: TorchEngine) -> None:
    """Answers calls, one after the other, with the state of the cache beside what came of each."""
    with suppress(EOFError, OSError):  # the parent has ended
        while True:
            name, arguments = receive(connection)
            try:
                answer: tuple[bool, Any] = True, getattr(calls, name)(*arguments)
            except Exception as error:
                answer = False, _sendable(error)
            send(connection, (*answer, astuple(engine.cache_stats)))


def _sendable(error: Exception) -> Exception:
    """The error with where it came from; one that cannot be sent, as text."""
    error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
