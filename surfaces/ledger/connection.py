"""A database behind a URL: how it is opened, and how reads and writes begin."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import URL, Connection, Dialect, Engine, Select, create_engine, event, func, make_url, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from prompts.errors import LedgerError
from surfaces.ledger import schema

BUSY_MS = 30_000
_WRITE = "prismrank_write"
_TURN = 0x7072_6973  # a lock of PostgreSQL has a number; one that other programs are unlikely to choose


def connect(url: str, *, create: bool) -> Engine:
    """An engine whose tables exist. Raises LedgerError when the URL is wrong or the database cannot be opened."""
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        _check_file(parsed, create=create)
    with as_ledger_error(f"cannot open {parsed.render_as_string()}"):
        engine = _engine(parsed)
        with _turn(engine) as connection:
            schema.metadata.create_all(connection)
    return engine


def _parse(url: str) -> URL:
    right = "sqlite:///ledger.sqlite or postgresql://user@host/database is right"
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise LedgerError(f"not the URL of a ledger: {url.rpartition('@')[2]!a}; {right}") from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise LedgerError(f"a ledger cannot live in {parsed.get_backend_name()}; {right}")
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed


def _check_file(url: URL, *, create: bool) -> None:
    if url.database in (None, "", ":memory:"):
        raise LedgerError("a ledger in memory would be lost; name a file, such as sqlite:///ledger.sqlite")
    path = Path(str(url.database))
    if not path.parent.is_dir():
        raise LedgerError(f"no folder {path.parent} to hold the ledger {path.name}")
    if not create and not path.is_file():
        raise LedgerError(f"no ledger at {path}; `prismrank import` makes one")


def _engine(url: URL) -> Engine:
    postgres = url.get_backend_name() == "postgresql"
    engine = create_engine(url, hide_parameters=True, pool_pre_ping=postgres, pool_use_lifo=True)  # the warm one first
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={BUSY_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and then writes fails at once when another wrote between: writers say so early.
    if connection.get_execution_options().get(_WRITE, False):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:  # every reader's, which asks nothing of the file yet: straight to the driver it takes a fraction of the time
        connection.connection.cursor().execute("BEGIN")


class Prepared:
    """A query that is asked so often that it goes to the driver: SQLAlchemy takes five times as long as SQLite does.

    Its columns are of types that drivers return as they are.
    """

    def __init__(self, query: Select[*tuple[Any, ...]], dialect: Dialect) -> None:
        compiled = query.compile(dialect=dialect)
        self._text, self._fixed, self._order = str(compiled), compiled.params, compiled.positiontup
        self._failed: type[Exception] = dialect.loaded_dbapi.Error

    def rows(self, connection: Connection, **asked: object) -> Sequence[Sequence[Any]]:
        """What comes of it in the connection's transaction. Raises SQLAlchemyError."""
        values = {**self._fixed, **asked}
        cursor = connection.connection.cursor()
        try:
            cursor.execute(self._text, values if self._order is None else [values[name] for name in self._order])
            return cursor.fetchall()
        except self._failed as error:
            raise SQLAlchemyError(str(error)) from error
        finally:
            cursor.close()


class _Holding(NamedTuple):
    """A transaction that `together` holds, and what was found out in it."""

    connection: Connection
    notes: dict[object, object]


class _Held(threading.local):
    """What `together` holds in this thread, by engine."""

    def __init__(self) -> None:
        self.by_engine: dict[Engine, _Holding] = {}


_held = _Held()


@contextmanager
def together(engine: Engine) -> Iterator[None]:
    """What this thread reads inside is read on one connection, in one transaction: of one moment, and faster."""
    if engine in _held.by_engine:
        yield
        return
    with reading(engine) as connection:
        _held.by_engine[engine] = _Holding(connection, {})
        try:
            yield
        finally:
            del _held.by_engine[engine]


def notes(engine: Engine) -> dict[object, object]:
    """For what this thread has found out inside of `together`, and need not read again; outside, nothing is kept."""
    held = _held.by_engine.get(engine)
    return held.notes if held else {}


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection in a read transaction."""
    if held := _held.by_engine.get(engine):
        with as_ledger_error("the ledger cannot be read"):
            yield held.connection
        return
    with as_ledger_error("the ledger cannot be read"), engine.begin() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction that is written whole, or not at all. Writers take turns."""
    with as_ledger_error("the ledger cannot be written"), _turn(engine) as connection:
        yield connection


@contextmanager
def _turn(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(**{_WRITE: True}) as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_TURN)))
        yield connection


@contextmanager
def as_ledger_error(what: str) -> Iterator[None]:
    """Turns the database's errors into LedgerError with one line of reason."""
    try:
        yield
    except (SQLAlchemyError, ImportError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise LedgerError(f"{what}: {reason}") from error
