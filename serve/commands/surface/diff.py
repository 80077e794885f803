"""`prismrank surface diff`: what two surface files say differently, and what it costs to exchange them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from prompts.errors import SpecError
from serve.commands.parts import SurfaceFolder, open_registry
from serve.commands.surface.shelf import is_path

if TYPE_CHECKING:
    from surfaces.authoring.diff import Change
    from surfaces.registry import Registry
    from surfaces.spec_file import SpecFile

DIFFERENT = 1


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A surface's name, or the path of a file.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="What takes its place: a name, or the path of a file.")],
    surfaces: SurfaceFolder = None,
) -> None:
    """Show what two surface files say differently, defaults filled in, and what the change costs.

    The exit status is 0 when they say the same, 1 when they differ, 2 for what cannot be read.
    """
    from surfaces.authoring.diff import changes

    registry = open_registry(surfaces)
    files = [_file(registry, one) for one in (old, new)]
    if type(files[0].spec) is not type(files[1].spec):
        raise SpecError(f"{old} and {new}: one declares a surface, the other a trunk; compare two of the same")
    found, lines = changes(files[0].spec, files[1].spec), _costs(registry, files)
    console = Console(highlight=False, soft_wrap=True)
    if not found and not lines:
        console.print(Text(f"{old} and {new} say the same"))
        return
    console.print(Text.assemble("--- ", (old, "red"), "\n+++ ", (new, "green")))
    for change in found:
        console.print(_told(change))
    for line in lines:
        console.print(Text(f"=> {line}", style="yellow"))
    raise typer.Exit(DIFFERENT)


def _file(registry: Registry, name: str) -> SpecFile:
    from surfaces.registry import read_file

    return read_file(Path(name)) if is_path(name) else registry.file(name)


def _costs(registry: Registry, files: Sequence[SpecFile]) -> list[str]:
    from surfaces.authoring.diff import changes, costs, costs_of_trunk
    from surfaces.spec import SurfaceSpec

    found = changes(files[0].spec, files[1].spec)
    if not isinstance(files[0].spec, SurfaceSpec):
        return costs_of_trunk(found)
    old, new = (registry.plus(file).declared(file.name) for file in files)
    return costs(old, new, found)


def _told(change: Change) -> Text:
    from surfaces.authoring.diff import MISSING

    if change.old is MISSING:
        return Text(f"+ {change.key}: {_value(change.new)}", style="green")
    if change.new is MISSING:
        return Text(f"- {change.key}: {_value(change.old)}", style="red")
    old, new = _value(change.old), _value(change.new)
    if len(old) + len(new) > 60:
        return Text.assemble(f"~ {change.key}:\n    ", (f"- {old}", "red"), "\n    ", (f"+ {new}", "green"))
    return Text.assemble(f"~ {change.key}: ", (old, "red"), " -> ", (new, "green"))


def _value(value: object) -> str:
    """A value on one line; of an entry only what it sets."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(each)}" for key, each in value.items() if each not in (None, (), []))
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
