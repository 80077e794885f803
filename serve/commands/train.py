"""`prismrank train`: a model from a ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="A training configuration, such as configs/train/movies.yaml.")],
) -> None:
    """Train a model on labelled trees, as a configuration says. A run that was stopped goes on where it was."""
    from surfaces import training

    training.run(config)
