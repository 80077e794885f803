"""`prismrank import`: a ledger folder, or a data set, into a ledger."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from prompts.errors import ConfigError
from serve.commands.parts import LedgerUrl, steps


class Dataset(StrEnum):
    """Data sets that are taken at run time from the package that carries them."""

    MOVIELENS_100K = "movielens-100k"


def import_ledger(
    ledger: LedgerUrl,
    folder: Annotated[
        Path | None, typer.Argument(help="A folder with items, members and events (.parquet, .jsonl or .csv).")
    ] = None,
    dataset: Annotated[Dataset | None, typer.Option(help="A data set instead of a folder.")] = None,
) -> None:
    """Bring items, members and events into a ledger.

    Everything is checked first and then written whole, or not at all. The same import twice changes nothing.
    """
    from surfaces.ledger.folder import import_folder
    from surfaces.ledger.store import Ledger
    from surfaces.ledger.tables import import_tables
    from surfaces.worlds.movielens import load_movielens

    if (folder is None) == (dataset is None):
        raise ConfigError("import takes either a folder or --dataset NAME")
    with steps("opening the ledger") as step, Ledger.open(ledger) as opened:
        if folder is not None:
            counts = import_folder(folder, opened, step)
        else:
            counts = import_tables(load_movielens(progress=step), opened, step)
    typer.echo(f"{counts.items} items, {counts.members} members, {counts.events} new events")
