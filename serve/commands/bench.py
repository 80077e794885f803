"""`prismrank bench`: how fast, against what."""

from __future__ import annotations

import typer

from serve.commands.parts import SHIPPED_MODEL, JsonFile, ModelFolder, model_folder

app = typer.Typer(no_args_is_help=True, help="Measure speed on this machine, each time against a naive way.")


@app.command("score")
def score(model: ModelFolder = SHIPPED_MODEL, json_out: JsonFile = None) -> None:
    """Candidates per second: trees against every prompt whole."""
    from foundation.bench.score import run

    run(json_out, model_folder(model))


@app.command("train")
def train(model: ModelFolder = SHIPPED_MODEL, json_out: JsonFile = None) -> None:
    """Labelled leaves per second in training: trees against one leaf a sequence."""
    from foundation.bench.train import run

    run(json_out, model_folder(model))
