"""`prismrank surface`: surface files, before they serve."""

from __future__ import annotations

import typer

from serve.commands.surface.check import check
from serve.commands.surface.diff import diff
from serve.commands.surface.init import init
from serve.commands.surface.preview import preview
from serve.commands.surface.shelf import list_surfaces, schema

app = typer.Typer(no_args_is_help=True, help="Write, check, preview, list and compare surface files.")

app.command("init")(init)
app.command("check")(check)
app.command("preview")(preview)
app.command("diff")(diff)
app.command("list")(list_surfaces)
app.command("schema")(schema)
