"""`prismrank surface preview`: what the model reads for a member, and the slate that it makes of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from prompts.errors import SpecError
from serve.commands.parts import (
    SHIPPED_MODEL,
    AdapterFolder,
    LedgerUrl,
    ModelFolder,
    SurfaceFolder,
    open_calibrations,
    open_engine,
    open_ledger,
    open_registry,
    steps,
)
from serve.commands.surface.shelf import find

if TYPE_CHECKING:
    from serve.preview import DryRun, LeafView, PieceView, Preview
    from serve.schemas import RankRequest


def preview(
    surface: Annotated[str, typer.Argument(metavar="SURFACE", help="A surface's name, or the path of a file.")],
    ledger: LedgerUrl,
    member: Annotated[str, typer.Option(metavar="ID", help="For whom.")],
    surfaces: SurfaceFolder = None,
    model: ModelFolder = SHIPPED_MODEL,
    adapters: AdapterFolder = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, max=1000, help="How many candidates to show.")] = 5,
    query: Annotated[str | None, typer.Option(metavar="TEXT", help="What the member searches for.")] = None,
    context: Annotated[
        str | None, typer.Option(metavar="JSON", help='What else the request says, like \'{"page": "home"}\'.')
    ] = None,
) -> None:
    """Show what the model reads, and what it makes of it: a member's trunk, the surface's stem, leaves, the slate."""
    from serve.preview import dry_run
    from serve.services import Services

    request = _request(member, k, query, context)
    registry, name = find(open_registry(surfaces), surface)
    with open_ledger(ledger) as opened:
        opened.member(member)  # said before the model is loaded
        with steps("loading the model") as step:
            calibrations = open_calibrations(model)
            services = Services(opened, open_engine(model), registry, calibrations=calibrations, adapters=adapters)
            step(f"fitting the sources of '{name}'")
            ready = services.prepare(name)
            step("ranking")
            run = dry_run(request, ready, services)
        note = opened.note
    console = Console(markup=False, highlight=False)
    _show_text(run, k, console)
    _show_slate(run, console)
    if note:
        console.print(note)


def _request(member: str, k: int, query: str | None, context: str | None) -> RankRequest:
    """The request. Raises SpecError for a context that is none."""
    from pydantic import ValidationError

    from serve.schemas import RankRequest

    said = {**_context(context), **({} if query is None else {"query": query})}
    try:
        return RankRequest(member_id=member, k=k, context=said or None)
    except ValidationError as error:
        first = error.errors()[0]
        place = "--member" if first["loc"][:1] == ("member_id",) else "--context"
        raise SpecError(f"{place}: {first['msg']}") from None


def _context(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f'--context: no JSON ({error}); write it like \'{{"page": "home"}}\'') from None
    if not isinstance(found, dict):
        raise SpecError('--context: should be a JSON object, like \'{"page": "home"}\'')
    return found


def _show_text(run: DryRun, k: int, console: Console) -> None:
    view = run.preview
    told = f", {view.events_told:,} of {view.events:,} events" if view.events else ""
    _section(f"trunk · {_slots(view.trunk)} slots{told}", view.trunk, console)
    _section(f"stem · {_slots(view.stem)} slots", view.stem, console)
    leaves, many = _leaves(run, k), len(view.leaves)
    total = sum(_slots(leaf.pieces) for leaf in view.leaves)
    console.rule(f"leaves · {len(leaves)} of {many}, {total / max(many, 1):.1f} slots each")
    for leaf in leaves:
        console.print(f"{_gutter(leaf.pieces)}{''.join(piece.text for piece in leaf.pieces).rstrip()}", soft_wrap=True)
    console.print(f"{'answers':>9} │ {', '.join(view.answers) or 'none is read'}", style="dim", soft_wrap=True)


def _section(title: str, pieces: Sequence[PieceView], console: Console) -> None:
    console.rule(title)
    for piece in pieces:
        console.print(f"{_gutter([piece])}{piece.text.rstrip()}", soft_wrap=True)


def _leaves(run: DryRun, k: int) -> list[LeafView]:
    """Those on the slate, in its order; without a slate the first candidates."""
    views = {leaf.item_id: leaf for leaf in run.preview.leaves}
    return [views[entry.item_id] for entry in run.slate][:k]


def _gutter(pieces: Sequence[PieceView]) -> str:
    """How many slots the text takes; `v`: among them are vectors, in the place of its tokens."""
    mark = "v" if any(piece.vector for piece in pieces) else " "
    return f"{_slots(pieces):>8}{mark}│ "


def _slots(pieces: Sequence[PieceView]) -> int:
    return sum(piece.slots for piece in pieces)


def _show_slate(run: DryRun, console: Console) -> None:
    view: Preview = run.preview
    console.rule(f"slate of '{view.surface}' {view.version} · {view.slots:,} slots, {run.seconds * 1000:.0f} ms")
    if not run.slate:
        console.print("No candidate: the sources bring nothing for this member, or the filters drop it all.")
        return
    heads = list(run.slate[0].heads)
    table = Table("rank", "item", "utility", *heads, "sources", box=None, header_style="bold")
    for entry in run.slate:
        values = (f"{entry.heads[head]:.3f}" for head in heads)
        sources = ", ".join(entry.sources)
        table.add_row(str(entry.rank), entry.item_id, f"{entry.utility:.3f}", *values, sources)
    console.print(table)
