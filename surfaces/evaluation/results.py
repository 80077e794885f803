"""What a method gave for each case, kept on disk while an evaluation runs: a run that was stopped goes on there."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

import surfaces
from surfaces.evaluation.metrics import METRICS
from surfaces.evaluation.protocols import Case

TOP = 20
"""So many of the first items of every ranking are kept."""
SAVE_EVERY_S = 10.0

Answered = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]
"""Probabilities and outcomes of one head."""


@dataclass
class Results:
    """Of one method, by case: M cases.

    `values_MF` are figures in the order of `METRICS`, NaN for a case that is not done; `tops_MK` are indices of the
    first items, -1 where there are fewer; `heads` are probabilities and outcomes of the candidates, case after case.
    """

    values_MF: npt.NDArray[np.float64]
    tops_MK: npt.NDArray[np.int32]
    seconds_M: npt.NDArray[np.float64]
    tokens_M: npt.NDArray[np.int64]
    heads: dict[str, list[Answered]] = field(default_factory=dict)

    @classmethod
    def empty(cls, cases: int) -> Results:
        """Nothing is done yet."""
        return cls(
            np.full((cases, len(METRICS)), np.nan),
            np.full((cases, TOP), -1, dtype=np.int32),
            np.zeros(cases),
            np.zeros(cases, dtype=np.int64),
        )

    @property
    def done(self) -> int:
        """How many cases are done: the first ones."""
        return int(np.isfinite(self.values_MF[:, 0]).sum())

    def values(self, metric: str) -> npt.NDArray[np.float64]:
        """[M] of one figure."""
        return self.values_MF[:, METRICS.index(metric)]

    def answered(self, head: str) -> Answered:
        """All that a head said, and what came of it."""
        parts = self.heads[head]
        return np.concatenate([p for p, _ in parts]), np.concatenate([y for _, y in parts])

    def save(self, path: Path, key: str) -> None:
        """Writes it whole, or not at all."""
        arrays: dict[str, npt.NDArray[np.generic]] = {
            name: getattr(self, name) for name in ("values_MF", "tops_MK", "seconds_M", "tokens_M")
        }
        for name, parts in self.heads.items():
            probabilities, outcomes = self.answered(name)
            arrays |= {f"p_{name}": probabilities, f"y_{name}": outcomes}
            arrays[f"n_{name}"] = np.array([len(p) for p, _ in parts])
        scratch = path.with_suffix(".part.npz")
        with scratch.open("wb") as file:
            np.savez(file, allow_pickle=False, key=np.array(key), **arrays)
        os.replace(scratch, path)

    @classmethod
    def load(cls, path: Path, key: str, cases: int) -> Results:
        """What was saved under that key for so many cases; else nothing is done."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                if str(found["key"]) != key or found["values_MF"].shape != (cases, len(METRICS)):
                    return cls.empty(cases)
                names = [name.removeprefix("p_") for name in found.files if name.startswith("p_")]
                heads = {name: _parts(found, name) for name in names}
                columns = found["values_MF"], found["tops_MK"], found["seconds_M"], found["tokens_M"]
                return cls(*columns, heads=heads)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return cls.empty(cases)


def _parts(found: Mapping[str, npt.NDArray[np.generic]], name: str) -> list[Answered]:
    ends = np.cumsum(found[f"n_{name}"].astype(np.int64))[:-1]
    pairs = zip(np.split(found[f"p_{name}"], ends), np.split(found[f"y_{name}"], ends), strict=True)
    return [(p.astype(np.float32), y.astype(np.bool_)) for p, y in pairs]


class Notebook:
    """Keeps one method's results in a folder, saving every few seconds; without a folder, in memory alone."""

    def __init__(self, folder: Path | None, name: str, key: str, cases: int) -> None:
        """Results under another key lie in another file: those of another split are not written over."""
        self._path = None if folder is None else folder / f"{_file_name(name)}-{key_of(key)}.npz"
        self._key, self._saved = key, time.monotonic()
        self.results = Results.load(self._path, key, cases) if self._path else Results.empty(cases)

    def save(self, *, now: bool = True) -> None:
        """Writes what there is; unless `now`, only when it has not been written lately."""
        if self._path and (now or time.monotonic() - self._saved > SAVE_EVERY_S):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self.results.save(self._path, self._key)
            self._saved = time.monotonic()


def kept(path: Path | None, key: str, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was found before under that key, else what is found now, which is kept as JSON."""
    if path is not None and path.is_file():
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if told["key"] == key:
                return dict(told["found"])
        except (ValueError, KeyError, TypeError):
            pass
    found = find()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".part")
        scratch.write_text(json.dumps({"key": key, "found": found}, indent=1), encoding="utf-8")
        os.replace(scratch, path)
    return found


def key_of(*parts: object) -> str:
    """Sixteen hex digits of what results depend on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def outcomes(case: Case, items: list[str], actions: Mapping[str, frozenset[str]]) -> dict[str, npt.NDArray[np.bool_]]:
    """By head, for which candidates its answer came true; an item whose action nobody told counts for every head."""
    found = {}
    for head, wanted in actions.items():
        true = {
            item_id
            for item_id in (case.labels if case.listed is not None else case.wanted)
            if (case.acts[item_id] in wanted if item_id in case.acts else case.labels[item_id] > 0)
        }
        found[head] = np.array([item_id in true for item_id in items])
    return found


def _file_name(name: str) -> str:
    """A method's name as a file's: other systems are called as they like."""
    return name if name.isidentifier() else f"file-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


@cache
def code_version() -> str:
    """Sixteen hex digits of the programme and its files of settings: results of another one are not taken up."""
    told = hashlib.sha256()
    root = Path(surfaces.__file__).parent.parent
    for floor in ("prompts", "foundation", "surfaces", "configs"):
        for path in sorted((root / floor).rglob("*")):
            if path.suffix in (".py", ".yaml"):
                told.update(path.read_bytes())
    return told.hexdigest()[:16]
