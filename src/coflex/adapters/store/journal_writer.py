"""The one connection that writes a journal, and what makes its word good: one lock, one transaction, one sync.

SQLite: the write-ahead log takes a transaction with one sync. Moving the log into the file is done here and not by
SQLite itself, which would keep a failed sync to itself. Opening moves all of it: what a process that died had written
and not synced is then on the disk or refused.

PostgreSQL: the lock belongs to the session, and a session ends its transaction before it lets go of its locks. So who
has the lock after a lost link knows that the transaction of before is there or will never be.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, CursorResult, delete, select, text
from sqlalchemy.exc import IntegrityError

from coflex.adapters.store.bulk import insert_rows
from coflex.adapters.store.journal_faults import told
from coflex.adapters.store.journal_lock import FileLock, InUse, within
from coflex.adapters.store.journal_rows import Batch
from coflex.adapters.store.place import FAULTS, Place, open_tables, reason, sqlite_code, sqlstate
from coflex.adapters.store.tables import ENTRY, PERSONAL
from coflex.domain.errors import CoflexError
from coflex.service.chain import FIRST, instant
from coflex.service.ports import Head, StoreBroken, StoreLost

JOURNAL_LOCK = 0x636F666C65786A  # "coflexj": the lock on a PostgreSQL database that holds a journal
PAGE = 4096
PAGES_A_COMMIT = 8  # at least: a leaf of every table and index
MOST_PAGES_IN_LOG = 2_000
LAST_ENTRY = select(ENTRY.c.number, ENTRY.c.at_us, ENTRY.c.digest).order_by(ENTRY.c.number.desc()).limit(1)

# Of the session that writes: a commit is on the disk of the server, no limit of the server ends it, and a server that
# hears nothing of this machine lets go of the lock after a minute.
SETTINGS = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
HOLDER = text(
    "SELECT l.pid, a.client_addr FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid "
    "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND (CAST(l.classid AS bigint) << 32) + CAST(l.objid AS bigint) = :lock"
)
SESSION = text("SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()")
END_SESSION = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = :pid AND backend_start = :since")


def head_of(connection: Connection) -> Head:
    """The last entry that a connection sees."""
    row = connection.execute(LAST_ENTRY).first()
    return Head(0, None, FIRST) if row is None else Head(row[0], instant(row[1]), bytes(row[2]))


def holder_of(connection: Connection) -> str:
    """The session that holds the lock of a PostgreSQL journal, as a person looks for it; empty where none does."""
    row = connection.execute(HOLDER, {"lock": JOURNAL_LOCK}).first()
    return "" if row is None else f"{row[0]} from {row[1] or 'the database machine'}"


def writer(place: Place, wait_s: float, patience_s: float) -> Writer:
    """The writer of a place, its lock taken and its tables those of this version.

    Raises InUse, and CoflexError when the place cannot be opened.
    """
    return FileWriter(place, wait_s) if place.is_file else ServerWriter(place, wait_s, patience_s)


class Writer(ABC):
    """Writes batches in the order in which they come. Used from one thread at a time."""

    begin: str

    def __init__(self, place: Place, wait_s: float, patience_s: float) -> None:
        self._place = place
        self._wait_s = wait_s
        self._engine = place.writer_engine(wait_s, patience_s)
        self._connection: Connection | None = None
        self._broken = ""

    def write(self, batch: Batch) -> None:
        """Write a batch in one transaction; it is on the disk when this returns.

        Raises StoreFull, StoreLost, StoreBroken; after StoreBroken for good. Raises IntegrityError, with nothing
        written, when a row is there already.
        """
        connection = self._trusted()
        try:
            connection.exec_driver_sql(self.begin)
            for tenant, subject in batch.erased:
                gone = (PERSONAL.c.tenant == tenant) & (PERSONAL.c.subject == subject)
                connection.execute(delete(PERSONAL).where(gone))
            insert_rows(connection, batch.tables)
            connection.exec_driver_sql("COMMIT")
        except BaseException as fault:
            told_as = told(self._place, fault) if isinstance(fault, FAULTS) else StoreBroken(f"It failed: {fault!r}.")
            undone = self._undo(fault)
            if undone is None and isinstance(fault, IntegrityError):
                raise  # whoever knows the entries says whether an old key is in the way
            raise self._noted(told_as if undone is None else undone) from fault
        self._tidy(batch)

    @abstractmethod
    def recover(self) -> Head:
        """Take the lock back where it was lost; what is there. Raises StoreLost, StoreBroken."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the connection, then of the lock."""

    @abstractmethod
    def _undo(self, fault: BaseException) -> CoflexError | None:
        """Take the open transaction back after a fault; what is to be told instead of it where that failed."""

    def _tidy(self, batch: Batch) -> None:  # noqa: B027  a server does this itself
        """What is to be done after a batch is on the disk; a fault of it counts from the next batch on."""

    def _trusted(self) -> Connection:
        if self._broken:
            raise StoreBroken(self._broken)
        if self._connection is None:
            raise StoreLost(f"The link to the store {self._place.name} is lost.", "It is asked again by itself.")
        return self._connection

    def distrust(self, fault: StoreBroken) -> StoreBroken:
        """From now on nothing counts."""
        self._noted(fault)
        return fault

    def _noted(self, fault: CoflexError) -> CoflexError:
        """A fault, remembered when it is one after which nothing counts."""
        if isinstance(fault, StoreBroken):
            self._broken = self._broken or str(fault)
        return fault


class FileWriter(Writer):
    """Writes to a SQLite file."""

    begin = "BEGIN IMMEDIATE"

    def __init__(self, place: Place, wait_s: float) -> None:
        super().__init__(place, wait_s, 0.0)
        self._pages = 0
        self._erase = False
        self._lock = FileLock(place.file, wait_s)
        try:
            engine = place.engine(wait_s)
            try:
                open_tables(place, engine, wait_s)
            finally:
                engine.dispose()
            self._connection = self._engine.connect()
            self._ask("PRAGMA journal_mode = WAL")
            self._move_log("TRUNCATE")
        except BaseException as fault:
            self.close()
            if isinstance(fault, FAULTS):
                raise told(place, fault) from fault
            raise

    def recover(self) -> Head:
        connection = self._trusted()
        try:
            return head_of(connection)
        except FAULTS as fault:
            raise self._noted(told(self._place, fault)) from fault

    def close(self) -> None:
        if self._connection is not None:
            with suppress(*FAULTS):  # what was acknowledged is in the log, if it does not get into the file now
                self._connection.close()
            self._connection = None
        self._engine.dispose()
        self._lock.release()

    def _undo(self, fault: BaseException) -> CoflexError | None:
        assert self._connection is not None
        driver: Any = self._connection.connection.dbapi_connection
        try:
            if driver.in_transaction:
                driver.execute("ROLLBACK")
        except sqlite3.Error as second:
            return StoreBroken(f"A transaction could not be taken back: {reason(second)}.")
        return None

    def _tidy(self, batch: Batch) -> None:
        self._pages += PAGES_A_COMMIT + batch.weight // PAGE
        self._erase = self._erase or batch.erases
        if not self._erase and self._pages < MOST_PAGES_IN_LOG:
            return
        try:
            self._ask("PRAGMA busy_timeout = 0")
            self._move_log("TRUNCATE" if self._erase else "PASSIVE")
        except FAULTS as fault:
            if sqlite_code(fault) != sqlite3.SQLITE_FULL:  # no room to move it: the log goes on as it is
                self._noted(told(self._place, fault))
        except StoreLost:
            self._pages = 0  # somebody reads an older state: next time
        finally:
            self._ask(f"PRAGMA busy_timeout = {round(self._wait_s * 1000)}")

    def _move_log(self, how: str) -> None:
        """Move the log into the file. TRUNCATE leaves nothing of it, and waits for readers as for another writer.

        SQLite answers whether it was kept from it, the pages in the log, and how many of them are in the file.
        Raises StoreLost while somebody stands in the way.
        """
        row: Any = self._ask(f"PRAGMA wal_checkpoint({how})").one()
        if row[0]:
            raise StoreLost(
                f"Another program holds the file {self._place.name}.", "Wait until it has ended, or end it."
            )
        self._pages = row[1] - row[2]
        self._erase = self._erase and how != "TRUNCATE"

    def _ask(self, what: str) -> CursorResult[Any]:
        assert self._connection is not None
        return self._connection.exec_driver_sql(what)


class ServerWriter(Writer):
    """Writes to a PostgreSQL database, on a session that holds its lock."""

    begin = "BEGIN"

    def __init__(self, place: Place, wait_s: float, patience_s: float) -> None:
        super().__init__(place, wait_s, patience_s)
        self._session: tuple[int, Any] | None = None
        engine = place.engine(wait_s)
        try:
            self._connect()
            open_tables(place, engine, wait_s)
        except BaseException as fault:
            self.close()
            if isinstance(fault, FAULTS):
                raise told(place, fault) from fault
            raise
        finally:
            engine.dispose()

    def recover(self) -> Head:
        if self._broken:
            raise StoreBroken(self._broken)
        self._drop()
        try:
            connection = self._connect()
            return head_of(connection)
        except InUse as fault:
            self._drop()
            raise self._noted(StoreBroken(fault.message, fault.remedy)) from fault
        except FAULTS as fault:
            self._drop()
            raise self._noted(told(self._place, fault)) from fault
        except BaseException:
            self._drop()
            raise

    def close(self) -> None:
        self._drop()
        self._engine.dispose()

    def _undo(self, fault: BaseException) -> CoflexError | None:
        """A session that does not answer is left: its lock tells when its transaction has ended."""
        assert self._connection is not None
        if sqlstate(fault) is None:
            self._drop()
            return None
        try:
            self._connection.exec_driver_sql("ROLLBACK")
        except FAULTS:  # what the server has refused it does not keep, whether or not it hears this
            self._drop()
        return None

    def _connect(self) -> Connection:
        """A session with the lock. Raises InUse, StoreLost, and what the database raises."""
        self._connection = connection = self._engine.connect()
        for name, value in SETTINGS.items():
            connection.execute(
                text("SELECT set_config(name, :value, false) FROM pg_settings WHERE name = :name"),
                {"name": name, "value": value},
            )
        connection.exec_driver_sql(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
        if connection.exec_driver_sql("SHOW transaction_read_only").scalar() == "on":
            raise StoreLost(f"The store {self._place.name} takes no writes now.", "It is asked again by itself.")
        if not self._take_lock(connection):
            self._refuse(connection)
        pid, since = connection.execute(SESSION).one()
        self._session = (pid, since)
        return connection

    def _take_lock(self, connection: Connection) -> bool:
        """Take the lock; a session of our own that still holds it is ended."""

        def take() -> bool:
            if connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": JOURNAL_LOCK}).scalar():
                return True
            if self._session is not None:
                connection.execute(END_SESSION, {"pid": self._session[0], "since": self._session[1]})
            return False

        return within(self._wait_s, take)

    def _refuse(self, connection: Connection) -> None:
        holder = connection.execute(HOLDER, {"lock": JOURNAL_LOCK}).first()
        if holder is None or (self._session is not None and holder[0] == self._session[0]):
            raise StoreLost("The session of before has not ended yet.", "It is asked again by itself.")
        raise InUse(
            f"The store {self._place.name} is in use by another server (session {holder_of(connection)}).",
            "Let one server write to a store: stop the other one, or give this one a store of its own.",
        )

    def _drop(self) -> None:
        """Leave the session, whether or not it still answers."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with suppress(*FAULTS):
                connection.invalidate()
            with suppress(*FAULTS):
                connection.close()
