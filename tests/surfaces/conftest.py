"""Ledgers that many tests need: MovieLens-100K, imported once, from the cache; and small ones to write surfaces for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from surfaces.ledger.store import Ledger
from surfaces.ledger.tables import import_tables
from surfaces.worlds.movielens import load_movielens
from tests.surfaces.shelves import fill_jobs
from tests.surfaces.world import fill


@pytest.fixture(scope="session")
def movielens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """The ledger. Fails where the package that carries the data is neither in the cache nor to be had."""
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('movielens')}/ledger.sqlite") as ledger:
        import_tables(load_movielens(), ledger)
        yield ledger


@pytest.fixture(scope="module")
def open_new(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Ledger]]:
    """Makes an empty ledger."""
    folder, numbers, made = tmp_path_factory.mktemp("authoring"), count(), list[Ledger]()

    def another() -> Ledger:
        made.append(Ledger.open(f"sqlite:///{folder / f'{next(numbers)}.sqlite'}"))
        return made[-1]

    yield another
    for ledger in made:
        ledger.close()


@pytest.fixture(scope="module")
def jobs(open_new: Callable[[], Ledger]) -> Ledger:
    ledger = open_new()
    fill_jobs(ledger)
    return ledger


@pytest.fixture(scope="module")
def films(open_new: Callable[[], Ledger]) -> Ledger:
    ledger = open_new()
    fill(ledger)
    return ledger
