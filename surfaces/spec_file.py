"""Surface and trunk files: text in, a spec out, or an error that says file, line, column and what would be right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from io import StringIO
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML

from prompts.errors import SpecError
from prompts.suggest import closest, suggest
from prompts.values import clean_text
from surfaces.included import Folder
from surfaces.spec import SurfaceSpec, TrunkSpec
from surfaces.yaml_reader import Document, Path, read_yaml

SHOWN = 10
"""Problems of a file that one error lists."""

LONGEST = 500
"""Characters of what is said of one problem."""

MISSING = "this key is missing"
SHORT = "the list should have at least"
_PLAIN = {
    "string_type": "should be text; put it in quotes",
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "finite_number": "should be a finite number",
    "tuple_type": "should be a list",
    "dict_type": "should be a mapping (key: value)",
    "model_type": "should be a mapping (key: value)",
    "model_attributes_type": "should be a mapping (key: value)",
    "string_pattern_mismatch": "should be a name: a small letter, then small letters, digits or _",
}
"""Our words for pydantic's types of error."""


class SpecFile(NamedTuple):
    """A spec, the document that it came from, and its text."""

    spec: SurfaceSpec | TrunkSpec
    document: Document
    text: str

    @property
    def name(self) -> str:
        """The surface's or the trunk's name."""
        return self.spec.surface if isinstance(self.spec, SurfaceSpec) else self.spec.trunk


class _Problem(NamedTuple):
    """`key`: it is the key that is wrong, not its value. `meant`: the key that a misspelt one stands for."""

    path: Path
    text: str
    key: bool = False
    meant: str | None = None

    def line(self, document: Document) -> str:
        name = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path).lstrip(".")
        return f"{document.at(self.path, key=self.key)}: {clean_text(name, 300)}: {clean_text(self.text, LONGEST)}"


FAMILIES = ("sources", "filters", "heads", "policies")


def read_spec(text: str, where: str, folder: Folder | None = None) -> SpecFile:
    """The spec of a file; its first key tells which kind. Raises SpecError, one line a problem.

    Texts that the file keeps beside it are read from `folder`; without one there are none.
    """
    document = read_yaml(text, where)
    model = _model(document)
    try:
        return SpecFile(model.model_validate(document.data, context=folder), document, text)
    except ValidationError as error:
        schema = _schema(model)
        details = [one for one in error.errors(include_url=False) if one["type"] != "default_factory_not_called"]
        problems = [_problem(detail, document, schema) for detail in details]
        raise SpecError(_report(problems, document)) from None


@cache
def _schema(model: type[SurfaceSpec] | type[TrunkSpec]) -> dict[str, Any]:
    return model.model_json_schema()


def _model(document: Document) -> type[SurfaceSpec] | type[TrunkSpec]:
    data = document.data if isinstance(document.data, dict) else {}
    first = next(iter(data), None)
    if first == "surface":
        return SurfaceSpec
    if "surface" in data:
        raise SpecError(f"{document.at(('surface',), key=True)}: 'surface' must be the first key of a surface file")
    if first == "trunk":
        return TrunkSpec
    place = document.at(() if first is None else (first,), key=True)
    raise SpecError(f"{place}: a surface file begins with 'surface: NAME', a trunk file with 'trunk: NAME'")


def _report(problems: list[_Problem], document: Document) -> str:
    """A key that is missing because it is misspelt is told once, where it is misspelt."""
    misspelt = {(*problem.path[:-1], problem.meant) for problem in problems if problem.meant}
    inside = {problem.path[:-2] for problem in problems if len(problem.path) > 1}  # a list whose entries are wrong
    kept = [
        one
        for one in problems
        if not (one.text == MISSING and one.path in misspelt)
        and not (one.text.startswith(SHORT) and one.path in inside)
    ]
    kept.sort(key=lambda one: document.place(one.path, key=one.key))
    lines = [problem.line(document) for problem in kept]
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join(lines[:SHOWN] + more)


def _problem(detail: ErrorDetails, document: Document, schema: dict[str, Any]) -> _Problem:
    path, kind, context = _path(detail["loc"]), detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        word, keys = str(path[-1]), _keys(schema, path[:-1], document.data)
        return _Problem(path, f"unknown key{suggest(word, keys)}", key=True, meant=closest(word, keys))
    if kind == "wrong":
        return _Problem((*path, *context["at"]), context["problem"])
    if kind == "missing":
        return _Problem(path, MISSING)
    if kind == "union_tag_not_found":
        return _without_type(path, detail["input"])
    if kind == "union_tag_invalid":
        return _Problem((*path, "type"), _unknown(context["tag"], context["expected_tags"]))
    if kind == "literal_error":
        return _Problem(path, _unknown(detail["input"], context["expected"]))
    text = _PLAIN.get(kind) or detail["msg"].removeprefix("Input ").replace("Tuple", "the list").split(" after")[0]
    return _Problem(path, text + _shown(detail["input"]), key=detail["loc"][-1] == "[key]")


def _without_type(path: Path, entry: dict[str, Any]) -> _Problem:
    """Without a type the other keys of an entry cannot be judged: one that looks like it is what is wrong."""
    for word in entry:
        if closest(word, ["type"]):
            return _Problem((*path, word), f"unknown key{suggest(word, ['type'])}", key=True)
    return _Problem((*path, "type"), MISSING)


def _unknown(word: object, expected: str) -> str:
    known = re.findall("'([^']*)'", expected)
    return f"unknown value {str(word)[:80]!r}{suggest(str(word), known)}"


def _shown(value: object) -> str:
    return "" if isinstance(value, list | tuple | dict) else f", not {'nothing' if value is None else repr(value)[:80]}"


def _path(loc: tuple[int | str, ...]) -> Path:
    """Pydantic's path without its marks for keys and for the member of a union."""
    plain = tuple(step for step in loc if step != "[key]")
    return (*plain[:2], *plain[3:]) if plain[:1] and plain[0] in FAMILIES else plain


def _keys(schema: dict[str, Any], path: Path, data: Any) -> list[str]:
    """The keys that a mapping of the file may have."""
    nodes = [schema]
    for step in path:
        data = data[step]
        nodes = [option for node in nodes for inner in _inside(node, step) for option in _options(inner, schema)]
        tag = data.get("type") if isinstance(data, dict) else None
        nodes = [node for node in nodes if _constant(node) == tag] or nodes
    return list(dict.fromkeys(key for node in nodes for key in node.get("properties", {})))


def _inside(node: dict[str, Any], step: str | int) -> list[dict[str, Any]]:
    """What the schema says of an entry of a list, or of a key's value."""
    if isinstance(step, int):
        return [node["items"]] if "items" in node else []
    known = node.get("properties", {})
    return [known[step]] if step in known else list(node.get("patternProperties", {}).values())


def _options(node: dict[str, Any], schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schemas that a value may follow, without references."""
    if "$ref" in node:
        yield from _options(schema["$defs"][node["$ref"].rpartition("/")[2]], schema)
    elif "anyOf" in node or "oneOf" in node:
        for option in (*node.get("anyOf", ()), *node.get("oneOf", ())):
            yield from _options(option, schema)
    else:
        yield node


def _constant(node: dict[str, Any]) -> object:
    return node.get("properties", {}).get("type", {}).get("const")


def resolved(file: SpecFile) -> str:
    """The file's text, or, where it reads others, a file that says the same and stands alone."""
    try:
        if read_spec(file.text, file.document.where).spec == file.spec:
            return file.text
    except SpecError:
        pass
    return as_yaml(file.spec)


def as_yaml(spec: SurfaceSpec | TrunkSpec) -> str:
    """A spec as the text of a file, with every key that is not at its default."""
    out = StringIO()
    writer: Any = YAML(typ="safe", pure=True)
    writer.default_flow_style, writer.allow_unicode, writer.width = False, True, 120
    writer.sort_base_mapping_type_on_output = False
    writer.dump(spec.model_dump(mode="json", by_alias=True, exclude_defaults=True), out)
    return out.getvalue()
