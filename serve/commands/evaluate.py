"""`prismrank evaluate`: how well, against what, on held-out events."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from serve.commands.parts import (
    SHIPPED_MODEL,
    AdapterFolder,
    JsonFile,
    LedgerUrl,
    SurfaceFolder,
    check_writable,
    open_calibrations,
    open_engine,
    open_ledger,
    open_registry,
    progress_bar,
    stepping,
)

if TYPE_CHECKING:
    from surfaces.evaluation.report import Report


class ProtocolName(StrEnum):
    """What is held out."""

    LEAVE_ONE_OUT = "leave-one-out"
    GLOBAL_TIME = "global-time"
    LISTS = "lists"


def evaluate(
    surface: Annotated[str, typer.Argument(help="A surface's name.")],
    ledger: LedgerUrl,
    model: Annotated[
        str, typer.Option(metavar="DIR", help="A model folder, the name of a shipped one, or none.")
    ] = SHIPPED_MODEL,
    surfaces: SurfaceFolder = None,
    adapters: AdapterFolder = None,
    against: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="What to compare with, parted by commas: random, popular, popular_7d, co_visitation, itemknn, ease, "
            "slist, als, bpr, sasrec, blend, bm25, text_embedding, equal, zero_shot, fused, late, all; or files of "
            "other systems (parquet: member_id, item_id, score).",
        ),
    ] = "popular,co_visitation",
    protocol: Annotated[
        ProtocolName,
        typer.Option(
            help="leave-one-out: each member's last event by time. global-time: the last tenth of all events. lists: "
            "given candidates, of --lists or of the ledger's own impressions."
        ),
    ] = ProtocolName.LEAVE_ONE_OUT,
    lists: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A parquet of member_id, item_id, label and, where wanted, timestamp."),
    ] = None,
    members: Annotated[int | None, typer.Option(min=1, help="Draw so many members; default: all.")] = None,
    candidates: Annotated[
        int | None, typer.Option(min=2, help="The target among so many, drawn; default: the full catalogue.")
    ] = None,
    history: Annotated[int, typer.Option(min=0, help="Only members with so many earlier choices.")] = 0,
    budget: Annotated[int, typer.Option(min=1, help="Settings that each baseline is tried with on validation.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="What is drawn is drawn by this.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep the split, the settings found and every ranking there: a run that was stopped goes on, and more "
            "methods can be added.",
        ),
    ] = None,
    json_out: JsonFile = None,
    html: Annotated[Path | None, typer.Option(metavar="OUT", help="Write a page with plots, in one file.")] = None,
) -> None:
    """Rank what members did next, by the model and by other methods, and say which is worth its cost.

    Baselines are tuned on validation by the same budget. Nothing learns from the held-out events here, and that is
    checked; whether the model did in its training is told by its model card.
    """
    from surfaces.adapters import Adapters
    from surfaces.evaluation.suite import Asked, Suite

    check_writable(json_out, html, folder=out)
    if html:
        from surfaces.evaluation.plots import check_matplotlib

        check_matplotlib()
    stderr = Console(stderr=True)
    with open_ledger(ledger) as opened, progress_bar(stderr) as progress:
        asked = Asked(
            surface, protocol.value, tuple(name.strip() for name in against.split(",")), lists, members, candidates,
            history, seed, budget,
        )  # fmt: skip
        engine = None if model == "none" else open_engine(model)
        suite = Suite(
            asked, open_registry(surfaces), opened, engine, out,
            stepping(progress), lambda line: stderr.print(escape(line), highlight=False),
            None if engine is None else open_calibrations(model),
            None if engine is None else Adapters(engine, adapters),
        )  # fmt: skip
        report = suite.run()
    _tell(report)
    if json_out:
        json_out.write_text(json.dumps(report.told, indent=2) + "\n", encoding="utf-8")
    if html:
        from surfaces.evaluation.page import page

        html.write_text(page(report.told), encoding="utf-8")


def _tell(report: Report) -> None:
    from surfaces.evaluation.tables import tables

    console = Console()
    for table in tables(report):
        console.print(table)
    for note in report.notes:
        console.print(escape(note), highlight=False)
    if report.routing is not None:
        advice = report.verdict
        console.print(
            f"Worth its cost: {escape(advice.method or 'unknown')}: {escape(advice.reason)}.", highlight=False
        )
