"""A server in a process of its own, so that its memory, its processor time and its signals are its own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from prompts.errors import ConfigError
from serve.bench.wire import NoAnswerError, Pool, encoded

TOLD = re.compile(r"prismrank serves at (http://\S+);")
START_S = 600.0
"""Sources that learn for minutes do so once; then they are in the cache folder."""
STOP_S = 30.0
LOOK_S = 0.05


class Files(NamedTuple):
    """File descriptors of a process: of files and the like, and of connections."""

    files: int
    sockets: int


class Server:
    """`prismrank ARGUMENTS`, what it writes going into a file."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self.log, self.url = log, ""
        with log.open("wb") as out:
            command = [sys.executable, "-m", "serve.cli", *arguments]
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=out)  # noqa: S603 - our own
        self._pool: Pool | None = None

    @property
    def pool(self) -> Pool:
        """Connections to it."""
        if self._pool is None:
            self._pool = Pool(self.url)
        return self._pool

    async def until_it_answers(self, path: str = "/readyz") -> None:
        """Waits until `path` is answered with 200. Raises ConfigError where it ends, or takes too long."""
        loop = asyncio.get_running_loop()
        end = loop.time() + START_S
        while not await self._answers(path):
            if self.process.poll() is not None or loop.time() > end:
                raise ConfigError(f"the server did not start: {self._last_words()}")
            await asyncio.sleep(LOOK_S)

    async def _answers(self, path: str) -> bool:
        if not self.url and (told := TOLD.search(self.log.read_text("utf-8", "replace"))):
            self.url = told[1]
        try:
            return bool(self.url) and (await self.pool.ask(encoded("GET", path))).status == 200
        except NoAnswerError:
            return False

    def _last_words(self) -> str:
        return (self.log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1]

    async def metrics(self) -> str:
        """What `/metrics` says. Raises NoAnswerError."""
        return (await self.pool.ask(encoded("GET", "/metrics"))).body.decode()

    def children(self) -> list[int]:
        """The processes that it has started: that of its engine. Raises ConfigError on a system that does not tell."""
        if not Path("/proc/self/stat").exists():
            raise ConfigError("processes are read from /proc, which Linux has")
        found = list[int]()
        for each in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has just ended
                if int(each.read_text("utf-8", "replace").rpartition(")")[2].split()[1]) == self.process.pid:
                    found.append(int(each.parent.name))
        return found

    def memory_mb(self) -> float:
        """Megabytes of its memory that are resident, and of its children's."""
        pages = 0
        for number in (self.process.pid, *self.children()):
            with suppress(OSError):  # it has just ended
                pages += int(Path(f"/proc/{number}/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def files_open(self) -> Files:
        """What file descriptors it and its children hold."""
        told = Counter[bool]()
        for number in (self.process.pid, *self.children()):
            for each in Path(f"/proc/{number}/fd").iterdir():
                with suppress(OSError):  # closed meanwhile
                    told[os.readlink(each).startswith("socket:")] += 1
        return Files(told[False], told[True])

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit status, once it has ended; it is killed where it does not end."""
        try:
            return await asyncio.to_thread(self.process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return await asyncio.to_thread(self.process.wait)

    async def stop(self) -> None:
        """Ends it, if it runs."""
        if self._pool:
            self._pool.close()
        if self.process.poll() is None:
            self.send(signal.SIGTERM)
        await self.ended()
