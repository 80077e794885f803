"""Surfaces that change while they are served: files that are dropped in, changed or taken away, and PUT over HTTP.

The adapters that they name change with them, and when their own files do.

Whatever is wrong is refused and told, and what was served before goes on. Every version that was online is kept in the
folder's `.history`, so that a surface can go back to it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, NamedTuple

from fastapi import Depends, Request

from prompts.errors import ConfigError, PrismrankError, SpecError, UnknownError
from prompts.suggest import suggest
from serve.served import ServedSurface
from serve.services import Refuse, Services
from surfaces.registry import Registry, read_file, surface_files
from surfaces.spec import SurfaceSpec
from surfaces.spec_file import SpecFile, read_spec, resolved
from surfaces.yaml_reader import SIZE_CAP

logger = logging.getLogger(__name__)

EVERY_S = 1.0
"""How often the folder is looked at."""
FILES_CAP = 4_096
KEPT = 50
"""Versions of a surface that are kept."""
HISTORY = ".history"
NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class Version(NamedTuple):
    """A version of a surface that was online, and since when (seconds since 1970)."""

    version: str
    since: float
    text: str


class Live:
    """The surfaces of a server: the shipped ones, and those of a folder on top of them."""

    def __init__(self, services: Services, folder: Path | None = None) -> None:
        """`folder` is where the services' own surfaces came from. Without one, changes live in memory."""
        self.services, self.folder = services, folder
        self.problems: dict[str, str] = {}
        self._base = Registry.shipped()
        self._files = {Path(file.document.where): file for file in services.registry.files() if self._is_here(file)}
        self._versions: dict[str, list[Version]] = {}
        self._state: object = None
        self._again = False
        self._lock = threading.RLock()
        self._note(services.surface_names())

    def _is_here(self, file: SpecFile) -> bool:
        return self.folder is not None and Path(file.document.where).parent == self.folder

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

        What is served is worked out from the folder as a whole. A file that is wrong is told in `problems`, by its
        name, and in the log; what it declared before goes on.
        """
        with self._lock:
            if self.folder is None or (state := self._found(self.folder)) == self._state:
                return []
            told, self.problems = self.problems, {}
            chosen = self._chosen(self._read(surface_files(self.folder)))
            registry = self.services.registry
            for file in self._files.values():
                if not any(_same_name(file, other) for other in chosen.values()):
                    registry = self._without(registry, file)
            registry, self._files = self._with(registry, chosen), chosen
            changed = self._become(registry, self._refuse)
            self._state = None if self._again else state
            for name, problem in self.problems.items():
                if told.get(name) != problem:
                    logger.error("refused, what was served before goes on: %s", problem)
            return changed

    def _found(self, folder: Path) -> object:
        """What changes when a file below the folder does, or one of an adapter."""
        adapters = self.services.adapters.folder
        return _state(folder), None if adapters is None else _state(adapters)

    def _read(self, paths: list[Path]) -> dict[Path, SpecFile]:
        """The files as they are now; one that cannot be read stands as it was served."""
        found: dict[Path, SpecFile] = {}
        self._again = False
        for path in paths:
            try:
                found[path] = read_file(path)
            except PrismrankError as error:
                self._tell(path, error)
                if path in self._files:
                    found[path] = self._files[path]
        return found

    def _chosen(self, found: dict[Path, SpecFile]) -> dict[Path, SpecFile]:
        """One file a name: of twins the one that is served already, else the first."""
        new = {path: path not in self._files or not _same_name(self._files[path], file) for path, file in found.items()}
        chosen: dict[Path, SpecFile] = {}
        for path in sorted(found, key=lambda path: new[path]):
            file = found[path]
            twin = next((other for other, known in chosen.items() if _same_name(known, file)), None)
            if twin is None:
                chosen[path] = file
            else:
                place = file.document.at((), key=True)
                self._tell(path, SpecError(f"{place}: '{file.name}' is also declared in {twin.name}; rename one"))
        return chosen

    def _with(self, registry: Registry, chosen: dict[Path, SpecFile]) -> Registry:
        """The registry with the files in it, trunks first; one that does not fit leaves what was there."""
        for path, file in sorted(chosen.items(), key=lambda pair: isinstance(pair[1].spec, SurfaceSpec)):
            try:
                registry = registry.plus(file)
            except SpecError as error:
                self._tell(path, error)
        return registry

    def _without(self, registry: Registry, file: SpecFile) -> Registry:
        try:
            return registry.without(file, self._base)
        except SpecError as error:  # a trunk that surfaces still name
            self._tell(Path(file.document.where), error)
            return registry

    def _refuse(self, name: str, error: PrismrankError) -> None:
        """A surface cannot be made ready: told by its file's name, or its own."""
        paths = (path for path, file in self._files.items() if file.name == name)
        self._tell(next(paths, Path(f"{name}.yaml")), error)

    def _tell(self, path: Path, error: PrismrankError) -> None:
        """Notes a problem, without the way to the folder, which is nobody's business but this machine's."""
        self.problems[path.name] = str(error).replace(f"{self.folder}{os.sep}", "")
        self._again = self._again or not isinstance(error, SpecError | ConfigError)

    def put(self, name: str, text: str, version: str | None = None) -> ServedSurface:
        """Brings a surface online, in place of one of the same name; with a folder, as its file NAME.yaml.

        With `version`, only if that is the version which comes of it. Raises SpecError or ConfigError, and then
        everything stays as it was.
        """
        with self._lock:
            self.scan()
            file = read_spec(text, f"{name}.yaml")
            if not isinstance(file.spec, SurfaceSpec):
                raise SpecError(f"{name}.yaml:1:1: a surface file begins with 'surface: NAME'")
            if file.name != name:
                place = file.document.at(("surface",))
                raise SpecError(f"{place}: surface: the file declares '{file.name}', but it is put as '{name[:80]}'")
            registry = self.services.registry.plus(file)
            if version is not None and registry.declared(name).version != version:
                raise SpecError(f"'{name}' cannot be {version} again: its trunk is another now; bring that back first")
            self.services.adapters.load(registry.declared(name))
            with self._written(file):
                self._become(registry)
            return self.services.surface(name)

    def remove(self, name: str) -> None:
        """Takes a surface offline, and its file away. A shipped one comes back under its name, where it can be served.

        Raises UnknownError for a surface that there is not, SpecError for one that is shipped and unchanged.
        """
        with self._lock:
            self.scan()
            file = self.services.registry.file(name)
            if name in self._base.names() and file == self._base.file(name):
                raise SpecError(f"'{name}' comes with the package; put another surface in its place instead")
            try:
                self._become(self.services.registry.without(file, self._base))
            except (SpecError, ConfigError):  # the shipped one of that name cannot be served here
                self._become(self.services.registry.without(file, Registry()))
            for path in [path for path, known in self._files.items() if _same_name(known, file)]:
                path.unlink(missing_ok=True)
                del self._files[path]

    def versions(self, name: str) -> list[Version]:
        """The versions of a surface that were online, the latest first. Raises UnknownError."""
        with self._lock:
            found = {one.version: one for one in [*self._kept(name), *self._versions.get(name, [])]}
        if not found:
            raise UnknownError(f"no surface is called '{name[:80]}'{suggest(name, self.services.surface_names())}")
        return sorted(found.values(), key=lambda one: -one.since)

    def roll_back(self, name: str, version: str) -> ServedSurface:
        """Brings an earlier version online again. Raises UnknownError for one that is not kept; see `put`."""
        found = {one.version: one for one in self.versions(name)}
        if version not in found:
            raise UnknownError(f"'{name[:80]}' has no version '{version[:80]}'{suggest(version, found)}")
        return self.put(name, found[version].text, version)

    def _become(self, registry: Registry, refuse: Refuse | None = None) -> list[str]:
        gone = set(self.services.registry.names()) - set(registry.names())
        changed = self.services.become(registry, refuse=refuse)
        self._note(changed)
        return [*changed, *sorted(gone)]

    def _note(self, names: list[str]) -> None:
        """Remembers the versions that are online now; one whose text alone would be too long for a file is not kept."""
        for name in names:
            declared, text = self.services.registry.declared(name), resolved(self.services.registry.file(name))
            if len(text) > SIZE_CAP:
                continue
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
            with _replacing(folder / f"{version.version}.yaml", version.text):
                pass
            for old in sorted(folder.glob("*.yaml"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
                old.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("the version %s of '%s' is kept in memory only: %s", version.version, name, error)

    def _kept(self, name: str) -> list[Version]:
        """The versions in the folder's history."""
        if self.folder is None or not NAME.fullmatch(name):
            return []
        paths = Path(self.folder, HISTORY, name).glob("*.yaml")
        return [Version(path.stem, path.stat().st_mtime, path.read_text(encoding="utf-8")) for path in paths]

    @contextmanager
    def _written(self, file: SpecFile) -> Iterator[None]:
        """Puts the surface's file into the folder, if there is one and what happens inside succeeds.

        Raises ConfigError when the folder takes no file, SpecError when a file of that name declares something else.
        """
        if self.folder is None:
            yield
            return
        known = [path for path, one in self._files.items() if _same_name(one, file)]
        path = known[0] if known else self.folder / f"{file.name}.yaml"
        if not known and path.exists():
            raise SpecError(f"{path.name}: the folder has this file, and it declares something else; rename it first")
        try:
            with _replacing(path, file.text):
                yield
        except OSError as error:
            raise ConfigError(f"{path.name} cannot be written: {error.strerror}; the surface stays as it was") from None
        self._files[path] = file


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


@contextmanager
def _replacing(path: Path, text: str) -> Iterator[None]:
    """Writes the file beside its place first, and moves it there, whole, when what happens inside succeeds."""
    with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".put-", delete=False) as scratch:
        scratch.write(text)
    try:
        os.chmod(scratch.name, 0o644)
        yield
        os.replace(scratch.name, path)
    finally:
        Path(scratch.name).unlink(missing_ok=True)


async def _current(request: Request) -> Live:  # a plain function would be run in a thread
    live: Live = request.app.state.live
    return live


CurrentLive = Annotated[Live, Depends(_current)]
"""A route's parameter of this type is given the application's living surfaces."""
