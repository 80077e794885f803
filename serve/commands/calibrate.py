"""`prismrank calibrate`: probabilities that hold, for a surface and a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from serve.commands.parts import (
    SHIPPED_MODEL,
    AdapterFolder,
    LedgerUrl,
    ModelFolder,
    SurfaceFolder,
    model_folder,
    open_engine,
    open_ledger,
    open_registry,
    progress_bar,
)

if TYPE_CHECKING:
    from surfaces.calibrated import CalibratedSurface, HeadFigures


def calibrate(
    surface: Annotated[str, typer.Argument(help="A surface's name.")],
    ledger: LedgerUrl,
    model: ModelFolder = SHIPPED_MODEL,
    surfaces: SurfaceFolder = None,
    adapters: AdapterFolder = None,
    members: Annotated[int | None, typer.Option(min=2, help="Draw so many members; default: all.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write calibration.json there; default: the model's folder.")
    ] = None,
) -> None:
    """Fit what makes a surface's probabilities hold, and keep it in calibration.json beside the model.

    It is fitted on events before those that an evaluation tests on: the surface's own slates where the ledger has
    impressions, else what its sources bring before each member's last choice but one. The table tells how often each
    head's answer came true, and the calibration error before and after, of members that it was not fitted to.
    """
    from foundation.model import version
    from surfaces.adapters import Adapters
    from surfaces.calibrated import Calibrations
    from surfaces.evaluation.calibrate import calibrate as fit

    folder = _writable(out or model_folder(model))
    declared = open_registry(surfaces).declared(surface)
    with open_ledger(ledger) as opened, progress_bar(Console(stderr=True)) as progress:
        known = Calibrations.load(folder, version(model_folder(model)))
        engine = open_engine(model)
        Adapters(engine, adapters).load(declared)
        bar = progress.add_task(f"asking the heads of '{surface}'", total=None)
        found = fit(
            declared, opened, engine, members=members,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )  # fmt: skip
    path = known.plus(surface, found).save(folder)
    _tell(surface, found, path)


def _writable(folder: Path) -> Path:
    """The folder. Raises ConfigError before the work where nothing could be written there."""
    from prompts.errors import ConfigError

    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: it is a file; --out names a folder")
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not os.access(there, os.W_OK):
        raise ConfigError(f"{folder}: nothing can be written there; name another folder with --out")
    return folder


def _tell(surface: str, found: CalibratedSurface, path: Path) -> None:
    table = Table(
        title=f"{surface}: {found.rankings:,} {found.fitted_on} of {found.members:,} members",
        title_justify="left", box=None, pad_edge=False,
    )  # fmt: skip
    table.add_column("head")
    for header in ("answers", "rate", "ECE before", "after"):
        table.add_column(header, justify="right")
    table.add_column("by")
    for name, head in found.heads.items():
        figures = (f"{number:.4f}" for number in (head.rate, head.ece_before, head.ece_after))
        table.add_row(name, f"{found.answers:,}", *figures, _form(found, name, head))
    console = Console()
    console.print(table)
    console.print(f"Written to {path}: it is read when the model is served from there.", markup=False, highlight=False)


def _form(found: CalibratedSurface, name: str, head: HeadFigures) -> str:
    """What was fitted, as the file calls it."""
    if head.map is not None:
        return head.map.form
    return "shares" if found.choices is not None and name in found.choices.bias else "as it is"
