"""Where a run's data come from: ledgers, and tables of A/B tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from foundation.training.distributed import Processes
from prompts.errors import ConfigError
from surfaces.examples.ab_tests import Columns, SplitTests
from surfaces.ledger.store import Ledger
from surfaces.ledger.tables import import_tables
from surfaces.worlds.movielens import load_movielens
from surfaces.worlds.network import Network


class DataSpec(BaseModel):
    """Where members and events come from, or A/B tests, and which surfaces learn from them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    surfaces: tuple[str, ...] = Field(min_length=1)
    ledger: str | None = Field(None, description="A ledger's address.")
    dataset: Literal["movielens-100k"] | None = None
    world: Literal["network"] | None = None
    tests: Path | None = Field(None, description="A table of A/B tests: .parquet, .jsonl or .csv, a row for each text.")
    columns: Columns = Field(Columns(), description="What the columns of a table of tests are called.")
    held_out: float = Field(0.2, ge=0, le=0.8, description="Share of the tests that nothing is learned from.")
    members: int = Field(1_000, ge=10, description="Of a world.")
    seed: int = Field(0, ge=0, description="Draws a world, and which tests are held out.")
    learn: bool = Field(True, description="Whether its surfaces are learned from, or held out and only validated.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.ledger, self.dataset, self.world, self.tests)) != 1:
            raise ValueError("give one of 'ledger', 'dataset' and 'world', or 'tests'")
        return self

    @property
    def name(self) -> str:
        """A file name for a ledger of the run's own."""
        return self.dataset or f"{self.world}-{self.members}-{self.seed}"


@contextmanager
def opened(specs: Sequence[DataSpec], folder: Path) -> Iterator[list[Ledger]]:
    """The ledgers, in their order; data sets and worlds go into ledgers in the run's folder."""
    with ExitStack() as stack:
        yield [stack.enter_context(_opened(spec, folder)) for spec in specs]


@contextmanager
def _opened(spec: DataSpec, folder: Path) -> Iterator[Ledger]:
    if spec.ledger is not None:
        with Ledger.open(spec.ledger, create=False) as ledger:
            yield ledger
        return
    folder.mkdir(parents=True, exist_ok=True)
    with Processes.here().in_turn():
        ledger = Ledger.open(f"sqlite:///{folder / spec.name}.sqlite")
        if not ledger.counts().events:
            import_tables(load_movielens() if spec.dataset else Network(spec.members, spec.seed).tables(), ledger)
    with ledger:
        yield ledger


def split_tests(spec: DataSpec) -> SplitTests:
    """The A/B tests. Raises ConfigError, also where there are none, and LedgerError as `SplitTests.read` does."""
    if spec.tests is None:
        raise ConfigError(f"data: the surface '{spec.surfaces[0]}' has no 'tests'; give a table of A/B tests")
    return SplitTests.read(spec.tests, spec.columns, held_out=spec.held_out, seed=spec.seed)


def check_surfaces(specs: Sequence[DataSpec]) -> None:
    """Raises ConfigError for a surface that is named twice, and where nothing is learned from."""
    names = [name for spec in specs for name in spec.surfaces]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"data: the surface '{name}' is named {names.count(name)} times; give it one ledger")
    if not any(spec.learn for spec in specs):
        raise ConfigError("data: 'learn' is false everywhere; there is nothing to learn from")
