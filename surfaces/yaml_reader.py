"""YAML 1.2 text as plain data, with the place of every key and value.

Refused with the place: what is no YAML, anchors and aliases (and with them alias bombs), tags, merge keys, duplicate
keys, keys that are no text, more than one document, deep nesting, large files.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, DocumentStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.parser import Parser
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scanner import Scanner

from prompts.errors import SpecError
from prompts.values import clean_text

SIZE_CAP = 32_768
"""Characters of a file."""
DEPTH_CAP = 16
PARTS_CAP = 2_000
"""Keys, values and brackets of a file."""
NUMBER_CAP = 64
"""Characters of a number."""
SHOWN = 80
"""Characters that an error repeats of what is wrong."""

TOO_DEEP = f"nested more than {DEPTH_CAP} deep"
_HIDDEN_BREAK = re.compile("[\x85\u2028\u2029]")
_HALF = re.compile("[\ud800-\udfff]")

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
    hidden = _HIDDEN_BREAK.search(text)
    if hidden:
        what = f"a line break that editors do not show; in quotes, write \\u{ord(hidden[0]):04x}"
        raise _error(where, _place_at(text, hidden.start()), what)
    try:
        root = _compose(text, where)
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


class _Scanner(Scanner):
    """Refuses deep brackets one by one: for its look-ahead it would walk a thousand of them, again and again."""

    def __init__(self, where: str, loader: Any) -> None:
        super().__init__(loader)
        self._where = where

    def fetch_flow_collection_start(self, TokenClass: Any, to_push: str) -> None:  # noqa: N803 - ruamel's name
        """An opening bracket."""
        if len(self.flow_context) >= DEPTH_CAP:
            place = Place(self.reader.line + 1, self.reader.column + 1)
            raise _error(self._where, place, TOO_DEEP)
        super().fetch_flow_collection_start(TokenClass, to_push)


class _Replay(Parser):
    """Hands out events that were read and found right."""

    def __init__(self, events: list[Any], loader: Any) -> None:
        super().__init__(loader)
        self._left = deque(events)

    def check_event(self, *choices: Any) -> bool:
        """Whether the next event is one of these kinds."""
        return bool(self._left) and (not choices or isinstance(self._left[0], choices))

    def peek_event(self) -> Any:
        """The next event."""
        return self._left[0]

    def get_event(self) -> Any:
        """The next event, taken."""
        return self._left.popleft()


def _compose(text: str, where: str) -> Node | None:
    """The root of the document, of events that were all checked before."""
    reading, composing = YAML(typ="safe", pure=True), YAML(typ="safe", pure=True)
    reading.Scanner = partial(_Scanner, where)
    composing.Parser = partial(_Replay, list(_checked(reading.parse(text), where)))
    root: Node | None = composing.compose("")
    return root


def _checked(events: Iterable[Any], where: str) -> Iterator[Any]:
    """The events, which come one by one: an alias bomb is never unfolded, a long file never read to its end."""
    depth = documents = 0
    for parts, event in enumerate(events):
        documents += isinstance(event, DocumentStartEvent)
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        problem = _refused(event) or _join(event)
        if parts > PARTS_CAP:
            problem = f"more than {PARTS_CAP} keys and values; a file this long is refused"
        elif documents > 1:
            problem = "a second document ('---'); a file holds one"
        elif depth > DEPTH_CAP:
            problem = TOO_DEEP
        if problem:
            raise _error(where, _place(event), problem)
        yield event


def _refused(event: Any) -> str:
    """What is wrong with an event alone; empty for one that is right."""
    if getattr(event, "version", None) not in {None, (1, 2)}:
        return "another version of YAML is not allowed; surface files are YAML 1.2"
    if getattr(event, "anchor", None) is not None:
        name = event.anchor[:SHOWN]
        what = f"an alias ('*{name}')" if isinstance(event, AliasEvent) else f"an anchor ('&{name}')"
        return f"{what} is not allowed; write the value out"
    if getattr(event, "tag", None) is not None:
        return f"a tag ('{str(event.tag)[:SHOWN]}') is not allowed; write the plain value"
    return ""


def _join(event: Any) -> str:
    """Makes one character of two escaped halves, as JSON writes it; says what is wrong with a half that is alone."""
    value = getattr(event, "value", None)
    if isinstance(value, str) and _HALF.search(value):
        try:
            event.value = value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            return "an escape of half a character (a lone surrogate); write the character itself"
    return ""


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
            shown = clean_text(key, SHOWN)
            raise _error(document.where, place, f"the key '{shown}' appears twice (first on line {first.line})")
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
        raise _error(document.where, place, f"the key '{node.value[:SHOWN]}' is no text; put it in quotes")
    return str(node.value)


def _scalar(node: Node, document: Document) -> Data:
    text, kind = str(node.value), _kind(node)
    if kind in {"int", "float"} and len(text) > NUMBER_CAP:
        what = f"'{text[:40]}…' is no number; one has at most {NUMBER_CAP} characters"
        raise _error(document.where, _place(node), what)
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
