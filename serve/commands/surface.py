"""`prismrank surface`: surface files, before they serve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from prompts.errors import SpecError
from serve.commands.parts import (
    SHIPPED_MODEL,
    LedgerUrl,
    ModelFolder,
    SurfaceFolder,
    model_folder,
    open_engine,
    open_ledger,
    open_registry,
    steps,
)

if TYPE_CHECKING:
    from surfaces.spec import SurfaceSpec

app = typer.Typer(no_args_is_help=True, help="Check, list and preview surface files.")


@app.command("list")
def list_surfaces(surfaces: SurfaceFolder = None) -> None:
    """Every surface, with what it ranks and by which heads."""
    registry = open_registry(surfaces)
    table = Table("surface", "ranks", "heads (weight)", "sources", "description")
    for name in registry.names():
        spec = registry.surface(name)
        heads = ", ".join(f"{head.name} ({head.weight:g})" for head in spec.heads)
        sources = ", ".join(source.type for source in spec.sources)
        table.add_row(name, spec.item_kind, heads, sources, spec.description)
    Console().print(table)


@app.command("schema")
def schema(
    trunk: Annotated[bool, typer.Option("--trunk", help="The schema of trunk files instead.")] = False,
) -> None:
    """Print the JSON Schema of surface files, for editors."""
    from surfaces.spec import surface_schema, trunk_schema

    typer.echo(json.dumps(trunk_schema() if trunk else surface_schema(), indent=2))


@app.command("check")
def check(
    files: Annotated[list[Path], typer.Argument(help="Surface or trunk files; later ones may use earlier ones.")],
    surfaces: SurfaceFolder = None,
    model: Annotated[str, typer.Option(help="The model whose tokens the answers must differ in; none: any.")] = (
        SHIPPED_MODEL
    ),
) -> None:
    """Check surface files: keys, templates, names, and answers that the model can tell apart."""
    from surfaces.registry import read_file
    from surfaces.spec import SurfaceSpec

    registry = open_registry(surfaces)
    for path in files:
        read_file(path)  # its errors are those of a file: absent, too large, no text
        spec = registry.add(path.read_text(encoding="utf-8"), str(path))
        if isinstance(spec, SurfaceSpec) and model != "none":
            _check_answers(spec, path, model)
        typer.echo(f"{path}: right (version {spec.version})")


def _check_answers(spec: SurfaceSpec, path: Path, model: str) -> None:
    from foundation.tokenizer import TextEncoder
    from surfaces.spec import check_answers

    encoder = TextEncoder.load(model_folder(model))
    try:
        check_answers(spec, lambda word: encoder.encode(f" {word}"))
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None


@app.command("preview")
def preview(
    surface: Annotated[str, typer.Argument(help="A surface's name.")],
    ledger: LedgerUrl,
    member: Annotated[str, typer.Option(metavar="ID", help="For whom.")],
    surfaces: SurfaceFolder = None,
    model: ModelFolder = SHIPPED_MODEL,
    k: Annotated[int, typer.Option(min=1, max=1000, help="How many candidates to show.")] = 5,
) -> None:
    """Show what the model would read: a member's trunk, the surface's stem, and the first candidates."""
    from serve.pipeline import write
    from serve.schemas import RankRequest
    from serve.services import Services
    from serve.shortlist import draw_up

    with open_ledger(ledger) as opened:
        with steps("loading the model") as step:
            services = Services(opened, open_engine(model), open_registry(surfaces))
            step(f"fitting the sources of '{surface}'")
            ready = services.prepare(surface)
        request = RankRequest(member_id=member)
        shortlist = draw_up(request, ready, opened)
        prompt = write(request, ready, shortlist, services)
    trunk, stem, *leaves = prompt.tree.nodes
    console = Console(markup=False, highlight=False)
    for title, nodes in (("trunk", [trunk]), ("stem", [stem]), ("leaves", leaves[:k])):
        slots = sum(services.engine.count(piece) for node in nodes for piece in node.pieces)
        console.rule(f"{title} · {slots} slots")
        for node in nodes:
            console.print("".join(piece.text for piece in node.pieces).rstrip())
