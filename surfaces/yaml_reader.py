"""YAML 1.2 text as plain data, with the place of every key and value.

Refused with the place: what is no YAML, anchors and aliases (and with them alias bombs), tags, merge keys, duplicate
keys, keys that are no text, more than one document, deep nesting, large files.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, DocumentStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from prompts.errors import SpecError

SIZE_CAP = 65_536
"""Characters of a file."""
DEPTH_CAP = 16
PARTS_CAP = 4_000
"""Keys, values and brackets of a file."""

Path: TypeAlias = tuple[str | int, ...]
Data: TypeAlias = "str | int | float | bool | list[Data] | dict[str, Data] | None"


class Place(NamedTuple):
    """Line and column, from 1."""

    line: int
    column: int


class Document(NamedTuple):
    """The data of a file, and where each key (of a mapping) or entry (of a list) and each value stands."""

    data: Data
    keys: dict[Path, Place]
    values: dict[Path, Place]
    where: str

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Where the value (or key) at `path` stands, or the nearest thing above it that the file holds."""
        while path and path not in self.values:
            path, key = path[:-1], False
        return (self.keys if key and path in self.keys else self.values)[path]

    def at(self, path: Path, *, key: bool = False) -> str:
        """`file:line:column` of that place."""
        place = self.place(path, key=key)
        return f"{self.where}:{place.line}:{place.column}"


def read_yaml(text: str, where: str) -> Document:
    """The one document of `text`. Raises SpecError with file:line:column."""
    if len(text) > SIZE_CAP:
        raise SpecError(f"{where}:1:1: the file has {len(text)} characters; at most {SIZE_CAP} are allowed")
    try:
        _scan(text, where)
        root = YAML(typ="safe", pure=True).compose(text)
    except ReaderError as error:
        raise _error(where, _place_at(text, error.position), "a character that is not allowed in YAML") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
        raise _error(where, place, _explain(error)) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise _error(where, Place(1, 1), f"no YAML: {_one_line(str(error))}") from None
    if root is None:
        raise _error(where, Place(1, 1), "the file is empty")
    document = Document(None, {}, {}, where)
    return document._replace(data=_data(root, (), document))


def _scan(text: str, where: str) -> None:
    """Refuses by events, which come one by one: an alias bomb is never unfolded, a deep nest never walked into."""
    depth = documents = 0
    for parts, event in enumerate(YAML(typ="safe", pure=True).parse(text)):
        place = _place(event)
        if parts > PARTS_CAP:
            raise _error(where, place, f"more than {PARTS_CAP} keys and values; a file this long is refused")
        documents += isinstance(event, DocumentStartEvent)
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if documents > 1:
            raise _error(where, place, "a second document ('---'); a file holds one")
        if depth > DEPTH_CAP:
            raise _error(where, place, f"nested more than {DEPTH_CAP} deep")
        if getattr(event, "version", None) not in {None, (1, 2)}:
            raise _error(where, place, "another version of YAML is not allowed; surface files are YAML 1.2")
        if getattr(event, "anchor", None) is not None:
            what = (
                f"an alias ('*{event.anchor}')" if isinstance(event, AliasEvent) else f"an anchor ('&{event.anchor}')"
            )
            raise _error(where, place, f"{what} is not allowed; write the value out")
        if getattr(event, "tag", None) is not None:
            raise _error(where, place, f"a tag ('{event.tag}') is not allowed; write the plain value")


def _data(node: Node, path: Path, document: Document) -> Data:
    document.values[path] = _place(node)
    if isinstance(node, MappingNode):
        return _mapping(node, path, document)
    if isinstance(node, SequenceNode):
        return [_data(entry, (*path, index), document) for index, entry in enumerate(node.value)]
    return _scalar(node, document)


def _mapping(node: MappingNode, path: Path, document: Document) -> dict[str, Data]:
    found: dict[str, Data] = {}
    for key_node, value_node in node.value:
        place = _place(key_node)
        key = _key(key_node, place, document)
        if key in found:
            first = document.keys[(*path, key)]
            raise _error(document.where, place, f"the key '{key}' appears twice (first on line {first.line})")
        document.keys[(*path, key)] = place
        found[key] = _data(value_node, (*path, key), document)
        if found[key] is None:
            document.values[(*path, key)] = place  # the mark of an empty value lies at whatever comes next
    return found


def _key(node: Node, place: Place, document: Document) -> str:
    if not isinstance(node, ScalarNode):
        raise _error(document.where, place, "a key must be a word")
    kind = _kind(node)
    if node.style is None and (kind != "str" or node.value == "<<"):
        raise _error(document.where, place, f"the key '{node.value[:80]}' is no text; put it in quotes")
    return str(node.value)


def _scalar(node: Node, document: Document) -> Data:
    text, kind = str(node.value), _kind(node)
    try:
        if kind == "int":
            return _integer(text)
        if kind == "float":
            return _float(text)
    except ValueError:
        raise _error(document.where, _place(node), f"'{text[:40]}' is no number") from None
    if kind == "bool":
        return text.lower() == "true"
    return None if kind == "null" else text


def _integer(text: str) -> int:
    plain = text.lower().lstrip("+-")
    base = {"0o": 8, "0x": 16, "0b": 2}.get(plain[:2], 10)
    number = int(plain.replace("_", "")[2 * (base != 10) :], base)
    return -number if text.startswith("-") else number


def _float(text: str) -> float:
    return float(text.lower().replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))


def _kind(node: Node) -> str:
    return str(node.tag).rpartition(":")[2]


def _place(thing: Any) -> Place:
    return Place(thing.start_mark.line + 1, thing.start_mark.column + 1)


def _place_at(text: str, position: int) -> Place:
    before = text[:position]
    return Place(before.count("\n") + 1, len(before) - before.rfind("\n"))


def _explain(error: MarkedYAMLError) -> str:
    problem = _one_line(str(error.problem or error.context or "broken"))
    hint = "; indent with spaces, not tabs" if "\\t" in problem else ""
    return f"no YAML: {problem}{hint}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _error(where: str, place: Place, what: str) -> SpecError:
    return SpecError(f"{where}:{place.line}:{place.column}: {what}")
