"""A small ledger by hand, and a simulated network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from surfaces.ledger.store import Ledger
from surfaces.ledger.tables import import_tables
from surfaces.worlds.network import Network
from tests.surfaces.evaluation.shelf import fill


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite") as opened:
        fill(opened)
        yield opened


@pytest.fixture(scope="package")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('network')}/ledger.sqlite") as ledger:
        import_tables(Network(100, seed=3).tables(), ledger)
        yield ledger
