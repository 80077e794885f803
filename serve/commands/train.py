"""`prismrank train`: a model from a ledger."""

from __future__ import annotations

from typing import Annotated

import typer


def train(
    config: Annotated[str, typer.Argument(help="A training configuration: a file, or a shipped name such as movies.")],
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew where an earlier run was stopped.")] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Train the released model on, from events after a time (ISO 8601, or seconds since 1970), or after "
            "the last that it learned from: last. It is replaced only if it became no worse on held-out events.",
        ),
    ] = None,
) -> None:
    """Train a model on labelled trees, as a configuration says. A run that was stopped goes on where it was."""
    if since is None:
        from surfaces.training import run as training

        folder = training.run(config, fresh=fresh)
    else:
        from surfaces.training import update

        folder, figures = update.run(config, since, fresh=fresh)
        for each in figures:
            typer.echo(str(each))
    typer.echo(f"the model is in {folder}")
