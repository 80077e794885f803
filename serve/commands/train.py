"""`prismrank train`: a model from a ledger."""

from __future__ import annotations

from typing import Annotated

import typer


def train(
    config: Annotated[str, typer.Argument(help="A training configuration: a file, or a shipped name such as movies.")],
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew where an earlier run was stopped.")] = False,
) -> None:
    """Train a model on labelled trees, as a configuration says. A run that was stopped goes on where it was."""
    from surfaces import training

    folder = training.run(config, fresh=fresh)
    typer.echo(f"the model is in {folder}")
