"""`prismrank surface list` and `schema`; and how the other commands find a surface, by name or by path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from prompts.errors import SpecError
from serve.commands.parts import SurfaceFolder, open_registry

if TYPE_CHECKING:
    from surfaces.registry import Registry
    from surfaces.spec import SurfaceSpec
    from surfaces.spec_file import SpecFile


def list_surfaces(surfaces: SurfaceFolder = None) -> None:
    """Every surface: its version, what it ranks, by which heads, from where, what leaves tell, what policies do."""
    registry = open_registry(surfaces)
    table = Table("surface", "what it does", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_lines=True)
    for name in registry.names():
        declared = registry.declared(name)
        table.add_row(Text.assemble((name, "bold"), "\n", (declared.version, "dim")), _row(declared.spec))
    Console(markup=False, highlight=False).print(table)


def schema(
    trunk: Annotated[bool, typer.Option("--trunk", help="The schema of trunk files instead.")] = False,
) -> None:
    """Print the JSON Schema of surface files, for editors."""
    from surfaces.spec_schema import surface_schema, trunk_schema

    typer.echo(json.dumps(trunk_schema() if trunk else surface_schema(), indent=2))


def find(registry: Registry, surface: str) -> tuple[Registry, str]:
    """A registry that has the surface, and its name; `surface` is a name, or the path of a file.

    Raises SpecError for a file that is wrong or declares no surface, UnknownError for a name that nobody knows.
    """
    file = file_of(registry, surface)
    return (registry.plus(file) if is_path(surface) else registry), file.name


def file_of(registry: Registry, surface: str) -> SpecFile:
    """The file behind a name or a path, a surface's. Raises SpecError or UnknownError."""
    from surfaces.registry import read_file
    from surfaces.spec import SurfaceSpec

    file = read_file(Path(surface)) if is_path(surface) else registry.file(surface)
    if not isinstance(file.spec, SurfaceSpec):
        raise SpecError(f"{surface}:1:1: this declares a trunk; a surface file begins with 'surface: NAME'")
    return file


def is_path(surface: str) -> bool:
    """Whether it is meant as a file: it looks like one, or is one."""
    return Path(surface).suffix in {".yaml", ".yml"} or "/" in surface or Path(surface).is_file()


def _row(spec: SurfaceSpec) -> Text:
    """The description, then a line for each part that the surface has."""
    heads = ", ".join(f"{head.name} ({head.weight:g})" for head in spec.heads)
    parts = {
        "ranks": f"{spec.item_kind} by {heads}",
        "sources": ", ".join(f"{source.called} {source.k}" for source in spec.sources),
        "evidence": ", ".join(spec.evidence),
        "policies": ", ".join(policy.type for policy in spec.policies),
    }
    lines = [spec.description, *(f"{part:<8} {said}" for part, said in parts.items() if said)]
    return Text("\n".join(lines))
