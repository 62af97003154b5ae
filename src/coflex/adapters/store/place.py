"""Where a store is: a SQLite file, or a database of a PostgreSQL server. How it is opened, and what its faults say.

A transaction has the store to itself from its first statement: SQLite takes its write lock at once (BEGIN
IMMEDIATE), PostgreSQL an advisory lock.
"""

from __future__ import annotations

import logging
import socket
import sqlite3
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, column, create_engine, event, func, inspect, select, table
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from coflex.adapters.store.tables import VERSION, VERSION_TABLE
from coflex.domain.errors import CoflexError

ADVISORY_LOCK = 0x636F666C6578  # "coflex": the one lock of a PostgreSQL database that holds a store
FAULTS = (SQLAlchemyError, sqlite3.Error, OSError)
# Seconds without a word from a PostgreSQL server after which its link counts as lost.
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Place:
    """A place by its URL. `name`: as messages say it, without a password."""

    url: URL
    name: str

    @property
    def is_file(self) -> bool:
        return _is_file(self.url)

    @property
    def file(self) -> Path:
        """The path of a SQLite store."""
        return Path(self.url.database or "")

    def engine(self, wait_s: float, *, writes: bool = True) -> Engine:
        """An engine; `wait_s`: how long a transaction waits for another process's (SQLite). Without `writes` its
        transactions see one state of the store and wait for nobody.

        Raises CoflexError when the driver is not installed.
        """
        if self.is_file:
            engine = create_engine(self.url, connect_args={"timeout": wait_s})
            event.listen(engine, "connect", _prepare_file if writes else _prepare_reading)
            event.listen(engine, "begin", _begin_immediate if writes else _begin)
            return engine
        return self._server_engine("READ COMMITTED" if writes else "REPEATABLE READ", pool_pre_ping=not writes)

    def writer_engine(self, wait_s: float, patience_s: float) -> Engine:
        """An engine whose one connection is kept by who writes the journal, in any thread, and who begins and ends
        transactions itself.

        `patience_s`: seconds after which a PostgreSQL server that says nothing counts as lost.
        """
        if self.is_file:
            options = {"timeout": wait_s, "check_same_thread": False, "cached_statements": 200}
            engine = create_engine(self.url, connect_args=options, poolclass=NullPool, isolation_level="AUTOCOMMIT")
            event.listen(engine, "connect", _prepare_writer)
            return engine
        return self._server_engine("AUTOCOMMIT", patience_s, poolclass=NullPool)

    def _server_engine(self, isolation: str, patience_s: float = PATIENCE_S, **options: Any) -> Engine:
        url, arguments = _driver_options(self.url, patience_s)
        try:
            engine = create_engine(url, isolation_level=isolation, connect_args=arguments, **options)
        except (ModuleNotFoundError, NoSuchModuleError):
            raise CoflexError(
                f"The driver of {self.url.drivername} is not installed.",
                "Write the URL as postgresql://user@host/name.",
            ) from None
        event.listen(engine, "connect", _prepare_link)
        return engine


def place_of(where: str | Path) -> Place:
    """The place of a path or URL; `postgresql://` means the driver that coflex brings.

    Raises CoflexError on a database that coflex does not keep its store in.
    """
    url = _url(where)
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+pg8000")
    return Place(url, str(url.database) if _is_file(url) else url.render_as_string(hide_password=True))


def _url(where: str | Path) -> URL:
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(where))
    try:
        url = make_url(where)
    except ArgumentError:
        raise CoflexError("The database URL cannot be read.", "Write postgresql://user@host/name.") from None
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise CoflexError(
            f"coflex keeps no store in {url.get_backend_name()}.", "Give the path of a file, or a PostgreSQL URL."
        )
    if _is_file(url) and url.database in (None, "", ":memory:"):
        raise CoflexError("A SQLite store needs a file.", "Give its path, or use MemoryStore.")
    return url


def _is_file(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _driver_options(url: URL, patience_s: float) -> tuple[URL, dict[str, Any]]:
    """What a driver is told beside the URL: who we are, when a link is lost, and for pg8000 also TLS, whose words
    (`sslmode`, `sslrootcert`) only the others know."""
    driver = url.get_driver_name()
    if driver == "psycopg":
        waits = {"connect_timeout": max(2, round(patience_s)), "tcp_user_timeout": round(patience_s * 1000)}
        return url, {"application_name": "coflex", **waits}
    if driver != "pg8000":
        return url, {}
    arguments = {"application_name": "coflex", "timeout": patience_s, "ssl_context": _tls(url.query)}
    return url.difference_update_query(["sslmode", "sslrootcert"]), arguments


def _tls(query: Any) -> ssl.SSLContext | bool | None:
    """False: no TLS; None: if the server offers it."""
    mode = query.get("sslmode", "prefer")
    if mode in ("disable", "allow", "prefer"):
        return False if mode == "disable" else None
    context = ssl.create_default_context(cafile=query.get("sslrootcert"))
    context.check_hostname = mode == "verify-full"
    if mode == "require" and "sslrootcert" not in query:
        context.verify_mode = ssl.CERT_NONE
    return context


def _prepare_file(connection: Any, record: object) -> None:
    """Leave transactions to SQLAlchemy's events (its documented recipe), and every commit on the disk."""
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")


def _prepare_link(connection: Any, record: object) -> None:
    """Let pg8000 send small messages at once; left to itself, each may wait for the answer to the one before."""
    link = getattr(connection, "_usock", None)
    if link is not None and link.family in (socket.AF_INET, socket.AF_INET6):
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _prepare_reading(connection: Any, record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only = ON")


def _prepare_writer(connection: Any, record: object) -> None:
    """As for every file; moving the log into the file is left to the writer, who must know when it fails."""
    _prepare_file(connection, record)
    connection.execute("PRAGMA fullfsync = ON")  # where the system's own sync stops before the disk
    connection.execute("PRAGMA secure_delete = ON")  # erased data is overwritten
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA cache_size = -65536")  # KiB: the inner pages of every index


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


# ---------------------------------------------------------------- faults


def reason(fault: BaseException) -> str:
    """What a database says, in one line."""
    said = getattr(fault, "orig", None) or fault
    if said.args and isinstance(said.args[0], dict):  # pg8000 tells the fields of the server's answer
        return str(said.args[0].get("M", said)).strip().splitlines()[0]
    return (str(said).strip() or type(said).__name__).splitlines()[0]


def sqlstate(fault: BaseException) -> str | None:
    """PostgreSQL's code of a fault that the server itself told; None for everything else."""
    said = getattr(fault, "orig", None) or fault
    if said.args and isinstance(said.args[0], dict):
        return said.args[0].get("C")
    return getattr(said, "sqlstate", None)


def sqlite_code(fault: BaseException) -> int | None:
    """SQLite's primary code of a fault; None for everything else."""
    said = getattr(fault, "orig", None) or fault
    code = getattr(said, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def foreign(place: Place) -> CoflexError:
    return CoflexError(f"{place.name} is no coflex store.", "Give the path of one, or of a new file.")


def told(place: Place, what: str, fault: BaseException, wait_s: float) -> CoflexError:
    """What the database says in the project's own error, with the next step."""
    said = reason(fault)
    if "not a database" in said:
        return foreign(place)
    if "database is locked" in said or "lock timeout" in said:
        return CoflexError(
            f"The store {place.name} was held by another process for more than {wait_s:g} s.",
            "Wait until that process has ended, or end it.",
        )
    return CoflexError(f"The store {place.name} {what}: {said}.", "Check the place, its rights and its free space.")


@contextmanager
def failures(place: Place, what: str, wait_s: float = 0.0) -> Iterator[None]:
    """Tell faults of the database in the project's own errors."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as fault:
        raise told(place, what, fault, wait_s) from fault


# ---------------------------------------------------------------- opening


@contextmanager
def exclusive(engine: Engine, wait_s: float) -> Iterator[Connection]:
    """A connection inside a transaction that no other one shares; rolled back unless it is committed."""
    with engine.connect() as connection:
        connection.begin()
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.set_config("lock_timeout", f"{round(wait_s * 1000)}", True)))
            connection.execute(select(func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        yield connection


def open_tables(place: Place, engine: Engine, wait_s: float) -> str | None:
    """Create the tables, or bring them to the current version; the version that was there, None for none.

    Raises CoflexError, with the next step, when the place holds something else or a newer version.
    """
    with failures(place, "cannot be opened", wait_s):
        with exclusive(engine, wait_s) as connection:
            version = version_there(place, connection)
        if version == VERSION:
            return version
        if place.is_file:
            write_ahead(engine, wait_s)
        with exclusive(engine, wait_s) as connection:
            if version_there(place, connection) != VERSION:
                migrate_tables(connection)
            connection.commit()
        return version


def open_reading(place: Place, wait_s: float = 5.0) -> Engine:
    """An engine whose transactions see one state of a store of this version, and never wait for who writes.

    Raises CoflexError where there is no store, a newer one, or one that is to be migrated first.
    """
    if place.is_file and not place.file.exists():
        raise foreign(place)
    engine = place.engine(wait_s, writes=False)
    try:
        with failures(place, "cannot be opened", wait_s), engine.connect() as connection:
            version = version_there(place, connection)
        if version is None:
            raise foreign(place)
        if version != VERSION:
            raise CoflexError(
                f"The store {place.name} has version {version}; this coflex reads version {VERSION}.",
                "Migrate the store.",
            )
    except BaseException:
        engine.dispose()
        raise
    return engine


def version_there(place: Place, connection: Connection) -> str | None:
    """The version of the tables there, None where there are none. Raises CoflexError on foreign or newer tables."""
    names = inspect(connection).get_table_names()
    if not names:
        return None
    if VERSION_TABLE not in names:
        raise foreign(place)
    version: str | None = connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE))).scalar()
    if version is not None and version > VERSION:
        raise CoflexError(
            f"The store {place.name} has version {version}; this coflex knows versions up to {VERSION}.",
            "Update coflex, or open another store.",
        )
    return version


def write_ahead(engine: Engine, wait_s: float) -> None:
    """Turn on the write-ahead log: readers from outside never wait. The file remembers it."""
    deadline = time.monotonic() + wait_s
    raw = engine.raw_connection()
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


def migrate_tables(connection: Connection) -> None:
    """Bring the tables to the newest version, in the connection's own transaction and without a word."""
    logging.getLogger("alembic").setLevel(logging.WARNING)  # before the import, which has something to say
    # Alembic is imported here: a store that is up to date opens without it.
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection, "version_table": VERSION_TABLE})
    config.set_main_option("script_location", "coflex.adapters.store:migrations")
    command.upgrade(config, "head")
