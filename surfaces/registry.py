"""The surfaces and trunks that are known, by name."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Self, TypeVar, cast

from prompts.errors import SpecError, UnknownError
from prompts.suggest import suggest
from prompts.verbalize import TrunkForm
from surfaces.included import Folder
from surfaces.spec import SurfaceSpec, TrunkSpec
from surfaces.spec_file import SpecFile, read_spec
from surfaces.yaml_reader import SIZE_CAP

T = TypeVar("T")


class Declared(NamedTuple):
    """A surface with its trunk; the version changes with either. `text` is the file's, `where` its place."""

    spec: SurfaceSpec
    form: TrunkForm
    version: str
    text: str
    where: str


@dataclass(frozen=True, slots=True)
class _Known:
    """One state of the registry; a change makes another."""

    surfaces: Mapping[str, SpecFile]
    trunks: Mapping[str, SpecFile]

    def plus(self, added: Sequence[SpecFile]) -> _Known:
        surfaces, trunks = dict(self.surfaces), dict(self.trunks)
        for file in added:
            (surfaces if isinstance(file.spec, SurfaceSpec) else trunks)[file.name] = file
        return _Known(surfaces, trunks).checked()

    def without(self, file: SpecFile) -> _Known:
        surfaces, trunks = dict(self.surfaces), dict(self.trunks)
        (surfaces if isinstance(file.spec, SurfaceSpec) else trunks).pop(file.name, None)
        return _Known(surfaces, trunks).checked()

    def checked(self) -> _Known:
        """Itself. Raises SpecError for a surface whose trunk is unknown."""
        for file in self.surfaces.values():
            trunk = cast("SurfaceSpec", file.spec).trunk
            if trunk not in self.trunks:
                why = f"no trunk is called '{trunk}'{suggest(trunk, self.trunks)}"
                raise SpecError(f"{file.document.at(('trunk',))}: trunk: {why}")
        return self


class Registry:
    """Specs by name. Reading is safe beside adding."""

    def __init__(self, added: Sequence[SpecFile] = ()) -> None:
        """Raises SpecError for a surface whose trunk is unknown."""
        self._known = _Known({}, {}).plus(added)
        self._lock = Lock()

    @classmethod
    def shipped(cls) -> Self:
        """The surfaces that come with the package."""
        return cls.load([shipped_folder()])

    @classmethod
    def load(cls, folders: Sequence[Path]) -> Self:
        """All *.yaml of the folders; a name in a later folder replaces the one in an earlier.

        Raises SpecError for a folder that does not exist, a file that is wrong, a name that one folder has twice, or a
        surface whose trunk is unknown.
        """
        found: dict[tuple[type, str], SpecFile] = {}
        for folder in folders:
            found.update(_read_folder(Path(folder)))
        return cls(list(found.values()))

    def add(self, text: str, where: str) -> SurfaceSpec | TrunkSpec:
        """Takes in a spec given as text; one of the same name is replaced. Raises SpecError and changes nothing."""
        file = read_spec(text, where)
        with self._lock:
            self._known = self._known.plus([file])
        return file.spec

    def plus(self, *added: SpecFile) -> Registry:
        """Another registry, with these files in place of those of the same name. Raises SpecError."""
        return self._with(self._known.plus(added))

    def without(self, file: SpecFile, base: Registry) -> Registry:
        """Another registry, without that file; what `base` has of its name comes back. Raises SpecError."""
        known, name = base._known, file.name
        before = (known.surfaces if isinstance(file.spec, SurfaceSpec) else known.trunks).get(name)
        return self.plus(before) if before else self._with(self._known.without(file))

    def _with(self, known: _Known) -> Registry:
        made = Registry()
        made._known = known
        return made

    def files(self) -> list[SpecFile]:
        """Every file, trunks first."""
        return [*self._known.trunks.values(), *self._known.surfaces.values()]

    def names(self) -> list[str]:
        """Names of surfaces, sorted."""
        return sorted(self._known.surfaces)

    def file(self, name: str) -> SpecFile:
        """A surface's file. Raises UnknownError that names what there is."""
        return _find(self._known.surfaces, name, "surface")

    def surface(self, name: str) -> SurfaceSpec:
        """A surface. Raises UnknownError that names what there is."""
        return cast("SurfaceSpec", self.file(name).spec)

    def trunk(self, name: str) -> TrunkForm:
        """How a trunk puts members into words. Raises UnknownError that names what there is."""
        return self._trunk(name).form

    def declared(self, name: str) -> Declared:
        """A surface with its trunk, its version and its text. Raises UnknownError that names what there is."""
        file = self.file(name)
        spec = cast("SurfaceSpec", file.spec)
        trunk = self._trunk(spec.trunk)
        version = hashlib.sha256(f"{spec.version} {trunk.version}".encode()).hexdigest()[:12]
        return Declared(spec, trunk.form, version, file.text, file.document.where)

    def _trunk(self, name: str) -> TrunkSpec:
        return cast("TrunkSpec", _find(self._known.trunks, name, "trunk").spec)


def shipped_folder() -> Path:
    """The folder of surface files that comes with the package."""
    return Path(str(files("surfaces"))) / "plugins"


def surface_files(folder: Path) -> list[Path]:
    """The folder's *.yaml, sorted; hidden ones, such as an editor's, are left out."""
    return sorted(path for path in folder.glob("*.yaml") if not path.name.startswith("."))


def read_file(path: Path) -> SpecFile:
    """The spec of a file. Raises SpecError, also for a file that cannot be read."""
    try:
        with open(path, encoding="utf-8", opener=_plain) as file:
            text = file.read(SIZE_CAP + 1)
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}:1:1: no UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    return read_spec(text, str(path), Folder(path.parent))


def _plain(path: str, flags: int) -> int:
    """Opens a plain file; a pipe would keep its reader waiting for ever."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IsADirectoryError(errno.EISDIR, "Is a directory") if Path(path).is_dir() else OSError(0, "no plain file")
    return descriptor


def _read_folder(folder: Path) -> dict[tuple[type, str], SpecFile]:
    if not folder.is_dir():
        raise SpecError(f"{folder}: no such folder; give one that holds *.yaml surface files")
    found: dict[tuple[type, str], SpecFile] = {}
    for path in surface_files(folder):
        file = read_file(path)
        key = (type(file.spec), file.name)
        if key in found:
            place = file.document.at(("surface" if isinstance(file.spec, SurfaceSpec) else "trunk",))
            raise SpecError(f"{place}: '{key[1]}' is also declared in {found[key].document.where}; rename one")
        found[key] = file
    return found


def _find(known: Mapping[str, T], name: str, kind: str) -> T:
    if name not in known:
        raise UnknownError(f"no {kind} is called '{name[:80]}'{suggest(name, known)}")
    return known[name]
