"""A query on the ledger's database: only reading, and not for long."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from prompts.errors import LedgerError
from surfaces.sources.sql_written import NUMBER, TABLES

SECONDS = 0.25
"""How long a query may take."""
LENGTH_CAP = 10_000_000
"""Bytes of one value in SQLite."""
_NUMBER = re.compile(r"[+-]?\d{1,30}(\.\d{1,30})?([eE][+-]?\d{1,2})?", re.ASCII)
_READ = frozenset(f"prismrank_{name}" for name in TABLES)
_CALLED = frozenset({
    "count", "sum", "avg", "min", "max", "coalesce", "nullif", "lower", "upper", "length", "trim", "substr",
    "substring", "round", "abs", "like", "json_type", "json_extract", NUMBER,
})  # fmt: skip

Values = Mapping[str, str | int | float | None]


@dataclass(frozen=True, slots=True)
class Running:
    """A query that is ready to run."""

    engine: Engine
    sql: str

    def rows(self, values: Values) -> list[Sequence[Any]]:
        """All rows. Raises LedgerError for what the database refuses, and when it takes too long."""
        return self._run(self.sql, values)

    def check(self, values: Values) -> None:
        """Lets the database plan the query. Raises LedgerError when it refuses."""
        self._run(f"EXPLAIN {self.sql}", values)

    def _run(self, sql: str, values: Values) -> list[Sequence[Any]]:
        run = _on_postgres if self.engine.dialect.name == "postgresql" else _on_sqlite
        try:
            return run(self.engine, sql, values)
        except (SQLAlchemyError, sqlite3.Error) as error:
            reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
            raise LedgerError(f"longer than {SECONDS} s" if reason == "interrupted" else reason) from error


def _on_postgres(engine: Engine, sql: str, values: Values) -> list[Sequence[Any]]:
    with engine.connect() as connection, connection.begin() as transaction:
        limits = f"set_config('statement_timeout', '{round(SECONDS * 1_000)}', true)"
        connection.exec_driver_sql(f"SELECT set_config('transaction_read_only', 'on', true), {limits}")
        rows: list[Sequence[Any]] = list(connection.exec_driver_sql(sql, dict(values)).fetchall())
        transaction.rollback()
        return rows


def _on_sqlite(engine: Engine, sql: str, values: Values) -> list[Sequence[Any]]:
    path = Path(str(engine.url.database)).resolve()
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=SECONDS)) as connection:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LENGTH_CAP)
        connection.create_function(NUMBER, 1, number, deterministic=True)
        connection.execute("PRAGMA query_only=ON")
        connection.execute("PRAGMA case_sensitive_like=ON")  # as in PostgreSQL
        connection.set_authorizer(_may)
        end = time.monotonic() + SECONDS
        connection.set_progress_handler(lambda: time.monotonic() > end, 1_000)
        return connection.execute(sql, dict(values)).fetchall()


def _may(action: int, first: str | None, second: str | None, *_: object) -> int:
    """SQLite's own check, behind ours: what a statement may do, whatever it says."""
    reads = action == sqlite3.SQLITE_READ and (first in _READ or not first)
    calls = action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _CALLED
    return sqlite3.SQLITE_OK if action == sqlite3.SQLITE_SELECT or reads or calls else sqlite3.SQLITE_DENY


def number(value: object) -> float | None:
    """CAST(value AS REAL) as queries have it: NULL for what is no number."""
    if isinstance(value, int | float):
        return float(value)
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else None
