"""Texts that a surface file keeps in files beside it: `{file: job.j2}`.

Nothing outside the folder is ever opened. The path is taken apart and each part is opened below the one before, without
following links: what was checked is what is read, even while someone changes the folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prompts.errors import SpecError

SIZE_CAP = 65_536
"""Bytes of an included file."""
PARTS_CAP = 8


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder that a surface file lies in."""

    path: Path

    def read(self, name: object) -> str:
        """The text of a file in the folder, or in a folder below it. Raises SpecError that says what would be right."""
        *folders, file = _parts(name)
        shown = "/".join([*folders, file])
        try:
            with _below(self.path, folders) as place:
                return _text(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place))
        except SpecError as error:
            raise SpecError(f"'{shown}': {error}") from None
        except UnicodeDecodeError:
            raise SpecError(f"'{shown}': no UTF-8 text") from None
        except OSError as error:
            raise SpecError(f"'{shown}' cannot be read: {_reason(error)}") from None


def _parts(name: object) -> list[str]:
    """The path's parts. Raises SpecError for one that could lead out of the folder."""
    if not isinstance(name, str) or not name or len(name) > 255:
        raise SpecError("should be the name of a file beside the surface file, such as job.j2")
    if "\0" in name or "\\" in name or ":" in name or not name.isprintable():
        raise SpecError("a file's name may hold no ':', no backslash and no control character; write just job.j2")
    if name.startswith("/"):
        raise SpecError("an absolute path is not allowed; name a file beside the surface file, such as job.j2")
    parts = name.split("/")
    if any(part in {"", ".", ".."} or part.startswith("~") for part in parts) or len(parts) > PARTS_CAP:
        raise SpecError("the path may not leave the surface's folder; name a file beside it, such as job.j2")
    return parts


@contextmanager
def _below(root: Path, folders: list[str]) -> Iterator[int]:
    """A descriptor of the folder that is so far below `root`; no link on the way is followed."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    place = os.open(root, flags)
    try:
        for folder in folders:
            inner = os.open(folder, flags | os.O_NOFOLLOW, dir_fd=place)
            os.close(place)
            place = inner
        yield place
    finally:
        os.close(place)


def _text(descriptor: int) -> str:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SpecError("is no plain file")
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(SIZE_CAP + 1)
    if len(content) > SIZE_CAP:
        raise SpecError(f"is longer than {SIZE_CAP} bytes")
    return content.decode("utf-8").rstrip("\n")


def _reason(error: OSError) -> str:
    links = "a link, which is never followed"
    return links if error.strerror in {"Too many levels of symbolic links", "Not a directory"} else str(error.strerror)
