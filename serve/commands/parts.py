"""What several commands take, and how they open it. Heavy modules are imported when a command runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
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


def open_engine(model: str, **changes: Any) -> Engine:
    """The embedded engine over a model; `changes` are to how it comes (see `EngineSettings`).

    Raises CheckpointError, and ConfigError for a precision that is not to be had here.
    """
    from foundation.engine.torch import SERVING, TorchEngine

    return TorchEngine.load(model_folder(model), replace(SERVING, **changes))


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
