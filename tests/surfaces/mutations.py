"""Wrong surface files, made of right ones by one small change each, with the line that a message should name.

Where things stand in a file is read with PyYAML, which shares no code with the reader that is tested.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import yaml

Path: TypeAlias = tuple[str | int, ...]


class Mutation(NamedTuple):
    """A changed file. `lines` (from 1) are those that a message may name first; empty where nobody can say."""

    sort: str
    content: bytes
    lines: frozenset[int] = frozenset()
    hint: str = ""


class Part(NamedTuple):
    """A key with its value, or an entry of a list (then `key` is its own node)."""

    path: Path
    key: yaml.Node
    value: yaml.Node
    parent: yaml.Node


FREE = {("timeline", "events"), ("actions",)}
"""Mappings whose keys are the writer's own."""
REQUIRED = {
    "surface", "description", "item_kind", "prompt", "sources", "heads", "instruction", "item", "name", "type", "k",
    "max", "strength", "slots", "capacity", "trunk", "profile", "timeline", "events", "default",
}  # fmt: skip
TEXTS = {"surface", "trunk", "description", "item_kind", "instruction", "context", "item", "name", "profile", "type"}
NUMBERS = {"k", "weight", "max", "strength", "deadline_ms", "budget", "step", "top", "slots", "capacity"}
TEMPLATES = {"item", "context", "profile"}
BROKEN = (
    "{{ title", "{{ title | uper }}", "{% if title %}", "{{ f() }}", "{{ title * 9 }}", "{% endfor %}", "{{ _x }}",
    "{% for a in b %}", "{{ title ~ }}", "{% set a = 1 %}", "{{ a < b < c }}", "{% include 'x' %}", "{{ x.__class__ }}",
)  # fmt: skip


def parts(text: str) -> list[Part]:
    """Every key and every entry of a file, in its order."""
    return list(_parts(yaml.compose(text, yaml.SafeLoader), ()))


def _parts(node: yaml.Node, path: Path) -> Iterator[Part]:
    pairs: list[tuple[str | int, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        pairs = [(str(key.value), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        pairs = [(place, value, value) for place, value in enumerate(node.value)]
    for step, key, value in pairs:
        yield Part((*path, step), key, value, node)
        yield from _parts(value, (*path, step))


def line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def put(text: str, node: yaml.Node, new: str) -> str:
    return text[: node.start_mark.index] + new + text[node.end_mark.index :]


def inline(part: Part) -> bool:
    """Whether the value stands on one line and can be replaced as it is."""
    return isinstance(part.value, yaml.ScalarNode) or bool(part.value.flow_style)


def named(part: Part) -> str:
    return str(part.path[-1])


def is_key(part: Part) -> bool:
    return isinstance(part.path[-1], str)


def misspelt(word: str, rng: random.Random) -> str:
    """One slip of the finger: a letter left out, doubled, swapped or taken for another."""
    place = rng.randrange(1, len(word) - 1)
    slips = [
        word[:place] + word[place + 1 :],
        word[:place] + word[place] + word[place:],
        word[: place - 1] + word[place] + word[place - 1] + word[place + 1 :],
        word[:place] + rng.choice("qxjw") + word[place + 1 :],
    ]
    return rng.choice([slip for slip in slips if slip != word])


class Mutator:
    """Draws mutations of one file."""

    def __init__(self, text: str, seed: str) -> None:
        self.text, self.rng, self.parts = text, random.Random(seed), parts(text)
        self.keys = [part for part in self.parts if is_key(part) and part.path[:-1] not in FREE]

    def draw(self, each: int) -> Iterator[Mutation]:
        """At most `each` mutations of every sort, all different."""
        seen = {self.text.encode()}
        for make in SORTS:
            found = 0
            for _ in range(each * 4):
                mutation = make(self)
                if mutation is not None and mutation.content not in seen:
                    seen.add(mutation.content)
                    found += 1
                    yield mutation
                if found == each:
                    break

    def _some(self, chosen: list[Part]) -> Part | None:
        return self.rng.choice(chosen) if chosen else None

    def _at(self, sort: str, text: str, *nodes: yaml.Node, hint: str = "") -> Mutation:
        return Mutation(sort, text.encode(), frozenset(map(line, nodes)), hint)

    def _value(self, sort: str, part: Part, new: str, *others: yaml.Node) -> Mutation:
        return self._at(sort, put(self.text, part.value, new), part.value, *others)

    # ---------------------------------------------------------------- with a place

    def misspelt_key(self) -> Mutation | None:
        part = self._some([part for part in self.keys if len(named(part)) >= 4])
        if part is None:
            return None
        new = misspelt(named(part), self.rng)
        hint = "" if len(part.path) == 1 and part.path[0] in {"surface", "trunk"} else f"did you mean '{named(part)}'?"
        return self._at("misspelt key", put(self.text, part.key, new), part.key, hint=hint)

    def text_for_number(self) -> Mutation | None:
        part = self._some([part for part in self.keys if named(part) in NUMBERS])
        new = self.rng.choice(["'12'", "twelve", "true", "[1]", "{a: 1}", ""])
        return part and self._value("text for a number", part, new, part.key)

    def number_for_text(self) -> Mutation | None:
        part = self._some([part for part in self.keys if named(part) in TEXTS and inline(part)])
        new = self.rng.choice(["12", "1.5", "false", "[a]", "{a: b}"])
        return part and self._value("number for a text", part, new)

    def other_for_list(self) -> Mutation | None:
        lists = [part for part in self.keys if isinstance(part.value, yaml.SequenceNode) and inline(part)]
        part = self._some(lists)
        return part and self._value("other for a list", part, self.rng.choice(["seen", "3", "{a: 1}", "true", "''"]))

    def other_for_mapping(self) -> Mutation | None:
        entries = [part for part in self.parts if isinstance(part.value, yaml.MappingNode) and inline(part)]
        part = self._some(entries)
        new = self.rng.choice(["3", "[a, b]", "2.5", "true", "no-such"])
        return part and self._value("other for a mapping", part, new)

    def removed_key(self) -> Mutation | None:
        part = self._some([part for part in self.parts if named(part) in REQUIRED and is_key(part)])
        if part is None or not (inline(part) or len(part.path) == 1):
            return None
        text = self._without(part)
        owners = [owner.key for owner in self.parts if owner.value is part.parent]
        others = [other.key for other in self.parts if other.parent is part.parent and other is not part]
        lines = {line(node) for node in (*owners, part.parent, *others[:1])}
        gone = text.count("\n") - self.text.count("\n")
        moved = {number + gone * (number > line(part.key)) for number in lines}
        return Mutation("removed key", text.encode(), frozenset(moved))

    def _without(self, part: Part) -> str:
        start, end = part.key.start_mark.index, part.value.end_mark.index
        if part.parent.flow_style:
            tail = re.match(r",\s*", self.text[end:])
            head = re.search(r",\s*$", self.text[:start])
            end += len(tail[0]) if tail else 0
            start -= len(head[0]) if head and not tail else 0
        elif inline(part):
            start = self.text.rindex("\n", 0, start) + 1
            end = self.text.index("\n", end) + 1
        return self.text[:start] + self.text[end:]

    def doubled_key(self) -> Mutation | None:
        part = self._some([part for part in self.parts if is_key(part) and inline(part)])
        if part is None:
            return None
        start, end = part.key.start_mark.index, part.value.end_mark.index
        between = ", " if part.parent.flow_style else "\n" + " " * part.key.start_mark.column
        text = self.text[:end] + between + self.text[start:end] + self.text[end:]
        return Mutation("doubled key", text.encode(), frozenset({line(part.key) + ("\n" in between)}))

    def unknown_kind(self) -> Mutation | None:
        part = self._some([part for part in self.keys if named(part) == "type"])
        if part is None:
            return None
        new = self.rng.choice([misspelt(str(part.value.value), self.rng), "zzz", "Popular", "null"])
        return self._value("unknown kind", part, new, part.key)

    def broken_template(self) -> Mutation | None:
        chosen = [part for part in self.keys if named(part) in TEMPLATES and inline(part)]
        chosen += [part for part in self.parts if part.path[:-1] == ("timeline", "events")]
        part = self._some(chosen)
        return part and self._value("broken template", part, f'"{self.rng.choice(BROKEN)}"')

    def out_of_range(self) -> Mutation | None:
        part = self._some([part for part in self.keys if named(part) in NUMBERS])
        new = self.rng.choice(["-100000", "1000000", "1e308", ".inf", ".nan"])
        return part and self._value("out of range", part, new)

    def unknown_word(self) -> Mutation | None:
        chosen = [part for part in self.parts if part.path[:1] == ("evidence",) and len(part.path) == 2]
        chosen += [part for part in self.parts if part.path[:2] == ("fallback", "order") and len(part.path) == 3]
        part = self._some(chosen)
        if part is None:
            return None
        return self._value("unknown word", part, self.rng.choice(["zzz", misspelt(str(part.value.value), self.rng)]))

    def entry_twice(self) -> Mutation | None:
        families = ("evidence", "order", "sources", "heads")
        entries = [part for part in self.parts if part.path[-2:-1] and part.path[-2] in families]
        part = self._some(entries)
        if part is None or not inline(part):
            return None
        said, end = self.text[part.value.start_mark.index : part.value.end_mark.index], part.value.end_mark.index
        between = ", " if part.parent.flow_style else "\n  - "
        text = self.text[:end] + between + said + self.text[end:]
        return Mutation("entry twice", text.encode(), frozenset({line(part.value) + ("\n" in between)}))

    def answer_taken(self) -> Mutation | None:
        names = [part for part in self.parts if part.path[:1] == ("heads",) and named(part) == "name"]
        part = self._some(names)
        return part and self._value("answer taken", part, self.rng.choice(["none", "'yes'", "'no'"]))

    def control_character(self) -> Mutation:
        place = self.rng.randrange(len(self.text))
        text = self.text[:place] + self.rng.choice("\0\x01\x07\x1b\x7f\x90\ufffe") + self.text[place:]
        return Mutation("control character", text.encode(), frozenset({self.text.count("\n", 0, place) + 1}))

    def tab_for_indent(self) -> Mutation | None:
        indented = [number for number, said in enumerate(self.text.split("\n")) if re.match(r"  \w", said)]
        if not indented:
            return None
        number = self.rng.choice(indented)
        lines = self.text.split("\n")
        lines[number] = "\t" + lines[number].lstrip()
        return Mutation("tab", "\n".join(lines).encode(), frozenset({number + 1}))

    # ---------------------------------------------------------------- without one

    def deleted_mark(self) -> Mutation:
        places = [place for place, letter in enumerate(self.text) if letter in "\"'[]{}:-,"]
        place = self.rng.choice(places)
        return Mutation("deleted mark", (self.text[:place] + self.text[place + 1 :]).encode())

    def wrong_indent(self) -> Mutation:
        lines = self.text.split("\n")
        number = self.rng.randrange(len(lines))
        lines[number] = " " * self.rng.randrange(1, 5) + lines[number]
        return Mutation("wrong indent", "\n".join(lines).encode())

    def trailing_garbage(self) -> Mutation:
        garbage = ["}", "---\nsurface: x\n", "...\nx", ": :", "- a", "\t", "%YAML 1.1", "key", "? a", "!!", "&a", "*a"]
        return Mutation("trailing garbage", (self.text + self.rng.choice(garbage)).encode())

    def random_bytes(self) -> Mutation:
        content = bytearray(self.text.encode())
        for _ in range(self.rng.randrange(1, 6)):
            content[self.rng.randrange(len(content))] = self.rng.randrange(256)
        return Mutation("random bytes", bytes(content))

    def line_lost_or_moved(self) -> Mutation:
        lines = self.text.split("\n")
        said = lines.pop(self.rng.randrange(len(lines)))
        if self.rng.random() < 0.5:
            lines.insert(self.rng.randrange(len(lines)), said)
        return Mutation("line moved", "\n".join(lines).encode())


SORTS: tuple[Callable[[Mutator], Mutation | None], ...] = (
    Mutator.misspelt_key, Mutator.text_for_number, Mutator.number_for_text, Mutator.other_for_list,
    Mutator.other_for_mapping, Mutator.removed_key, Mutator.doubled_key, Mutator.unknown_kind, Mutator.broken_template,
    Mutator.out_of_range, Mutator.unknown_word, Mutator.entry_twice, Mutator.answer_taken, Mutator.control_character,
    Mutator.tab_for_indent, Mutator.deleted_mark, Mutator.wrong_indent, Mutator.trailing_garbage, Mutator.random_bytes,
    Mutator.line_lost_or_moved,
)  # fmt: skip
