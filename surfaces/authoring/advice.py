"""What is right in a surface file and yet has no effect, or not the one that was meant: each with what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from surfaces.spec_file import SpecFile
from surfaces.yaml_reader import Path, Place


class Advice(NamedTuple):
    """What to look at, and where. `word` is the part of the value that it is about, `key`: it is about the key.

    A `note` says what is so, and may well be meant; everything else is a warning.
    """

    path: Path
    text: str
    key: bool = False
    word: str = ""
    note: bool = False

    def place(self, file: SpecFile) -> Place:
        """Line and column in the file."""
        found = file.document.place(self.path, key=self.key)
        return _inside(file.text, found, self.word) if self.word else found

    def line(self, file: SpecFile) -> str:
        """`file:line:column: warning: what, and what to do`, on one line."""
        line, column = self.place(file)
        return f"{file.document.where}:{line}:{column}: {'note' if self.note else 'warning'}: {self.text}"


def in_order(found: Iterable[Advice], file: SpecFile) -> list[Advice]:
    """Each once, from the top of the file to its end."""
    return sorted(dict.fromkeys(found), key=lambda advice: (advice.place(file), advice.text))


def _inside(text: str, start: Place, word: str) -> Place:
    """Where a word first stands from a place on, on that line or one of the next; the place itself if it does not."""
    lines = text.splitlines()
    pattern = re.compile(rf"(?<![\w.'\"]){re.escape(word)}(?!\w)")
    for number in range(start.line, min(start.line + 40, len(lines)) + 1):
        found = pattern.search(lines[number - 1], start.column - 1 if number == start.line else 0)
        if found:
            return Place(number, found.start() + 1)
    return start
