"""The small ledger by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from surfaces.ledger.store import Ledger
from tests.surfaces.evaluation.shelf import fill


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite") as opened:
        fill(opened)
        yield opened
