"""`prismrank bench`: how fast, against what."""

from __future__ import annotations

from typing import Annotated

import typer

from serve.commands.parts import SHIPPED_MODEL, JsonFile, ModelFolder, model_folder, steps

app = typer.Typer(no_args_is_help=True, help="Measure speed on this machine, each time against a naive way.")


Rounds = Annotated[int, typer.Option("--rounds", min=1, max=1000, help="How often each way is timed; medians count.")]
Threads = Annotated[
    int, typer.Option("--threads", min=0, max=256, help="Of the processor; 0: as many as it has cores.")
]


@app.command("score")
def score(
    model: ModelFolder = SHIPPED_MODEL,
    json_out: JsonFile = None,
    rounds: Rounds = 5,
    threads: Threads = 0,
    peers: Annotated[
        bool, typer.Option("--peers/--no-peers", help="Against the engines that `make bench-peers` has installed, too.")
    ] = True,
) -> None:
    """Candidates per second: trees, cold and from the cache, against every other way to score the same."""
    import torch

    from foundation.bench.score import run

    torch.set_num_threads(threads or torch.get_num_threads())
    run(json_out, model_folder(model), rounds, peers=peers)


@app.command("visit")
def visit(
    model: ModelFolder = SHIPPED_MODEL, json_out: JsonFile = None, rounds: Rounds = 5, threads: Threads = 0
) -> None:
    """Tokens computed for one member's visit to four surfaces, against four members on one surface each."""
    import torch

    from foundation.bench.visit import run

    torch.set_num_threads(threads or torch.get_num_threads())
    run(json_out, model_folder(model), rounds)


@app.command("train")
def train(model: ModelFolder = SHIPPED_MODEL, json_out: JsonFile = None) -> None:
    """Labelled leaves per second in training: trees against one leaf a sequence."""
    from foundation.bench.train import run

    run(json_out, model_folder(model))


@app.command("experiments")
def experiments(
    members: Annotated[int, typer.Option(min=100, max=1_000_000, help="Of the simulated network.")] = 1_000,
    seed: Annotated[int, typer.Option(min=0, help="Draws the network, and everything in it.")] = 0,
    surfaces: Annotated[str, typer.Option(metavar="NAMES", help="Simulated surfaces, parted by commas.")] = "feed,jobs",
    json_out: JsonFile = None,
) -> None:
    """How many impressions interleaving needs, and an A/B test; what a log alone tells; what looking early costs.

    All of it on the simulated network, where the truth is known.
    """
    import json

    from rich.console import Console

    from surfaces.experiments.bench import measure

    with steps("simulating experiments"):
        found = measure(members, seed, [name.strip() for name in surfaces.split(",") if name.strip()])
    Console().print(*found.to_tables())
    if json_out:
        json_out.write_text(json.dumps(found.to_json(), indent=2) + "\n", encoding="utf-8")
