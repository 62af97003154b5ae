"""The store in a database: one SQLite file by default, PostgreSQL when its URL is given.

A transaction has the store to itself from its first statement: SQLite takes its write lock at once (BEGIN
IMMEDIATE), PostgreSQL an advisory lock. Check and write are one step, and the primary key of `holding` is the
last wall behind them.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine, column, create_engine, delete, event, func, insert, inspect, select, table
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.sql import ColumnElement, or_

from coflex.adapters.store.mapping import Layout, Row
from coflex.adapters.store.memory import UTC_ZONE, Batches, Filters, KeyTaken, RowTransaction, Turn
from coflex.adapters.store.tables import TABLES, VERSION, VERSION_TABLE
from coflex.domain.errors import CoflexError
from coflex.process.ports import Event, Transaction

ADVISORY_LOCK = 0x636F666C6578  # "coflex": the one lock of a PostgreSQL database that holds a store


class SqlTransaction(RowTransaction):
    """Rows in tables, on a connection that is inside an exclusive transaction."""

    def __init__(self, connection: Connection, zone: ZoneInfo) -> None:
        super().__init__(zone)
        self._connection = connection

    def _insert(self, batches: Batches) -> None:
        try:
            with self._connection.begin_nested():
                for layout, rows in batches:
                    names = [c.name for c in layout.columns]
                    values = [dict(zip(names, row, strict=True)) for row in rows]
                    self._connection.execute(insert(TABLES[layout.kind]), values)
        except IntegrityError:
            raise KeyTaken from None

    def _select(self, layout: Layout, filters: Filters) -> list[Row]:
        kept = TABLES[layout.kind]
        query = select(kept).where(*_conditions(layout, filters)).order_by(*kept.primary_key.columns)
        return [tuple(row) for row in self._connection.execute(query)]

    def _delete(self, layout: Layout, filters: Filters) -> int:
        query = delete(TABLES[layout.kind]).where(*_conditions(layout, filters))
        return self._connection.execute(query).rowcount

    def _last_event(self) -> int:
        last = self._connection.execute(select(func.max(TABLES[Event].c.number))).scalar()
        return int(last or 0)


def _conditions(layout: Layout, filters: Filters) -> list[ColumnElement[bool]]:
    """One SQL condition a filter; NULL matches as a value does."""
    conditions = []
    for place, kept in filters:
        field = TABLES[layout.kind].c[layout.columns[place].name]
        among = field.in_([value for value in kept if value is not None])
        conditions.append(or_(among, field.is_(None)) if None in kept else among)
    return conditions


class SqlStore:
    """A store in a database; opening it creates its tables or brings them to the current version.

    `place`: the path of a file, or a database URL (`postgresql+psycopg://user@host/name`). `zone`: the market's,
    in which a unit sold twice is reported. `wait_s`: how long a transaction waits for another process's.
    Raises CoflexError, with the next step, when the place holds something else or a newer version.
    """

    def __init__(self, place: str | Path, zone: ZoneInfo = UTC_ZONE, wait_s: float = 60.0) -> None:
        url = _url(place)
        self._place = url.database if _is_file(url) else url.render_as_string(hide_password=True)
        self._zone = zone
        self._wait_s = wait_s
        self._turn = Turn()
        self._engine = _engine(url, wait_s)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One unit of work, alone: all of it is written at its end, or nothing when an exception leaves it.

        Raises CoflexError when another process holds the store for longer than `wait_s`, or the database fails.
        """
        with self._turn, self._failures("failed"), self._exclusive() as connection:
            work = SqlTransaction(connection, self._zone)
            try:
                yield work
                work.write_events()
            finally:
                work.end()
            connection.commit()

    def close(self) -> None:
        """Let go of the database; a SQLite store is one file again."""
        self._engine.dispose()

    @contextmanager
    def _exclusive(self) -> Iterator[Connection]:
        """A connection inside a transaction that no other one shares; rolled back unless it is committed."""
        with self._engine.connect() as connection:
            connection.begin()
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.set_config("lock_timeout", f"{round(self._wait_s * 1000)}", True)))
                connection.execute(select(func.pg_advisory_xact_lock(ADVISORY_LOCK)))
            yield connection

    @contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        """Tell what the database says in the project's own errors, with the next step."""
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as fault:
            reason = str(getattr(fault, "orig", None) or fault).strip().splitlines()[0]
            raise self._told(what, reason) from fault

    def _told(self, what: str, reason: str) -> CoflexError:
        if "not a database" in reason:
            return self._foreign()
        if "database is locked" in reason or "lock timeout" in reason:
            return CoflexError(
                f"The store {self._place} was held by another process for more than {self._wait_s:g} s.",
                "Wait until that process has ended, or end it.",
            )
        return CoflexError(
            f"The store {self._place} {what}: {reason}.", "Check the place, its rights and its free space."
        )

    def _open(self) -> None:
        with self._failures("cannot be opened"):
            with self._exclusive() as connection:
                version = self._version(connection)
            if version == VERSION:
                return
            if self._engine.dialect.name == "sqlite":
                self._write_ahead()
            with self._exclusive() as connection:
                if self._version(connection) != VERSION:
                    _migrate(connection)
                connection.commit()

    def _version(self, connection: Connection) -> str | None:
        """The version of the tables there, None where there are none. Raises CoflexError on foreign tables."""
        names = inspect(connection).get_table_names()
        if not names:
            return None
        if VERSION_TABLE not in names:
            raise self._foreign()
        version = connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE))).scalar()
        if version is not None and version > VERSION:
            raise CoflexError(
                f"The store {self._place} has version {version}; this coflex knows versions up to {VERSION}.",
                "Update coflex, or open another store.",
            )
        return version

    def _foreign(self) -> CoflexError:
        return CoflexError(f"{self._place} is no coflex store.", "Give the path of one, or of a new file.")

    def _write_ahead(self) -> None:
        """Turn on the write-ahead log: readers from outside never wait. The file remembers it."""
        deadline = time.monotonic() + self._wait_s
        raw = self._engine.raw_connection()
        try:
            while True:
                try:
                    raw.cursor().execute("PRAGMA journal_mode = WAL")
                    return
                except sqlite3.OperationalError:  # SQLite itself does not wait here for another that opens the file
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
        finally:
            raw.close()


def _url(place: str | Path) -> URL:
    """The database URL of a path or URL. Raises CoflexError on a database that coflex does not keep its store in."""
    if isinstance(place, Path) or "://" not in place:
        return URL.create("sqlite", database=str(place))
    try:
        url = make_url(place)
    except ArgumentError:
        raise CoflexError("The database URL cannot be read.", "Write postgresql+psycopg://user@host/name.") from None
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise CoflexError(
            f"coflex keeps no store in {url.get_backend_name()}.", "Give the path of a file, or a PostgreSQL URL."
        )
    if _is_file(url) and url.database in (None, "", ":memory:"):
        raise CoflexError("A SQLite store needs a file.", "Give its path, or use MemoryStore.")
    return url


def _is_file(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _engine(url: URL, wait_s: float) -> Engine:
    if _is_file(url):
        engine = create_engine(url, connect_args={"timeout": wait_s})
        event.listen(engine, "connect", _prepare_file)
        event.listen(engine, "begin", _begin_immediate)
        return engine
    try:
        return create_engine(url, isolation_level="READ COMMITTED")
    except (ModuleNotFoundError, NoSuchModuleError):
        raise CoflexError(
            f"The driver of {url.drivername} is not installed.",
            "Install psycopg and write the URL as postgresql+psycopg://user@host/name.",
        ) from None


def _prepare_file(connection: Any, record: object) -> None:
    """Leave transactions to SQLAlchemy's events (its documented recipe), and every commit on the disk."""
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _migrate(connection: Connection) -> None:
    """Bring the tables to the newest version, in the connection's own transaction and without a word."""
    logging.getLogger("alembic").setLevel(logging.WARNING)  # before the import, which has something to say
    # Alembic is imported here: a store that is up to date opens without it.
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection, "version_table": VERSION_TABLE})
    config.set_main_option("script_location", "coflex.adapters.store:migrations")
    command.upgrade(config, "head")
