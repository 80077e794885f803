"""`prismrank import`: a ledger folder, or a data set, into a ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from prompts.errors import ConfigError
from serve.commands.parts import LedgerUrl

if TYPE_CHECKING:
    from surfaces.worlds.network import Network


class Dataset(StrEnum):
    """Data sets that are taken at run time from the package that carries them."""

    MOVIELENS_100K = "movielens-100k"


class World(StrEnum):
    """Worlds that are simulated here: nobody in them is real."""

    NETWORK = "network"


class ImportBar:
    """The steps of an import as a bar that counts rows while they come (a `RowProgress`)."""

    def __init__(self, bar: Progress, first: str) -> None:
        self._bar = bar
        self._task = bar.add_task(f"{first} …", total=None, rows="")

    def __call__(self, step: str, /) -> None:
        """A step begins: its bar is in motion until its rows are counted."""
        self._bar.remove_task(self._task)
        self._task = self._bar.add_task(f"{step} …", total=None, rows="")

    def rows(self, done: int, total: int | None) -> None:
        """So many rows of all have come."""
        text = f"{done:,} rows" if total is None else f"{done:,} of {total:,} rows"
        self._bar.update(self._task, completed=done, total=total, rows=text)


@contextmanager
def import_bar(console: Console, first: str) -> Iterator[ImportBar]:
    """Shows an import; the bar leaves no trace, and is not drawn where nobody watches."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rows]}"))
    quiet = not console.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=quiet) as bar:
        yield ImportBar(bar, first)


def import_ledger(
    ledger: LedgerUrl,
    folder: Annotated[
        Path | None, typer.Argument(help="A folder with items, members and events (.parquet, .jsonl or .csv).")
    ] = None,
    dataset: Annotated[Dataset | None, typer.Option(help="A data set instead of a folder.")] = None,
    world: Annotated[World | None, typer.Option(help="A simulated world instead of a folder.")] = None,
    members: Annotated[
        int, typer.Option(min=100, max=1_000_000, help="How many members the simulated world has.")
    ] = 1_000,
    seed: Annotated[int, typer.Option(min=0, help="The simulated world of that number.")] = 0,
) -> None:
    """Bring items, members and events into a ledger.

    Everything is checked first and then written whole, or not at all. An import that was interrupted goes on where it
    was when the same folder is imported again, and the same import twice changes nothing.
    """
    from surfaces.ledger.folder import import_folder
    from surfaces.ledger.store import Ledger
    from surfaces.ledger.tables import import_tables
    from surfaces.worlds.movielens import load_movielens
    from surfaces.worlds.network import Network

    if sum(each is not None for each in (folder, dataset, world)) != 1:
        raise ConfigError("import takes one of a folder, --dataset NAME and --world NAME")
    network = Network(members, seed) if world else None
    with import_bar(Console(stderr=True), "opening the ledger") as bar, Ledger.open(ledger) as opened:
        if folder is not None:
            counts = import_folder(folder, opened, bar)
        elif network is not None:
            counts = import_tables(network.tables(progress=bar), opened, bar)
        else:
            counts = import_tables(load_movielens(progress=bar), opened, bar)
    typer.echo(f"{counts.items} items, {counts.members} members, {counts.events} new events")
    if network is not None:
        _tell_ceiling(network)


def _tell_ceiling(network: Network) -> None:
    """Prints how well the simulated slates could be ordered at best."""
    table = Table("surface", "slates", "truth (the ceiling)", "as shown", "popular", "random")
    table.title = "simulated: NDCG@10 of the slates that were shown, by the simulator's own truth"
    for row in network.ceiling():
        figures = (row.truth, row.shown, row.popular, row.random)
        table.add_row(row.surface, f"{row.lists:,}", *(f"{figure:.3f}" for figure in figures))
    Console().print(table)
