"""The `prismrank` command. Each command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

import typer
from rich.console import Console
from typer.exceptions import TyperException

from prompts.errors import PrismrankError
from serve.commands.bench import app as bench
from serve.commands.calibrate import calibrate
from serve.commands.demo import demo
from serve.commands.evaluate import evaluate
from serve.commands.importing import import_ledger
from serve.commands.keys import app as keys
from serve.commands.model import app as model
from serve.commands.serve import serve
from serve.commands.surface import app as surface
from serve.commands.train import train

BAD_INPUT = 2
INTERRUPTED = 130

app = typer.Typer(
    name="prismrank",
    help="Rank anything for anyone: one decoder, every surface that a YAML file declares.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"prismrank {metadata.version('prismrank')}")
        raise typer.Exit


@app.callback()
def _options(
    show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Rank anything for anyone: one decoder, every surface that a YAML file declares."""


app.command("demo")(demo)
app.command("import")(import_ledger)
app.command("train")(train)
app.command("evaluate")(evaluate)
app.command("calibrate")(calibrate)
app.command("serve")(serve)
app.add_typer(surface, name="surface")
app.add_typer(model, name="model")
app.add_typer(keys, name="keys")
app.add_typer(bench, name="bench")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit status: 2 for bad input, told in one line."""
    try:
        status = app(args=arguments, prog_name="prismrank", standalone_mode=False)
    except TyperException as error:
        return _say(error.format_message(), error.exit_code)
    except (PrismrankError, OSError) as error:
        return _say(str(error), BAD_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _say(message: str, status: int) -> int:
    line = " ".join(message.split())
    if line:
        Console(stderr=True, soft_wrap=True, markup=False, highlight=False).print(f"prismrank: {line}")
    return status


if __name__ == "__main__":
    sys.exit(main())
