"""The store in memory, and the transaction that it shares with its twin in a database.

`RowTransaction` is the whole port written on four acts on rows; the twins differ only in where the rows lie, so
they refuse the same things in the same words, and read in the same order.
"""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, TypeAlias, TypeVar
from zoneinfo import ZoneInfo

import numpy as np

from coflex.adapters.store.mapping import LAYOUTS, Layout, Row, StoredDocument, StoredSeries, canonical
from coflex.domain.clearing import Holding
from coflex.domain.errors import CoflexError, SoldTwice
from coflex.domain.series import Series
from coflex.domain.time import Axis, local_label
from coflex.process.ports import Event, Transaction

R = TypeVar("R")
Filters: TypeAlias = tuple[tuple[int, frozenset[Any]], ...]
Batches: TypeAlias = list[tuple[Layout, list[Row]]]

UTC_ZONE = ZoneInfo("UTC")


class KeyTaken(Exception):
    """A row's key is already there; nothing of the batches was written."""


class Turn:
    """One transaction at a time; a second one inside the first would wait for itself, so it is refused."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None

    def __enter__(self) -> None:
        if self._holder == threading.get_ident():
            raise CoflexError("A transaction of this store is already open here.", "Use that one, or end it first.")
        self._lock.acquire()
        self._holder = threading.get_ident()

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._holder = None
        self._lock.release()


class RowTransaction(ABC):
    """The port `Transaction` on rows. `zone` is the one in which a unit sold twice is reported."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._events: list[Event] = []
        self._next_event: int | None = None
        self._ended = False

    @abstractmethod
    def _insert(self, batches: Batches) -> None:
        """Write all rows, or none and raise KeyTaken."""

    @abstractmethod
    def _select(self, layout: Layout, filters: Filters) -> list[Row]:
        """The rows that match every filter, in the order of their keys."""

    @abstractmethod
    def _delete(self, layout: Layout, filters: Filters) -> int:
        """Delete the rows that match every filter; how many there were."""

    @abstractmethod
    def _last_event(self) -> int:
        """The number of the last event written, or 0."""

    def add(self, records: Iterable[object]) -> None:
        """Write new records of any types: all of them, or none.

        Raises SoldTwice for a holding whose (unit, start) is held, CoflexError for any other key already there,
        a value its field cannot hold, or a type without a table.
        """
        kinds: dict[type[Any], list[object]] = {}
        for record in records:
            kinds.setdefault(type(record), []).append(record)
        if Event in kinds:
            raise CoflexError("An event's number is the store's to give.", "Tell it with event().")
        layouts = [(self._layout(kind), of_kind) for kind, of_kind in kinds.items()]
        self._write([(layout, layout.rows(of_kind)) for layout, of_kind in layouts])

    def all(self, kind: type[R], /, **where: object) -> tuple[R, ...]:
        """Records whose fields equal the given values (one of them, where a list or tuple is given), by key."""
        layout = self._layout(kind)
        filters = layout.filters(where)
        if kind is Event:
            self.write_events()
        return layout.records(self._select(layout, filters))

    def remove(self, kind: type[object], /, **where: object) -> int:
        """Delete matching records; returns how many. Raises CoflexError for events: what was said, was said."""
        if kind is Event:
            raise CoflexError("Events are never taken back.", "Tell a new one that corrects the old.")
        layout = self._layout(kind)
        return self._delete(layout, layout.filters(where))

    def put_document(self, name: str, body: dict[str, Any]) -> None:
        """Write (or replace) a named JSON document. Raises CoflexError on what JSON cannot carry exactly."""
        try:
            text = canonical(body)
        except (TypeError, ValueError) as fault:
            raise CoflexError(
                f"The document '{name}' is no JSON: {fault}.", "Write numbers, texts, lists and objects."
            ) from None
        self._replace(StoredDocument(name, text))

    def document(self, name: str) -> dict[str, Any] | None:
        """A named JSON document, or None."""
        found = self.all(StoredDocument, name=name)
        return dict(json.loads(found[0].body)) if found else None

    def put_series(self, name: str, series: Series) -> None:
        """Write (or replace) named series, to the bit."""
        step = series.axis.step // timedelta(seconds=1)
        if step * timedelta(seconds=1) != series.axis.step:
            raise CoflexError(f"The series '{name}' have periods of {series.axis.step}.", "Use whole seconds.")
        contents = np.ascontiguousarray(series.values, dtype="<f8").tobytes()
        self._replace(StoredSeries(name, series.names, series.axis.start, series.axis.count, step, contents))

    def series(self, name: str) -> Series | None:
        """Named series, or None."""
        found = self.all(StoredSeries, name=name)
        if not found:
            return None
        kept = found[0]
        values = np.frombuffer(kept.contents, dtype="<f8").astype(np.float64).reshape(len(kept.names), kept.count)
        return Series(kept.names, Axis(kept.start, kept.count, timedelta(seconds=kept.step_s)), values)

    def event(self, kind: str, at: datetime, sender: str, receiver: str, detail: str) -> None:
        """Append to the log. Numbers run without a gap; the rows are written together, at the latest at the end."""
        layout = self._layout(Event)
        if self._next_event is None:
            self._next_event = self._last_event() + 1
        event = Event(self._next_event, kind, at, sender, receiver, detail)
        layout.rows([event])  # what cannot be kept is refused here, not at the end of the transaction
        self._events.append(event)
        self._next_event += 1

    def write_events(self) -> None:
        """Write the events told so far."""
        if self._events:
            layout = self._layout(Event)
            self._write([(layout, layout.rows(self._events))])
            self._events.clear()

    def end(self) -> None:
        """From here on the transaction refuses every use."""
        self._ended = True

    def _layout(self, kind: type[Any]) -> Layout:
        if self._ended:
            raise CoflexError("The transaction has ended.", "Open a new one.")
        if kind not in LAYOUTS:
            raise CoflexError(f"The store has no table of {kind.__name__}.", "Keep it inside a document.")
        return LAYOUTS[kind]

    def _replace(self, named: StoredDocument | StoredSeries) -> None:
        self.remove(type(named), name=named.name)
        self.add((named,))

    def _write(self, batches: Batches) -> None:
        try:
            self._insert(batches)
        except KeyTaken:
            raise self._taken(batches) from None

    def _taken(self, batches: Batches) -> CoflexError:
        """The error that names the first record whose key is there already, in the store or earlier in its batch."""
        for layout, rows in batches:
            there = {layout.key(row) for row in self._select(layout, ())}
            for row in rows:
                if layout.key(row) in there:
                    return self._already(layout, row)
                there.add(layout.key(row))
        raise AssertionError("a key that was taken is found")

    def _already(self, layout: Layout, row: Row) -> CoflexError:
        (record,) = layout.records([row])
        if isinstance(record, Holding):
            when = local_label(record.start, self._zone)
            return SoldTwice(
                f"The unit '{record.unit}' is already held in the quarter-hour {when}.",
                "Offer another unit or another quarter-hour.",
            )
        of_key = [(c.name, getattr(record, c.name)) for c in layout.columns if c.key]
        shown = (f"{n} {local_label(v, self._zone) if isinstance(v, datetime) else v}" for n, v in of_key)
        return CoflexError(
            f"{layout.kind.__name__} ({', '.join(shown)}) is already there.", "Remove it first, or leave it."
        )


class MemoryTransaction(RowTransaction):
    """Rows in dictionaries; what undoes each write is noted beside it."""

    def __init__(self, tables: dict[type[Any], dict[Any, Row]], zone: ZoneInfo) -> None:
        super().__init__(zone)
        self._tables = tables
        self._written: list[tuple[dict[Any, Row], dict[Any, Row], dict[Any, Row]]] = []  # table, put in, taken out

    def roll_back(self) -> None:
        """Undo every write, the last one first."""
        for table, put_in, taken_out in reversed(self._written):
            for key in put_in:
                del table[key]
            table.update(taken_out)

    def _insert(self, batches: Batches) -> None:
        fresh = []
        for layout, rows in batches:
            table = self._tables[layout.kind]
            keyed = {layout.key(row): row for row in rows}
            if len(keyed) < len(rows) or not table.keys().isdisjoint(keyed):
                raise KeyTaken
            fresh.append((table, keyed))
        for table, keyed in fresh:
            table.update(keyed)
            self._written.append((table, keyed, {}))

    def _select(self, layout: Layout, filters: Filters) -> list[Row]:
        rows = (row for row in self._tables[layout.kind].values() if all(row[place] in kept for place, kept in filters))
        return sorted(rows, key=layout.key)

    def _delete(self, layout: Layout, filters: Filters) -> int:
        table = self._tables[layout.kind]
        gone = {layout.key(row): row for row in self._select(layout, filters)}
        for key in gone:
            del table[key]
        self._written.append((table, {}, gone))
        return len(gone)

    def _last_event(self) -> int:
        return max(self._tables[Event], default=0)


class MemoryStore:
    """A store that lives as long as its process: the equal of the one in a database, but for durability."""

    def __init__(self, zone: ZoneInfo = UTC_ZONE) -> None:
        self._zone = zone
        self._tables: dict[type[Any], dict[Any, Row]] = {kind: {} for kind in LAYOUTS}
        self._turn = Turn()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One unit of work, alone: all of it is kept at its end, or nothing when an exception leaves it."""
        with self._turn:
            work = MemoryTransaction(self._tables, self._zone)
            try:
                yield work
                work.write_events()
            except BaseException:
                work.roll_back()
                raise
            finally:
                work.end()
