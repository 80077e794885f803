"""The models of a server: the one that serves, the one before it, and those that it may be told to serve.

A surface is made ready for one model, and a request ends with the model whose surface it began with. The former model
stays as it was, so that going back to it is instant; the one before that goes when its last request has its reply.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from foundation.engine.base import Engine
from foundation.model import shipped, shipped_names
from prompts.errors import CheckpointError, UnknownError
from prompts.suggest import suggest
from serve.batcher import Batcher
from serve.health import Health
from surfaces.adapters import Adapters
from surfaces.calibrated import Calibrations
from surfaces.leaves import Leaves
from surfaces.ledger.records import quoted
from surfaces.trunks import Trunks

logger = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LAST_S = 30.0
"""So long the requests of a model that goes may take."""


@runtime_checkable
class Closable(Protocol):
    """An engine that holds what should not wait to be let go."""

    def close(self) -> None:
        """Lets it go; nothing is asked any longer."""
        ...


class Opened(NamedTuple):
    """A model that was read, and what was calibrated for its weights."""

    engine: Engine
    calibrations: Calibrations | None


@dataclass(frozen=True)
class Shelf:
    """The models that may be served, by name: those of a folder, and those that come with the package.

    `open` reads a model's folder. It raises PrismrankError for one that is damaged or no model.
    """

    open: Callable[[Path], Opened]
    folder: Path | None = None

    def names(self) -> list[str]:
        """Every name, sorted."""
        own = self.folder.iterdir() if self.folder else ()
        return sorted({*shipped_names(), *(path.name for path in own if path.is_dir() and NAME.fullmatch(path.name))})

    def take(self, name: str) -> Opened:
        """The model of that name, read. Raises UnknownError that names what there is, CheckpointError as `open`."""
        if name not in self.names():
            raise UnknownError(f"no model is called {quoted(name)}{suggest(name, self.names())}")
        own = self.folder / name if self.folder else None
        try:
            return self.open(own if own and own.is_dir() else shipped(name))
        except CheckpointError as error:
            raise CheckpointError(self._plain(str(error))) from None

    def _plain(self, text: str) -> str:
        """Without the way to the folder, which is nobody's business but this machine's."""
        return text.replace(f"{self.folder}/", "") if self.folder else text


@dataclass(eq=False)
class ServedModel:
    """A model that ranks: its engine, the queue before it, and what belongs to its weights."""

    name: str
    engine: Engine
    batcher: Batcher
    adapters: Adapters
    calibrations: Calibrations | None = None
    trunks: Trunks = field(default_factory=Trunks)
    leaves: Leaves = field(default_factory=Leaves)
    health: Health = field(init=False)

    def __post_init__(self) -> None:
        self.health = Health(self.batcher, self.engine)
        self._stack = AsyncExitStack()
        self._users = 0
        self._free = asyncio.Event()

    @property
    def version(self) -> str:
        """The version of its weights."""
        return self.engine.model_version

    @contextmanager
    def used(self) -> Iterator[None]:
        """A request is under way with this model, on the event loop."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._free.set()

    async def start(self) -> None:
        """Takes work from now on."""
        self._stack.enter_context(self.batcher.running())

    async def warm_up(self) -> None:
        """Raises CheckpointError where it does not answer a tree of the usual size."""
        await self.health.warm_up()
        if not await self.health.ready():
            raise CheckpointError(f"the model '{self.name}' was read, but gives no sound answer; the log says why")

    async def stop(self, wait_s: float = LAST_S) -> None:
        """Ends when the last request has its reply, or after so many seconds; those that wait then are degraded."""
        try:
            async with asyncio.timeout(wait_s):
                while self._users:
                    self._free.clear()
                    await self._free.wait()
        except TimeoutError:
            logger.warning("%d requests of the model '%s' did not end in time", self._users, self.name)
        await self._stack.aclose()
        if isinstance(self.engine, Closable):
            await asyncio.to_thread(self.engine.close)
