"""JSON Schema (draft 7) of surface and trunk files: what editors complete and check while a file is written."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from surfaces.spec import SurfaceSpec, TrunkSpec

DRAFT = "http://json-schema.org/draft-07/schema#"
SURFACE_FILE, TRUNK_FILE = "surface.schema.json", "trunk.schema.json"
"""What the schemas are called in the folder of the files that name them on their first line."""


def surface_schema() -> dict[str, Any]:
    """The schema of surface files, with the kinds of installed packages."""
    return _draft_7(SurfaceSpec, "A surface file of prismrank")


def trunk_schema() -> dict[str, Any]:
    """The schema of trunk files."""
    return _draft_7(TrunkSpec, "A trunk file of prismrank")


def _draft_7(model: type[BaseModel], title: str) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/definitions/{model}")
    definitions = schema.pop("$defs")
    return {"$schema": DRAFT, **schema, "title": title, "definitions": definitions}


def first_line(name: str) -> str:
    """The comment by which an editor finds the schema of a file."""
    return f"# yaml-language-server: $schema={name}\n"
