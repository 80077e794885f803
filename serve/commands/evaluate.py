"""`prismrank evaluate`: how well, against what, on held-out events."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from serve.commands.parts import (
    SHIPPED_MODEL,
    JsonFile,
    LedgerUrl,
    SurfaceFolder,
    open_engine,
    open_ledger,
    open_registry,
    progress_bar,
)

if TYPE_CHECKING:
    from surfaces.evaluation.methods import Method
    from surfaces.evaluation.splits import Split
    from surfaces.ledger.store import Ledger
    from surfaces.registry import Registry


class Protocol(StrEnum):
    """What is held out."""

    LEAVE_ONE_OUT = "leave-one-out"


def evaluate(
    surface: Annotated[str, typer.Argument(help="A surface's name.")],
    ledger: LedgerUrl,
    model: Annotated[
        str, typer.Option(metavar="DIR", help="A model folder, the name of a shipped one, or none.")
    ] = SHIPPED_MODEL,
    surfaces: SurfaceFolder = None,
    against: Annotated[str, typer.Option(metavar="NAMES", help="Methods to compare with: names and commas.")] = (
        "popular,co_visitation"
    ),
    protocol: Annotated[Protocol, typer.Option(help="leave-one-out: each member's last event by time.")] = (
        Protocol.LEAVE_ONE_OUT
    ),
    members: Annotated[int | None, typer.Option(min=1, help="Draw so many members; default: all.")] = None,
    candidates: Annotated[
        int | None, typer.Option(min=2, help="The target among so many, drawn; default: the full catalogue.")
    ] = None,
    seed: Annotated[int, typer.Option(help="What is drawn is drawn by this.")] = 0,
    json_out: JsonFile = None,
) -> None:
    """Rank each member's held-out event among items they have not seen, by the model and by other methods.

    Nothing learns from the held-out events here; whether the model did in its training is told by its model card.
    """
    from surfaces.evaluation.run import evaluate as compare
    from surfaces.evaluation.splits import leave_one_out

    with open_ledger(ledger) as opened, progress_bar(Console(stderr=True)) as progress:
        bar = progress.add_task("fitting", total=None)
        registry = open_registry(surfaces)
        spec = registry.surface(surface)
        split = leave_one_out(opened, spec.item_kind, members=members, seed=seed, unwanted=spec.unwanted)
        methods = _methods(surface, model, against, registry, opened, split)
        progress.update(bar, description="ranking")
        report = compare(
            surface,
            split,
            methods,
            candidates=candidates,
            seed=seed,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
        note = opened.note
    table = report.to_table()
    table.caption = note or None
    Console().print(table)
    if json_out:
        told = {**report.to_json(), "protocol": protocol.value, **({"note": note} if note else {})}
        json_out.write_text(json.dumps(told, indent=2) + "\n")


def _methods(surface: str, model: str, against: str, registry: Registry, ledger: Ledger, split: Split) -> list[Method]:
    """The model first, if there is one: it is what the others are compared with."""
    from surfaces.evaluation.foundation import FoundationMethod
    from surfaces.evaluation.methods import baseline

    methods: list[Method] = [baseline(name.strip(), split.train) for name in against.split(",") if name.strip()]
    if model == "none":
        return methods
    spec = registry.surface(surface)
    return [FoundationMethod(spec, registry.trunk(spec.trunk), ledger, open_engine(model), split.train), *methods]
