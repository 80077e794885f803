"""The adapters that surface files name: folders in one folder, by name, loaded into the engine that ranks.

An adapter is loaded when a surface that names it is made ready, and again when its files have changed. It stays loaded
from then on, for requests that are under way.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from threading import Lock
from typing import Protocol, runtime_checkable

from foundation.adapters import CONFIG_FILE, WEIGHTS_FILE
from foundation.engine.base import Engine
from prompts.errors import CheckpointError, ConfigError, SpecError
from prompts.suggest import suggest
from surfaces.registry import Declared
from surfaces.yaml_reader import read_yaml


@runtime_checkable
class Adaptable(Protocol):
    """An engine that takes adapters while it scores."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of those that are loaded."""
        ...

    def add_adapter(self, name: str, folder: Path) -> None:
        """Loads one, in place of another of its name. Raises CheckpointError and changes nothing."""
        ...


class Adapters:
    """An engine's adapters. Without a folder they are those that the engine has already."""

    def __init__(self, engine: Engine, folder: Path | None = None) -> None:
        """`folder` holds a folder for each adapter, as peft writes it. Raises ConfigError where it is none."""
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder; give one that holds a folder for each adapter")
        self.engine, self.folder = engine, folder
        self._loaded: dict[str, str] = {}
        self._lock = Lock()

    def load(self, declared: Declared) -> None:
        """Loads what the surface names, unless it is loaded as it is now.

        Raises SpecError, with the place in the surface's file, for an adapter that is not there or not this model's;
        what was loaded under its name stays.
        """
        name = declared.spec.adapter
        if name is None:
            return
        try:
            with self._lock:
                self._load(name)
        except (CheckpointError, ConfigError) as error:
            place = read_yaml(declared.text, declared.where).at(("adapter",))
            raise SpecError(f"{place}: adapter: {self._plain(str(error))}") from None

    def version(self, name: str) -> str:
        """Twelve hex digits of the files of an adapter that was loaded; empty for one that the engine had before."""
        return self._loaded.get(name, "")

    def _load(self, name: str) -> None:
        if not isinstance(self.engine, Adaptable):
            raise ConfigError(f"the engine '{self.engine.name}' takes no adapters")
        here = name in self.engine.adapters
        if self.folder is None:
            if not here:
                raise ConfigError(f"no adapter is called '{name}'; the folder that holds it is given with --adapters")
            return
        found = _version(self.folder / name)
        if found is None:
            names = [path.parent.name for path in self.folder.glob(f"*/{CONFIG_FILE}")]
            raise ConfigError(f"no adapter is called '{name}' in the folder of adapters{suggest(name, names)}")
        if not here or self._loaded.get(name) != found:
            self.engine.add_adapter(name, self.folder / name)
            self._loaded[name] = found

    def _plain(self, text: str) -> str:
        """Without the way to the folder, which is nobody's business but this machine's."""
        return text.replace(f"{self.folder}{os.sep}", "")


def _version(folder: Path) -> str | None:
    """Of an adapter's two files; None where they are not both there."""
    try:
        content = [(folder / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)]
    except OSError:
        return None
    return hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in content)).hexdigest()[:12]
