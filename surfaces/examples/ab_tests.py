"""A/B tests of texts: which of a few headlines, subject lines or ads was clicked more often, from a table of counts.

A test has no member: its tree is an empty trunk, a stem that says what the texts are about, a leaf for every text.
Legend of array names: K texts of a test.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from prompts.errors import ConfigError
from surfaces.ledger.files import READERS, read_file
from surfaces.ledger.records import quoted

VALIDATING = 0.1
"""Share of the tests that a run validates on."""
DRAWS = 4_000
"""Of a posterior."""
SIGNIFICANT = 0.05

Row = Mapping[str, object]
Floats = npt.NDArray[np.float64]


class Columns(BaseModel):
    """What the columns of a table of tests are called: one row for each text of a test."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    test: str = Field("test_id", description="Which test the row belongs to.")
    text: str = "text"
    impressions: str = Field("impressions", description="To how many the text was shown.")
    clicks: str = Field("clicks", description="How many of them clicked it.")
    context: str = Field("context", description="What all texts of the test are about; a table may have none.")

    @property
    def needed(self) -> tuple[str, ...]:
        """Those that a table must have: the context only where it was given a name."""
        named = (self.context,) if "context" in self.model_fields_set else ()
        return (self.test, self.text, self.impressions, self.clicks, *named)


class Posterior(NamedTuple):
    """The probabilities [K] that a text has the highest rate, and [i, j] that text i's rate is above text j's."""

    best_K: Floats
    beats_KK: Floats


@dataclass(frozen=True)
class ABTest:
    """Texts that were shown to as good as the same people, and how often each was shown and clicked."""

    test_id: str
    context: str
    texts: tuple[str, ...]
    impressions: tuple[int, ...]
    clicks: tuple[int, ...]

    @cached_property
    def rates_K(self) -> Floats:
        """Clicks of an impression."""
        rates_K: Floats = np.array(self.clicks) / np.array(self.impressions)
        return rates_K

    @property
    def best(self) -> int:
        """The text with the highest click rate, the first of equal ones."""
        return int(self.rates_K.argmax())

    @cached_property
    def posterior(self) -> Posterior:
        """What the counts say of the true rates under a uniform prior: each is Beta(1 + clicks, 1 + others).

        A. Gelman et al., "Bayesian Data Analysis" (2013), section 2.1. From draws, the same for the same counts.
        """
        clicks, shown = np.array(self.clicks), np.array(self.impressions)
        draws_RK = np.random.default_rng(0).beta(1 + clicks, 1 + shown - clicks, size=(DRAWS, len(clicks)))
        best_K = np.bincount(draws_RK.argmax(axis=1), minlength=len(clicks)) / DRAWS
        return Posterior(best_K, (draws_RK[:, :, None] > draws_RK[:, None, :]).mean(axis=0))

    def significant(self, one: int, other: int) -> bool:
        """Whether two texts' rates differ: the two-sided test of two proportions with a pooled variance."""
        shown = self.impressions[one], self.impressions[other]
        pooled = (self.clicks[one] + self.clicks[other]) / sum(shown)
        error = math.sqrt(pooled * (1 - pooled) * (1 / shown[0] + 1 / shown[1]))
        gap = abs(float(self.rates_K[one] - self.rates_K[other]))
        return error > 0 and math.erfc(gap / error / math.sqrt(2)) < SIGNIFICANT

    @property
    def clear(self) -> bool:
        """Whether the best text is significantly better than every other."""
        best = self.best
        return all(self.significant(best, other) for other in range(len(self.texts)) if other != best)


@dataclass(frozen=True)
class SplitTests:
    """The tests of a table in three parts, by a seeded hash of their ids: a test is whole in one of them."""

    learned: tuple[ABTest, ...]
    validating: tuple[ABTest, ...]
    held_out: tuple[ABTest, ...]

    @classmethod
    def read(cls, path: Path, columns: Columns, *, held_out: float, seed: int) -> SplitTests:
        """`held_out` is the share that nothing is learned from. Raises ConfigError where a part would be empty."""
        parts: tuple[list[ABTest], ...] = ([], [], [])
        every = read_tests(path, columns)
        for each in every:
            place = _place(each.test_id, seed)
            parts[2 if place < held_out else 1 if place < held_out + VALIDATING else 0].append(each)
        if not (parts[0] and parts[1]):
            raise ConfigError(f"{path}: {len(every)} tests of two texts or more are too few to learn and validate")
        return cls(*map(tuple, parts))


def _place(test_id: str, seed: int) -> float:
    """Where a test falls between 0 and 1."""
    digest = hashlib.blake2b(f"{seed}:{test_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def read_tests(path: Path, columns: Columns) -> list[ABTest]:
    """The tests of a .parquet, .jsonl or .csv file with two texts or more, in the order of the file.

    Rows of one test with the same text are added up; a test's context is that of its first row. Raises ConfigError
    for a file that cannot be one, a column that is missing and a row that cannot be, and LedgerError for a damaged
    file.
    """
    if path.suffix not in READERS or not path.is_file():
        raise ConfigError(f"{path}: no such file; tests are a .parquet, .jsonl or .csv file, a row for each text")
    table = read_file(path)
    for name in columns.needed:
        if name not in table.columns:
            known = ", ".join(map(str, table.columns))
            raise ConfigError(f"{path}: no column '{name}' (it has {known}); say under 'columns' what yours is called")
    return list(_tests(path, table.rows, columns))


def _tests(path: Path, rows: Iterable[Row], columns: Columns) -> Iterator[ABTest]:
    counts: dict[str, dict[str, list[int]]] = {}
    contexts: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        where = f"{path}: row {number}"
        name = str(_filled(row, columns.test, where))
        shown = _count(row, columns.impressions, where, least=1)
        clicked = _count(row, columns.clicks, where, least=0)
        if clicked > shown:
            raise ConfigError(f"{where}: {clicked} clicks of {shown} impressions; clicks are at most as many")
        contexts.setdefault(name, str(row.get(columns.context) or ""))
        known = counts.setdefault(name, {}).setdefault(str(_filled(row, columns.text, where)), [0, 0])
        known[:] = known[0] + shown, known[1] + clicked
    for name, found in counts.items():
        if len(found) > 1:
            shown_K, clicked_K = zip(*found.values(), strict=True)
            yield ABTest(name, contexts[name], tuple(found), shown_K, clicked_K)


def _filled(row: Row, column: str, where: str) -> object:
    value = row.get(column)
    if value is None or not str(value).strip():
        raise ConfigError(f"{where}: '{column}' is empty")
    return value


def _count(row: Row, column: str, where: str, *, least: int) -> int:
    value = row.get(column)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{where}: '{column}' is {quoted(value)}; it is a whole number from {least} on")
    return value
