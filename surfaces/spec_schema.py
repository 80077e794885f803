"""JSON Schema (draft 7) of surface and trunk files: what editors complete and check while a file is written."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from surfaces.fields import DURATION, as_duration
from surfaces.spec import SurfaceSpec, TrunkSpec

DRAFT = "http://json-schema.org/draft-07/schema#"
SURFACE_FILE, TRUNK_FILE = "surface.schema.json", "trunk.schema.json"
"""What the schemas are called in the folder of the files that name them on their first line."""

ANNOTATIONS = ("title", "description", "default")


def surface_schema() -> dict[str, Any]:
    """The schema of surface files, with the kinds of installed packages."""
    return _draft_7(SurfaceSpec, "A surface file of prismrank")


def trunk_schema() -> dict[str, Any]:
    """The schema of trunk files."""
    return _draft_7(TrunkSpec, "A trunk file of prismrank")


def _draft_7(model: type[BaseModel], title: str) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/definitions/{model}")
    definitions = schema.pop("$defs")
    for definition in definitions.values():
        _describe_type(definition)
    told: dict[str, Any] = _node({**schema, "title": title, "definitions": definitions})
    return {"$schema": DRAFT, **told}


def _describe_type(definition: dict[str, Any]) -> None:
    """An editor that shows `type: cap` tells what a cap does."""
    kind = definition["properties"].get("type", {})
    if "const" in kind:
        kind.setdefault("description", definition.get("description", "").partition("\n\n")[0])


def _node(node: Any) -> Any:
    """The part in the words of draft 7, and of the file."""
    if isinstance(node, list):
        return [_node(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    told = {key: _node(value) for key, value in node.items() if key != "discriminator"}
    if isinstance(told.get("patternProperties"), dict):
        told.setdefault("additionalProperties", False)
    if isinstance(told.get("default"), float) and _is_duration(told):
        told["default"] = as_duration(told["default"])
    if "$ref" in told and len(told) > 1:  # draft 7 reads nothing beside a reference
        notes = {key: told.pop(key) for key in ANNOTATIONS if key in told}
        return {"allOf": [told], **notes}
    return told


def _is_duration(node: dict[str, Any]) -> bool:
    return any(option.get("pattern") == DURATION for option in (node, *node.get("anyOf", ())))


def first_line(name: str) -> str:
    """The comment by which an editor finds the schema of a file."""
    return f"# yaml-language-server: $schema={name}\n"
