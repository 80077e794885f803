"""`prismrank bench`: how fast, against what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serve.commands.importing import Dataset, World
from serve.commands.parts import (
    SHIPPED_MODEL,
    JsonFile,
    LedgerUrl,
    ModelFolder,
    SurfaceFolder,
    check_writable,
    model_folder,
    open_engine,
    open_ledger,
    open_registry,
    progress_bar,
    stepping,
    steps,
)

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


@app.command("tenants")
def tenants(
    model: ModelFolder = SHIPPED_MODEL,
    json_out: JsonFile = None,
    pairs: Annotated[int, typer.Option(min=10, max=100_000, help="Trunks known and unknown, each.")] = 1_000,
    threads: Threads = 1,
) -> None:
    """Whether one tenant can tell from times what another one has asked: cache hits, and the area under the curve."""
    import torch

    from foundation.bench.tenants import run

    torch.set_num_threads(threads or torch.get_num_threads())
    run(json_out, model_folder(model), pairs)


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


@app.command("curves")
def curves(
    axes: Annotated[
        str, typer.Option(metavar="NAMES", help="What is varied, parted by commas.")
    ] = "data,model,history,detail,cold,gap,surface",
    minutes: Annotated[float, typer.Option(min=0.01, max=1_440, help="Of each training run.")] = 15.0,
    dataset: Annotated[Dataset, typer.Option(help="Data of every axis but the last.")] = Dataset.MOVIELENS_100K,
    world: Annotated[World, typer.Option(help="Data of the axis surface.")] = World.NETWORK,
    members: Annotated[int, typer.Option(min=100, max=1_000_000, help="Of the world.")] = 1_000,
    evidence: Annotated[
        bool, typer.Option(help="Leaves say what sources know of them; without it the model reads texts alone.")
    ] = True,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Keep runs and points there: a bench that was stopped goes on.")
    ] = Path("runs/curves"),
    json_out: JsonFile = None,
    png: Annotated[Path | None, typer.Option(metavar="OUT", help="Draw the curves into this file.")] = None,
    threads: Threads = 0,
) -> None:
    """How ranking gains from data, size and history; how it fares with new members, after a while, on new surfaces.

    Every model is trained as long as every other one, and every figure has an interval over members.
    """
    import json

    import torch
    from rich.console import Console
    from rich.markup import escape

    from surfaces.curves import bench, picture

    if png:
        picture.check_matplotlib()
    check_writable(json_out, png, folder=out)
    torch.set_num_threads(threads or torch.get_num_threads())
    names = [name.strip() for name in axes.split(",") if name.strip()]
    asked = bench.shipped(
        names, dataset=dataset.value, world=world.value, members=members, minutes=minutes, out=out, evidence=evidence
    )
    stderr = Console(stderr=True)
    with progress_bar(stderr) as progress:
        found = bench.run(asked, lambda line: stderr.print(escape(line), highlight=False), stepping(progress))
    Console().print(*bench.to_tables(found))
    if json_out:
        json_out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if png:
        png.write_bytes(picture.draw(found))


@app.command("headlines")
def headlines(
    tests: Annotated[
        Path, typer.Option("--tests", metavar="FILE", help="A table of A/B tests: parquet, jsonl or csv, a row a text.")
    ],
    columns: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="What its columns are called, where they are not test_id, text, impressions, clicks and context: "
            "test=NAME,text=NAME and so on.",
        ),
    ] = "",
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the runs are; stopped, they go on.")] = Path(
        "runs/headlines"
    ),
    seeds: Annotated[int, typer.Option(min=1, max=10, help="Each holds out other tests.")] = 2,
    training: Annotated[int, typer.Option("--steps", min=1, max=100_000, help="Of each training run.")] = 150,
    json_out: JsonFile = None,
) -> None:
    """Which headline won its A/B test: a line through text embeddings, a nano, a student that it taught, preferences.

    Each figure is a share of the tests that nothing was learned from.
    """
    import json

    from rich.console import Console

    from surfaces.headlines.stages import Bench, budget, columns_of

    check_writable(json_out, folder=out)
    bench = Bench(tests, columns_of(columns), out, training)
    Console(stderr=True).print(budget(seeds, training))
    found = bench.measure(seeds, lambda step: Console(stderr=True).print(f"{step} …"))
    Console().print(*found.to_tables())
    if json_out:
        json_out.write_text(json.dumps(found.to_json(), indent=2) + "\n", encoding="utf-8")


@app.command("attacks")
def attacks(
    ledger: LedgerUrl,
    surface: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="May be given several times; default: all that the ledger serves."),
    ] = None,
    model: ModelFolder = SHIPPED_MODEL,
    surfaces: SurfaceFolder = None,
    members: Annotated[int, typer.Option(min=1, max=100_000, help="Draw so many members for each surface.")] = 50,
    candidates: Annotated[int, typer.Option(min=2, max=10_000, help="In each list, the wanted one among them.")] = 50,
    payloads: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Your own words that attack (YAML), in place of the shipped.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="What is drawn is drawn by this.")] = 0,
    json_out: JsonFile = None,
) -> None:
    """How far an item gets whose text tries to talk to the model; and what a member's text does for an item.

    Places are counted against the same item with as many words that say nothing.
    """
    import json

    from rich.console import Console

    from surfaces.evaluation.attack_bench import Asked, measure
    from surfaces.evaluation.payloads import SHIPPED, read_payloads

    check_writable(json_out)
    asked = Asked(read_payloads(payloads or SHIPPED), tuple(surface or ()), members, candidates, seed)
    stderr = Console(stderr=True)
    with open_ledger(ledger) as opened, progress_bar(stderr) as progress:
        found = measure(asked, open_registry(surfaces), opened, open_engine(model), stepping(progress))
    Console().print(*found.to_tables())
    if json_out:
        json_out.write_text(json.dumps(found.to_json(), indent=2) + "\n", encoding="utf-8")


@app.command("serve")
def serve(
    model: ModelFolder = SHIPPED_MODEL,
    ledger: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A ledger to copy (one in PostgreSQL is written to); without it MovieLens-100K, as in the demo.",
        ),
    ] = None,
    surface: Annotated[
        str, typer.Option(metavar="NAME", help="A shipped surface that the ledger has items for.")
    ] = "movies",
    only: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Scenarios, parted by commas; docs/serving.md lists them.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, max=86_400, help="Of load in each scenario, in place of its own.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=1_000, help="Of each scenario that has some, in place of its own.")
    ] = None,
    candidates: Annotated[
        int, typer.Option(min=1, max=1_000, help="Of each ranking; `clients` and `killed` have numbers of their own.")
    ] = 20,
    json_out: JsonFile = None,
    plot: Annotated[Path | None, typer.Option(metavar="OUT", help="Draw the curve into this file, a PNG.")] = None,
) -> None:
    """A server under load: curves, clients, floods, and what is left of it when it is killed or its engine fails.

    The server is a process of its own, on this machine; the load comes from here, and says whether it kept up.
    """
    from serve.bench import picture, run

    names = run.named(only or run.USUAL)
    if plot:
        picture.check(names)
    check_writable(json_out, plot)
    how = run.How(ledger, str(model_folder(model)), surface, seconds, rounds, candidates)
    run.run(names, how, json_out, plot)
