"""What several commands take, and how they open it. Heavy modules are imported when a command runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

if TYPE_CHECKING:
    from foundation.engine.base import Engine
    from surfaces.calibrated import Calibrations
    from surfaces.ledger.store import Ledger
    from surfaces.registry import Registry

LedgerUrl = Annotated[
    str,
    typer.Option(
        "--ledger",
        metavar="URL",
        envvar="PRISMRANK_LEDGER",
        help="Where members, items and events are: sqlite:///FILE or postgresql://USER@HOST/DATABASE.",
    ),
]
ModelFolder = Annotated[
    str, typer.Option("--model", metavar="DIR", help="A model folder, or the name of a shipped one.")
]
SurfaceFolder = Annotated[
    Path | None,
    typer.Option("--surfaces", metavar="DIR", help="Your surface files; they come on top of the shipped ones."),
]
AdapterFolder = Annotated[
    Path | None,
    typer.Option(
        "--adapters", metavar="DIR", help="A folder of adapters: `adapter: NAME` in a surface file is DIR/NAME."
    ),
]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Write the figures to this file, too.")]

SHIPPED_MODEL = "nano"


def open_ledger(url: str) -> Ledger:
    """The ledger at a URL, which must be there. Raises LedgerError."""
    from surfaces.ledger.store import Ledger

    return Ledger.open(url, create=False)


def open_registry(folder: Path | None) -> Registry:
    """The shipped surfaces, and those of a folder. Raises SpecError."""
    from surfaces.registry import Registry, shipped_folder

    return Registry.load([shipped_folder(), *([folder] if folder else [])])


def model_folder(model: str) -> Path:
    """A model's folder. Raises CheckpointError when it is neither a folder nor the name of a shipped one."""
    from foundation.model import shipped

    return Path(model) if Path(model).is_dir() else shipped(model)


def open_engine(model: str, *, apart: bool = False, **changes: Any) -> Engine:
    """The embedded engine over a model; `changes` are to how it comes (see `EngineSettings`).

    `apart`: it computes in a process of its own, where the system can start one so. Raises CheckpointError, and
    ConfigError for a precision that is not to be had here.
    """
    from foundation.engine.process import ProcessEngine
    from foundation.engine.torch import SERVING, TorchEngine

    begin = ProcessEngine if apart and sys.platform != "win32" else TorchEngine.load
    return begin(model_folder(model), replace(SERVING, **changes))


def open_calibrations(model: str) -> Calibrations | None:
    """What was fitted for a model's weights, which are only read where its folder has any. Raises CheckpointError."""
    from surfaces.calibrated import FILE, Calibrations

    folder = model_folder(model)
    return Calibrations.load(folder) if os.path.lexists(folder / FILE) else None


@contextmanager
def steps(first: str) -> Iterator[Callable[[str], None]]:
    """Shows what is going on, on stderr; gives a function that names the next step."""
    with Console(stderr=True).status(f"{first} …") as status:
        yield lambda step: status.update(f"{step} …")


def progress_bar(console: Console) -> Progress:
    """A bar that leaves no trace, and is not drawn where nobody watches."""
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def stepping(progress: Progress) -> Callable[[str, int, int], None]:
    """One bar a step: it says what is going on, and how much of it is done."""
    bars: dict[str, int] = {}

    def step(what: str, done: int, total: int) -> None:
        if what not in bars:
            for bar in bars.values():
                progress.update(progress.task_ids[bar], visible=False)
            bars[what] = len(bars)
            progress.add_task(escape(what), total=total)
        progress.update(progress.task_ids[bars[what]], completed=done, total=total, visible=True)

    return step


def check_writable(*files: Path | None, folder: Path | None = None) -> None:
    """Raises ConfigError before the work where what comes of it could not be written."""
    from prompts.errors import ConfigError

    if folder and folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: it is a file; --out names a folder")
    for path in filter(None, files):
        if path.is_dir():
            raise ConfigError(f"{path}: it is a folder; name a file in it")
        if not path.absolute().parent.is_dir():
            raise ConfigError(f"{path}: there is no folder {path.absolute().parent}; make it first")
