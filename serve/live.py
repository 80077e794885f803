"""Surfaces that change while they are served: files that are dropped in, changed or taken away, and PUT over HTTP.

Whatever is wrong is refused and told, and what was served before goes on. Every version that was online is kept in the
folder's `.history`, so that a surface can go back to it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, NamedTuple

from fastapi import Depends, Request

from prompts.errors import PrismrankError, SpecError, UnknownError
from prompts.suggest import suggest
from serve.served import ServedSurface
from serve.services import Services
from surfaces.registry import Registry, read_file
from surfaces.spec import SurfaceSpec
from surfaces.spec_file import SpecFile, read_spec, resolved

logger = logging.getLogger(__name__)

EVERY_S = 1.0
"""How often the folder is looked at."""
FILES_CAP = 4_096
KEPT = 50
"""Versions of a surface that are kept."""
HISTORY = ".history"


class Version(NamedTuple):
    """A version of a surface that was online, and since when (seconds since 1970)."""

    version: str
    since: float
    text: str


class Live:
    """The surfaces of a server: the shipped ones, and those of a folder on top of them."""

    def __init__(self, services: Services, folder: Path | None = None) -> None:
        """The folder's files are those that the services were opened with. Without one, changes live in memory."""
        self.services, self.folder = services, folder
        self.problems: dict[str, str] = {}
        self._base = Registry.shipped()
        self._files: dict[Path, SpecFile] = {}
        self._versions: dict[str, list[Version]] = {}
        self._state: object = None
        self._lock = threading.RLock()
        if folder is not None:
            self._files = {path: read_file(path) for path in sorted(folder.glob("*.yaml"))}
            self._state = _state(folder)
        self._note(services.surface_names())

    @asynccontextmanager
    async def running(self, every_s: float = EVERY_S) -> AsyncIterator[None]:
        """Looks at the folder now and then, in a thread, while inside."""
        stop = threading.Event()
        thread = threading.Thread(target=self._watch, args=(stop, every_s), name="live", daemon=True)
        if self.folder is not None:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            if thread.is_alive():
                await asyncio.to_thread(thread.join)

    def _watch(self, stop: threading.Event, every_s: float) -> None:
        while not stop.wait(every_s):
            try:
                self.scan()
            except Exception:  # the server must outlive whatever happens to a folder
                logger.exception("the folder of surfaces could not be looked at")

    def scan(self) -> list[str]:
        """Takes in what changed in the folder; returns the surfaces that are new, changed or gone.

        A file that is wrong is told in `problems`, by its name, and in the log.
        """
        with self._lock:
            if self.folder is None or (state := _state(self.folder)) == self._state:
                return []
            self._state, self.problems = state, {}
            return [*self._take_in(sorted(self.folder.glob("*.yaml"))), *self._take_away()]

    def _take_in(self, paths: list[Path]) -> list[str]:
        """Files one by one; those that failed again at the end, since a surface may name a trunk of a later file."""
        changed: list[str] = []
        for path in [*paths, *paths]:
            try:
                changed += self._take_file(path)
                self.problems.pop(path.name, None)
            except PrismrankError as error:
                if self.problems.get(path.name) != (told := self._told(error)):
                    logger.error("refused, the former version goes on: %s", error)
                self.problems[path.name] = told
        return changed

    def _take_file(self, path: Path) -> list[str]:
        file, before = read_file(path), self._files.get(path)
        if before and before.spec == file.spec:
            return []
        twin = next((other for other, known in self._files.items() if other != path and _same_name(known, file)), None)
        if twin is not None and twin.exists():
            raise SpecError(f"{file.document.at((), key=True)}: '{file.name}' is also declared in {twin}; rename one")
        registry = self.services.registry
        if before and not _same_name(before, file):
            registry = registry.without(before, self._base)
        changed = self._become(registry.plus(file))
        self._files[path] = file
        return changed

    def _take_away(self) -> list[str]:
        """Forgets files that are gone; a shipped surface of the same name comes back."""
        changed: list[str] = []
        for path in [path for path in self._files if not path.exists()]:
            try:
                changed += self._become(self.services.registry.without(self._files[path], self._base))
                del self._files[path]
            except PrismrankError as error:
                self.problems[path.name] = self._told(error)
        return changed

    def _told(self, error: PrismrankError) -> str:
        """The error without the way to the folder, which is nobody's business but this machine's."""
        return str(error).replace(f"{self.folder}{os.sep}", "")

    def put(self, name: str, text: str) -> ServedSurface:
        """Brings a surface online, in place of one of the same name; with a folder, as its file NAME.yaml.

        Raises SpecError or ConfigError, and then everything stays as it was.
        """
        with self._lock:
            file = read_spec(text, f"{name}.yaml")
            if not isinstance(file.spec, SurfaceSpec):
                raise SpecError(f"{name}.yaml:1:1: a surface file begins with 'surface: NAME'")
            if file.name != name:
                place = file.document.at(("surface",))
                raise SpecError(f"{place}: surface: the file declares '{file.name}', but it is put as '{name[:80]}'")
            self._become(self.services.registry.plus(file))
            self._write(file)
            return self.services.surface(name)

    def remove(self, name: str) -> None:
        """Takes a surface offline, and its file away. A shipped one comes back under its name.

        Raises UnknownError for a surface that there is not, SpecError for one that is shipped and unchanged.
        """
        with self._lock:
            file = self.services.registry.file(name)
            if name in self._base.names() and file == self._base.file(name):
                raise SpecError(f"'{name}' comes with the package; put another surface in its place instead")
            self._become(self.services.registry.without(file, self._base))
            for path in [path for path, known in self._files.items() if _same_name(known, file)]:
                path.unlink(missing_ok=True)
                del self._files[path]
            self._state = _state(self.folder) if self.folder else None

    def versions(self, name: str) -> list[Version]:
        """The versions of a surface that were online, the latest first. Raises UnknownError."""
        with self._lock:
            found = {one.version: one for one in [*self._kept(name), *self._versions.get(name, [])]}
        if not found:
            raise UnknownError(f"no surface is called '{name[:80]}'{suggest(name, self.services.surface_names())}")
        return sorted(found.values(), key=lambda one: -one.since)

    def roll_back(self, name: str, version: str) -> ServedSurface:
        """Brings an earlier version online again. Raises UnknownError for one that is not kept, SpecError."""
        found = {one.version: one for one in self.versions(name)}
        if version not in found:
            raise UnknownError(f"'{name[:80]}' has no version '{version[:80]}'{suggest(version, found)}")
        return self.put(name, found[version].text)

    def _become(self, registry: Registry) -> list[str]:
        gone = set(self.services.registry.names()) - set(registry.names())
        changed = self.services.become(registry)
        self._note(changed)
        return [*changed, *sorted(gone)]

    def _note(self, names: list[str]) -> None:
        """Remembers the versions that are online now."""
        for name in names:
            declared = self.services.registry.declared(name)
            text = resolved(self.services.registry.file(name))
            version = Version(declared.version, datetime.now(UTC).timestamp(), text)
            kept = [one for one in self._versions.get(name, []) if one.version != version.version]
            self._versions[name] = [*kept, version][-KEPT:]
            shipped = name in self._base.names() and self._base.surface(name) == declared.spec
            if self.folder is not None and not shipped:
                self._keep(name, version)

    def _keep(self, name: str, version: Version) -> None:
        folder = Path(str(self.folder), HISTORY, name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder / f"{version.version}.yaml", version.text)
            for old in sorted(folder.glob("*.yaml"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
                old.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("the version %s of '%s' is kept in memory only: %s", version.version, name, error)

    def _kept(self, name: str) -> list[Version]:
        """The versions in the folder's history; a name that is no surface's has none."""
        known = {*self._versions, *self.services.surface_names()}
        if self.folder is None or name not in known:
            return []
        paths = Path(self.folder, HISTORY, name).glob("*.yaml")
        return [Version(path.stem, path.stat().st_mtime, path.read_text(encoding="utf-8")) for path in paths]

    def _write(self, file: SpecFile) -> None:
        """Puts the surface's file into the folder, where there is one."""
        if self.folder is None:
            return
        path = next((path for path, known in self._files.items() if _same_name(known, file)), None)
        path = path or self.folder / f"{file.name}.yaml"
        _write(path, file.text)
        self._files[path] = file
        self._state = _state(self.folder)


def _same_name(one: SpecFile, other: SpecFile) -> bool:
    return (type(one.spec), one.name) == (type(other.spec), other.name)


def _state(folder: Path) -> object:
    """What changes when a file below the folder does; the history apart."""
    found: list[tuple[str, str, int, int, int]] = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and len(found) < FILES_CAP:
                with_links = os.stat(os.path.join(root, name), follow_symlinks=False)
                found.append((root, name, with_links.st_mtime_ns, with_links.st_size, with_links.st_ino))
    return found


def _write(path: Path, text: str) -> None:
    """The whole file or nothing of it."""
    with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".put-", delete=False) as scratch:
        scratch.write(text)
    os.chmod(scratch.name, 0o644)
    os.replace(scratch.name, path)


def _current(request: Request) -> Live:
    live: Live = request.app.state.live
    return live


CurrentLive = Annotated[Live, Depends(_current)]
"""A route's parameter of this type is given the application's living surfaces."""
