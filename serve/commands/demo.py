"""`prismrank demo`: the whole of it on real films and real members."""

from __future__ import annotations

from typing import Annotated

import typer

from serve.commands.parts import SHIPPED_MODEL, ModelFolder


def demo(
    model: ModelFolder = SHIPPED_MODEL,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0 takes any that is free.")] = 0,
) -> None:
    """Rank real films for real members of MovieLens-100K over HTTP, and show how it was done.

    The data set is fetched once. With a terminal the server goes on, to be called with curl; without, it ends.
    """
    from serve.demo import run

    run(model, port)
