"""The care of a store: a copy while it serves, back again, its upgrade, a look at it, and the proof of its chain.

A copy is one SQLite file with all tables, also of a store in PostgreSQL: what one kind of database gave, the other
takes. It shows the store as it was at one instant. A restored place has all of it, or is as it was.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, MetaData, Table, func, inspect, select, text

from coflex.adapters.store.bulk import insert_rows
from coflex.adapters.store.journal_lock import InUse, holder, in_use, locked
from coflex.adapters.store.journal_verify import Verified, verify
from coflex.adapters.store.journal_writer import JOURNAL_LOCK, head_of, holder_of
from coflex.adapters.store.place import (
    Place,
    exclusive,
    failures,
    foreign,
    migrate_tables,
    open_reading,
    open_tables,
    place_of,
    told,
    version_there,
    write_ahead,
)
from coflex.adapters.store.tables import ENTRY, METADATA, VERSION, VERSION_TABLE
from coflex.domain.errors import CoflexError

__all__ = ["Copied", "Migrated", "Probe", "Verified", "backup", "migrate", "probe", "restore", "verify"]

Progress = Callable[[str], None]
PAGES_AT_ONCE = 2_000
ROWS_AT_ONCE = 1_000
WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy that was made or brought back. `entries`: of its journal. `bytes`: of the file."""

    file: str
    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Migrated:
    """Versions of the tables before (empty: there were none) and after."""

    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Probe:
    """A look at a store, nothing of it changed. `version`: of the database. `shape`: version of the tables, empty where
    there are none. `newest_shape`: what this coflex writes. `writer`: who holds the lock, empty where nobody does."""

    kind: str
    version: str
    shape: str
    newest_shape: str
    entries: int
    last_at: datetime | None
    writer: str


def _silent(said: str) -> None:
    """Tell nobody."""


# ---------------------------------------------------------------- a copy


def backup(place: str | Path, to: Path, progress: Progress = _silent) -> Copied:
    """Copy a store as it is now into a new file, also while a server writes to it.

    Raises CoflexError when the file is there already, cannot be written, or the place holds no store; then there is
    no file.
    """
    origin = place_of(place)
    if to.exists():
        raise CoflexError(f"{to} is there already.", "Name a new file.")
    with _new_file(to) as part:
        if origin.is_file:
            if not origin.file.exists():
                raise foreign(origin)
            _copy_file(origin, part, progress)
            _whole_store(place_of(part))
        else:
            _from_server(origin, place_of(part), progress)
        _single(part)
    return _copied(to)


def _copied(file: Path) -> Copied:
    with closing(sqlite3.connect(_uri(file), uri=True)) as connection:
        try:
            (entries,) = connection.execute("SELECT count(*) FROM entry").fetchone()
        except sqlite3.OperationalError:  # of a version without a journal
            entries = 0
    return Copied(str(file), entries, file.stat().st_size)


@contextmanager
def _new_file(to: Path) -> Iterator[Path]:
    """A file beside the one to be made, which takes its place at the end, on the disk; gone when something fails."""
    part = to.with_name(to.name + ".part")
    try:
        with failures(place_of(to), "cannot be written"):
            part.unlink(missing_ok=True)
            yield part
            _sync(part)
            os.replace(part, to)
            _sync(to.parent)
    except OSError as fault:
        raise CoflexError(
            f"{to} cannot be written: {fault.strerror}.", "Check the place and its free space."
        ) from fault
    finally:
        for end in ("", "-journal", "-wal", "-shm"):
            with suppress(OSError):
                part.with_name(part.name + end).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    if os.name != "posix" and path.is_dir():
        return
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _uri(file: Path) -> str:
    return f"file:{quote(str(file.absolute()))}?mode=ro"


def _copy_file(origin: Place, to: Path, progress: Progress) -> None:
    """Page by page, of one state: the transaction on the original keeps what it sees, whatever is written meanwhile."""

    def step(status: int, remaining: int, total: int) -> None:
        progress(f"{total - remaining:,} of {total:,} pages")

    with (
        failures(origin, "cannot be copied"),
        closing(sqlite3.connect(_uri(origin.file), uri=True, isolation_level=None)) as source,
        closing(sqlite3.connect(to, isolation_level=None)) as copy,
    ):
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        source.backup(copy, pages=PAGES_AT_ONCE, progress=step)


def _single(file: Path) -> None:
    """Let a copy be a file of its own: no log beside it, so that it can be read where nothing can be written."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")


def _whole_store(place: Place) -> None:
    """Raise CoflexError unless a file holds a store, of this version or an older one."""
    engine = place.engine(WAIT_S)
    try:
        with failures(place, "cannot be read"), exclusive(engine, WAIT_S) as connection:
            if version_there(place, connection) is None:
                raise foreign(place)
    finally:
        engine.dispose()


def _from_server(origin: Place, to: Place, progress: Progress) -> None:
    source = open_reading(origin)
    target = to.engine(WAIT_S)
    try:
        open_tables(to, target, WAIT_S)
        with failures(origin, "cannot be copied"), source.connect() as seen, exclusive(target, WAIT_S) as alone:
            _copy_rows(seen, alone, progress)
            alone.commit()
    except OSError as fault:  # a driver's own, of the link
        raise told(origin, "cannot be copied", fault, WAIT_S) from fault
    finally:
        source.dispose()
        target.dispose()


def _copy_rows(source: Connection, target: Connection, progress: Progress) -> None:
    """Every row of every table, inside the transactions of both connections."""
    for table in METADATA.sorted_tables:
        done = 0
        total = source.execute(select(func.count()).select_from(table)).scalar()
        query = select(table).order_by(*table.primary_key.columns)
        found = source.execution_options(yield_per=ROWS_AT_ONCE).execute(query)
        for part in found.partitions(ROWS_AT_ONCE):
            insert_rows(target, {table: [tuple(row) for row in part]})
            done += len(part)
            progress(f"{table.name}: {done:,} of {total:,} rows")


# ---------------------------------------------------------------- back again


def restore(source: Path, place: str | Path, replace: bool = False, progress: Progress = _silent) -> Copied:
    """Bring a copy into an empty place, whole or not at all; tables of an older version are brought to this one.

    `replace`: put it in the place of a store that is there. The files of that one stay, with ".replaced" at the end of
    their names; tables in PostgreSQL are gone. Raises CoflexError when the place is not empty, a server writes to it
    (InUse), or the file is no copy.
    """
    target = place_of(place)
    if not source.exists():
        raise foreign(place_of(source))
    if target.is_file:
        _restore_file(source, target, replace, progress)
    else:
        _restore_server(source, target, replace, progress)
    return _copied(source)


def _restore_file(source: Path, target: Place, replace: bool, progress: Progress) -> None:
    file = target.file
    with locked(file, WAIT_S):
        there = [one for one in _files(file) if one.exists()]
        if there and not replace:
            raise CoflexError(f"{there[0]} is there already.", "Restore into an empty place.")
        aside = [one.with_name(one.name.replace(file.name, file.name + ".replaced", 1)) for one in there]
        for one in aside:
            if one.exists():
                raise CoflexError(f"{one} is there from another restore.", "Move it away.")
        with _new_file(file) as part:
            _copy_file(place_of(source), part, progress)
            _brought_up(place_of(part))
            for old, new in zip(there, aside, strict=True):
                os.replace(old, new)


def _files(file: Path) -> list[Path]:
    """A store and what may lie beside it; a log that was left over would be taken for that of a new file."""
    return [file.with_name(file.name + end) for end in ("-wal", "-shm", "-journal", "")]


def _brought_up(place: Place) -> None:
    engine = place.engine(WAIT_S)
    try:
        _whole_store(place)
        open_tables(place, engine, WAIT_S)
        write_ahead(engine, WAIT_S)
    finally:
        engine.dispose()


def _restore_server(source: Path, target: Place, replace: bool, progress: Progress) -> None:
    with _readable(source, progress) as copy:
        given = open_reading(place_of(copy))
        taken = target.engine(WAIT_S)
        try:
            with failures(target, "cannot be restored", WAIT_S), exclusive(taken, WAIT_S) as alone:
                _refuse_writer(target, alone)
                _empty(target, alone, replace)
                migrate_tables(alone)
                with given.connect() as seen:
                    _copy_rows(seen, alone, progress)
                alone.commit()
        finally:
            given.dispose()
            taken.dispose()


@contextmanager
def _readable(source: Path, progress: Progress) -> Iterator[Path]:
    """A copy of a copy, of this version: the file itself is only read, and may lie where nothing can be written."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="coflex-") as folder:
        copy = Path(folder) / "copy.db"
        _copy_file(place_of(source), copy, progress)
        _brought_up(place_of(copy))
        yield copy


def _refuse_writer(place: Place, connection: Connection) -> None:
    if not connection.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": JOURNAL_LOCK}).scalar():
        raise InUse(f"A server writes to {place.name} (session {holder_of(connection)}).", "Stop it, then restore.")


def _empty(place: Place, connection: Connection, replace: bool) -> None:
    """Make sure that a database has no tables; with `replace`, that those of a store go."""
    names = set(inspect(connection).get_table_names())
    if not names:
        return
    if not replace:
        raise CoflexError(f"The database {place.name} has tables already.", "Restore into an empty database.")
    version_there(place, connection)  # only tables of a store are ever dropped
    for name in (*(table.name for table in METADATA.sorted_tables), VERSION_TABLE):
        if name in names:
            Table(name, MetaData()).drop(connection)


# ---------------------------------------------------------------- upgrade, and a look


def migrate(place: str | Path) -> Migrated:
    """Bring the tables of a store to the version of this coflex; what is in them stays.

    Raises InUse while a server writes to it, CoflexError where there is no store or a newer one.
    """
    target = place_of(place)
    if target.is_file and not target.file.exists():
        raise foreign(target)
    engine = target.engine(WAIT_S)
    try:
        if target.is_file:
            with locked(target.file, WAIT_S):
                before = open_tables(target, engine, WAIT_S)
        else:
            with failures(target, "cannot be migrated", WAIT_S), exclusive(engine, WAIT_S) as alone:
                _refuse_writer(target, alone)
                before = version_there(target, alone)
                if before != VERSION:
                    migrate_tables(alone)
                alone.commit()
    finally:
        engine.dispose()
    return Migrated(before or "", VERSION)


def probe(place: str | Path) -> Probe:
    """Look at a store. Raises CoflexError where it cannot be reached, or holds something else."""
    target = place_of(place)
    if target.is_file and not target.file.exists():
        return Probe("SQLite", sqlite3.sqlite_version, "", VERSION, 0, None, "")
    engine = target.engine(WAIT_S, writes=False)
    try:
        with failures(target, "cannot be read", WAIT_S), engine.connect() as connection:
            shape = version_there(target, connection) or ""
            head, entries = None, 0
            if ENTRY.name in inspect(connection).get_table_names():
                head = head_of(connection).at
                entries = connection.execute(select(func.count()).select_from(ENTRY)).scalar() or 0
            if target.is_file:
                writer = f"process {holder(target.file)}" if in_use(target.file) else ""
                return Probe("SQLite", sqlite3.sqlite_version, shape, VERSION, entries, head, writer)
            version = str(connection.execute(text("SHOW server_version")).scalar()).split()[0]
            held = holder_of(connection)
            return Probe("PostgreSQL", version, shape, VERSION, entries, head, f"session {held}" if held else "")
    finally:
        engine.dispose()
