"""The surfaces and trunks that are known, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Self, TypeVar

from prompts.errors import SpecError, UnknownError
from prompts.suggest import suggest
from prompts.verbalize import TrunkForm
from surfaces.spec import SurfaceSpec, TrunkSpec
from surfaces.spec_file import SpecFile, read_spec
from surfaces.yaml_reader import SIZE_CAP

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Known:
    """One state of the registry; a change makes another."""

    surfaces: Mapping[str, SurfaceSpec]
    trunks: Mapping[str, TrunkSpec]

    def plus(self, added: Sequence[SpecFile]) -> _Known:
        surfaces, trunks = dict(self.surfaces), dict(self.trunks)
        for file in added:
            if isinstance(file.spec, SurfaceSpec):
                surfaces[file.spec.surface] = file.spec
            else:
                trunks[file.spec.trunk] = file.spec
        for file in added:
            if isinstance(file.spec, SurfaceSpec) and file.spec.trunk not in trunks:
                why = f"no trunk is called '{file.spec.trunk}'{suggest(file.spec.trunk, trunks)}"
                raise SpecError(f"{file.document.at(('trunk',))}: trunk: {why}")
        return _Known(surfaces, trunks)


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

    def names(self) -> list[str]:
        """Names of surfaces, sorted."""
        return sorted(self._known.surfaces)

    def surface(self, name: str) -> SurfaceSpec:
        """A surface. Raises UnknownError that names what there is."""
        return _find(self._known.surfaces, name, "surface")

    def trunk(self, name: str) -> TrunkForm:
        """How a trunk puts members into words. Raises UnknownError that names what there is."""
        return _find(self._known.trunks, name, "trunk").form


def shipped_folder() -> Path:
    """The folder of surface files that comes with the package."""
    return Path(str(files("surfaces"))) / "plugins"


def read_file(path: Path) -> SpecFile:
    """The spec of a file. Raises SpecError, also for a file that cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(SIZE_CAP + 1)
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}:1:1: no UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    return read_spec(text, str(path))


def _read_folder(folder: Path) -> dict[tuple[type, str], SpecFile]:
    if not folder.is_dir():
        raise SpecError(f"{folder}: no such folder; give one that holds *.yaml surface files")
    found: dict[tuple[type, str], SpecFile] = {}
    for path in sorted(folder.glob("*.yaml")):
        file = read_file(path)
        key = (type(file.spec), _name(file.spec))
        if key in found:
            place = file.document.at(("surface" if isinstance(file.spec, SurfaceSpec) else "trunk",))
            raise SpecError(f"{place}: '{key[1]}' is also declared in {found[key].document.where}; rename one")
        found[key] = file
    return found


def _name(spec: SurfaceSpec | TrunkSpec) -> str:
    return spec.surface if isinstance(spec, SurfaceSpec) else spec.trunk


def _find(known: Mapping[str, T], name: str, kind: str) -> T:
    if name not in known:
        raise UnknownError(f"no {kind} is called '{name[:80]}'{suggest(name, known)}")
    return known[name]
