"""MovieLens-100K in a ledger, for every test that needs real members: imported once, from the cache."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from surfaces.ledger.store import Ledger
from surfaces.ledger.tables import import_tables
from surfaces.worlds.movielens import load_movielens


@pytest.fixture(scope="session")
def movielens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """The ledger. Fails where the package that carries the data is neither in the cache nor to be had."""
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('movielens')}/ledger.sqlite") as ledger:
        import_tables(load_movielens(), ledger)
        yield ledger
