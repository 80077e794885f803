"""`prismrank keys`: who may call a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="keys", help="Who may call a server: make keys, list them, take them back.", no_args_is_help=True
)

KeyFile = Annotated[Path, typer.Option("--file", metavar="FILE", help="The file of keys; it holds hashes alone.")]
KEY_FILE = Path("keys.yaml")


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Whose key it is; it stands in logs and figures.")],
    file: KeyFile = KEY_FILE,
    scope: Annotated[list[str] | None, typer.Option(help="rank, write, metrics or admin; may be given again.")] = None,
    surface: Annotated[list[str] | None, typer.Option(help="A surface that it may name; by default all.")] = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second; by default any.")] = None,
    burst: Annotated[int | None, typer.Option(help="So many at once; by default the rate of one second.")] = None,
) -> None:
    """Make a key, and show it this once. A running server reads the file when it starts."""
    from serve.keys import make

    limits = {"surfaces": surface or None, "rate": rate, "burst": burst}
    told = {key: value for key, value in limits.items() if value is not None}
    typer.echo(make(file, name, scope or ["rank"], **told))


@app.command("list")
def show(file: KeyFile = KEY_FILE) -> None:
    """List the keys by name, with what each may do."""
    from serve.keys import Keys

    for key in Keys.load(file):
        parts = [", ".join(key.scopes), f"on {', '.join(key.surfaces)}" if key.surfaces is not None else "everywhere"]
        parts += [f"{key.rate:g} a second"] if key.rate else []
        typer.echo(f"{key.name}: {'; '.join(parts)}")


@app.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(help="The key's name.")],
    file: KeyFile = KEY_FILE,
) -> None:
    """Take a key out of the file. A running server forgets it when it starts again."""
    from serve.keys import revoke as take_out

    take_out(file, name)
