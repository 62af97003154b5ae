"""The store in a database: one SQLite file by default, PostgreSQL when its URL is given.

A transaction has the store to itself from its first statement, so check and write are one step, and the primary key
of `holding` is the last wall behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, delete, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql import ColumnElement, or_

from coflex.adapters.store.mapping import Layout, Row
from coflex.adapters.store.memory import UTC_ZONE, Batches, Filters, KeyTaken, RowTransaction, Turn
from coflex.adapters.store.place import exclusive, failures, open_tables, place_of
from coflex.adapters.store.tables import TABLES
from coflex.process.ports import Event, Transaction


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

    `place`: the path of a file, or a database URL (`postgresql://user@host/name`). `zone`: the market's,
    in which a unit sold twice is reported. `wait_s`: how long a transaction waits for another process's.
    Raises CoflexError, with the next step, when the place holds something else or a newer version.
    """

    def __init__(self, place: str | Path, zone: ZoneInfo = UTC_ZONE, wait_s: float = 60.0) -> None:
        self._place = place_of(place)
        self._zone = zone
        self._wait_s = wait_s
        self._turn = Turn()
        self._engine = self._place.engine(wait_s)
        try:
            open_tables(self._place, self._engine, wait_s)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One unit of work, alone: all of it is written at its end, or nothing when an exception leaves it.

        Raises CoflexError when another process holds the store for longer than `wait_s`, or the database fails.
        """
        with self._turn, failures(self._place, "failed", self._wait_s), exclusive(self._engine, self._wait_s) as alone:
            work = SqlTransaction(alone, self._zone)
            try:
                yield work
                work.write_events()
            finally:
                work.end()
            alone.commit()

    def close(self) -> None:
        """Let go of the database; a SQLite store is one file again."""
        self._engine.dispose()
