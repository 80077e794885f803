"""The databases that a ledger may live in: SQLite always, PostgreSQL when PRISMRANK_TEST_POSTGRES holds a URL."""

from __future__ import annotations

import os
from collections.abc import Callable

from surfaces.ledger.store import Ledger

POSTGRES = os.environ.get("PRISMRANK_TEST_POSTGRES")
BACKENDS = ["sqlite", *(["postgres"] if POSTGRES else [])]

Open = Callable[[str], Ledger]
"""Opens a tenant (the fixture `open_tenant`)."""
