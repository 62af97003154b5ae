"""What a fault of the database means for entries that were being written.

SQLite      full                     nothing was written: the log has no complete transaction behind its last one
            busy, locked             another program held the file for too long; nothing was written
            anything else            a write or a sync failed, or the file is not what it was: what the disk holds is
                                     open, and a second sync may say yes to what the first one lost
PostgreSQL  53100 (disk full)        the server undid the transaction
            no code, classes 08 57   the link or the server went: the transaction may be there or not
            40 53 55, 25006          undone by the server, and may go through when tried again
            28 3D 57P03              at connecting: a server that does not let us in (yet)
            anything else            the tables are not ours as they should be
"""

from __future__ import annotations

import sqlite3

from coflex.adapters.store.place import Place, reason, sqlite_code, sqlstate
from coflex.domain.errors import CoflexError
from coflex.service.ports import StoreBroken, StoreFull, StoreLost

DISK_FULL = "53100"
_MAY_GO_THROUGH = ("08", "25006", "28", "3D000", "40", "53", "55", "57")
_WAITS = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def told(place: Place, fault: BaseException) -> CoflexError:
    """StoreFull, StoreLost or StoreBroken, as the fault of a database says."""
    if isinstance(fault, CoflexError):
        return fault
    said = reason(fault)
    kind = _of_sqlite(sqlite_code(fault)) if place.is_file else _of_postgresql(sqlstate(fault))
    if kind is StoreFull:
        return StoreFull(
            f"The store {place.name} has no room: {said}.", "Make room on its disk; nothing else needs to be done."
        )
    if kind is StoreLost:
        return StoreLost(f"The store {place.name} does not answer: {said}.", "It is asked again by itself.")
    return StoreBroken(
        f"The store {place.name} cannot be trusted any more: {said}.",
        "Check its disk and its file system, verify the store, then start again.",
    )


def _of_sqlite(code: int | None) -> type[CoflexError]:
    if code == sqlite3.SQLITE_FULL:
        return StoreFull
    return StoreLost if code in _WAITS else StoreBroken


def _of_postgresql(state: str | None) -> type[CoflexError]:
    if state == DISK_FULL:
        return StoreFull
    return StoreLost if state is None or state.startswith(_MAY_GO_THROUGH) else StoreBroken
