"""The proof of a journal: that every entry is what was acknowledged, and everything beside it belongs to it.

The digest of an entry covers its command, its answer, the versions it wrote and its notes. So the proof reads the
tables side by side, by number, puts every entry together from what it finds, and computes its digest anew. What the
digest does not see is held against what it does: tenant and instant of versions, positions, and the rows by which
readers find notes. Personal data must be what some entry holds a commitment to.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain as chained
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, event, func, select

from coflex.adapters.store import journal_rows as rows
from coflex.adapters.store.place import FAULTS, Place, failures, open_reading, place_of, reason
from coflex.adapters.store.tables import ENTRY, FEED, NOTE, PERSONAL, RECORD_VERSION, TYPES
from coflex.domain.errors import Finding
from coflex.service import chain
from coflex.service.ports import Change, Entry, Note

Progress = Callable[[str], None]
Row = Sequence[Any]
ROWS_AT_ONCE = 1_000
MOST_FAULTS = 1_000
_COMMITMENT = re.compile(rb"[0-9a-f]{64}")
_OF = {TYPES["text"]: str, TYPES["integer"]: int, TYPES["bytes"]: bytes}


@dataclass(frozen=True, slots=True)
class Verified:
    """What a proof found. `head`: digest of the last entry, to be held against one that was noted elsewhere: a journal
    cut off at its end is sound as far as it goes. `faults`: entry and reason, at most 1,000; none in a sound journal.
    """

    entries: int
    versions: int
    notes: int
    head: bytes
    faults: tuple[Finding, ...]


def verify(place: str | Path, progress: Progress = lambda said: None) -> Verified:
    """Prove a journal, also while a server writes to it. Raises CoflexError where there is no store to read."""
    target = place_of(place)
    engine = open_reading(target)
    event.listen(engine, "connect", _read_anything)
    engine.dispose()  # the connection that looked at the version reads as others do
    proof = _Proof()
    try:
        with failures(target, "cannot be read"), engine.connect() as connection:
            _prove(target, connection, proof, progress)
    except FAULTS as fault:
        proof.tell("the store", "unreadable", f"It cannot be read: {reason(fault)}.")
    finally:
        engine.dispose()
    return Verified(proof.entries, proof.versions, proof.notes, proof.before, tuple(proof.faults[:MOST_FAULTS]))


def _read_anything(connection: Any, record: object) -> None:
    """Let changed bytes be read as they are, instead of refusing texts that are no UTF-8 any more."""
    if isinstance(connection, sqlite3.Connection):
        connection.text_factory = lambda kept: kept.decode("utf-8", "surrogateescape")


def _prove(place: Place, connection: Connection, proof: _Proof, progress: Progress) -> None:
    try:
        total = connection.execute(select(func.count()).select_from(ENTRY)).scalar()
        proof.committed(connection)
        streams = _Streams(connection)
        for row in _rows(connection, ENTRY):
            proof.entry(row, streams)
            if proof.entries % ROWS_AT_ONCE == 0:
                progress(f"{proof.entries:,} of {total:,} entries")
            if len(proof.faults) >= MOST_FAULTS:
                return
        for stream in streams.all:
            proof.left_over(stream, stream.rest())
        proof.uncommitted()
    except FAULTS as fault:
        proof.tell(f"after entry {proof.number}", "unreadable", f"The store cannot be read on: {reason(fault)}.")
    if place.is_file:
        proof.file(connection)


def _rows(connection: Connection, table: Table) -> Iterator[Row]:
    """All rows of a table with a number, by number and position."""
    order = [column for column in table.columns if column.name in ("number", "position")]
    order.sort(key=lambda column: column.name)
    return iter(connection.execution_options(yield_per=ROWS_AT_ONCE).execute(select(table).order_by(*order)))


class _Stream:
    """The rows of a table beside the entries, taken number by number."""

    def __init__(self, connection: Connection, table: Table) -> None:
        self.table = table
        self._place = list(table.columns.keys()).index("number")
        self._rows = _rows(connection, table)
        self._next = next(self._rows, None)

    def before(self, number: int) -> Iterator[Row]:
        """Rows of smaller numbers, which no entry has."""
        while self._next is not None and self._number(self._next) < number:
            yield self._next
            self._next = next(self._rows, None)

    def of(self, number: int) -> list[Row]:
        found = []
        while self._next is not None and self._number(self._next) == number:
            found.append(self._next)
            self._next = next(self._rows, None)
        return found

    def rest(self) -> Iterator[Row]:
        if self._next is not None:
            yield from chained([self._next], self._rows)

    def _number(self, row: Row) -> float:
        """Its number; what is no number is behind all numbers, as SQLite sorts it."""
        number = row[self._place]
        return number if isinstance(number, (int, float)) else float("inf")


class _Streams:
    def __init__(self, connection: Connection) -> None:
        self.versions = _Stream(connection, RECORD_VERSION)
        self.notes = _Stream(connection, NOTE)
        self.feed = _Stream(connection, FEED)
        self.all = (self.versions, self.notes, self.feed)


@dataclass
class _Proof:
    """Where the proof is, and what it has found."""

    number: int = 0
    before: bytes = chain.FIRST
    entries: int = 0
    versions: int = 0
    notes: int = 0
    faults: list[Finding] = field(default_factory=list)
    wanted: dict[tuple[str, str, bytes], str] = field(default_factory=dict)

    def tell(self, place: str, code: str, message: str) -> None:
        self.faults.append(Finding(place, code, message))

    def entry(self, row: Row, streams: _Streams) -> None:
        """One entry with everything of its number."""
        number = row[0]
        where = f"entry {number}"
        for stream in streams.all:
            self.left_over(stream, stream.before(number))
        versions, notes, feed = (stream.of(number) for stream in streams.all)
        self.entries += 1
        self.versions += len(versions)
        self.notes += len(notes)
        if number != self.number + 1:
            self.tell(where, "missing", f"Entry {self.number + 1} is missing before it.")
        sound = [self.sound(where, ENTRY, row)]
        sound += [self.sound(where, RECORD_VERSION, one) for one in versions]
        sound += [self.sound(where, NOTE, one) for one in notes]
        if all(sound):
            self.beside(where, row, versions, notes, feed)
            self.digest(where, row, versions, notes)
            self.commitments(row, versions)
        self.number = number
        if isinstance(row[12], bytes):
            self.before = row[12]

    def digest(self, where: str, row: Row, versions: list[Row], notes: list[Row]) -> None:
        try:
            entry = _entry(row, versions, notes)
            same = chain.of(entry, self.before) == entry.digest
        except (ValueError, OverflowError) as fault:  # no UTF-8, or an instant outside of time
            self.tell(where, "malformed", f"It cannot be read: {fault}.")
            return
        if not same:
            self.tell(where, "changed", "Its content, or the digest before it, is not what was acknowledged.")

    def sound(self, where: str, table: Table, row: Row) -> bool:
        """Whether every value is of the kind that its column holds."""
        sound = True
        for column, value in zip(table.columns, row, strict=True):
            kind = _OF.get(column.type, int)
            if not (isinstance(value, kind) or (value is None and column.nullable)):
                self.tell(
                    where, "malformed", f"{table.name}.{column.name} holds {type(value).__name__}, not {kind.__name__}."
                )
                sound = False
        return sound

    def beside(self, where: str, row: Row, versions: list[Row], notes: list[Row], feed: list[Row]) -> None:
        """What the digest does not cover."""
        number, at_us, tenant = row[0], row[1], row[2]
        for place, one in enumerate(versions):
            if (one[0], one[4], one[5]) != (tenant, place, at_us):
                what = "tenant, position or instant of its version"
                self.tell(where, "changed", f"{what} of {one[1]} '{one[2]}' is not the entry's.")
        if [one[1] for one in notes] != list(range(len(notes))):
            self.tell(where, "changed", "The positions of its notes do not follow each other.")
        due = {reader for one in notes for reader in rows.readers(tenant, number, one[1], rows.note(tuple(one)))}
        there = {tuple(one) for one in feed}
        for _, party, _, place in sorted(due - there):
            self.tell(where, "missing", f"Its note {place} is not in the feed of '{party}'.")
        for one in sorted(there - due, key=repr):
            self.tell(
                where, "foreign", f"The feed of '{one[1]}' holds a note {one[3]} that the entry did not address to it."
            )

    def left_over(self, stream: _Stream, found: Iterator[Row]) -> None:
        key = [column.name for column in stream.table.primary_key.columns]
        for row in found:
            named = dict(zip(stream.table.columns.keys(), row, strict=True))
            what = ", ".join(f"{name} {named[name]!r}" for name in key)
            self.tell(f"entry {named['number']}", "foreign", f"A row of {stream.table.name} ({what}) has no entry.")
            if len(self.faults) >= MOST_FAULTS:
                return

    def committed(self, connection: Connection) -> None:
        """Take up the personal data that some entry about its subject must hold a commitment to."""
        for tenant, subject, salt, body in connection.execute(select(PERSONAL)):
            name = f"personal data of '{subject}' in '{tenant}'"
            if isinstance(salt, bytes) and isinstance(body, bytes):
                self.wanted[tenant, subject, sha256(salt + body).hexdigest().encode()] = name
            else:
                self.tell(name, "malformed", "It is no data as it was kept.")

    def commitments(self, row: Row, versions: list[Row]) -> None:
        """Take note of what an entry commits to, for its party, its subject and the records it writes."""
        if not self.wanted:
            return
        subjects = {row[4], row[5], *(one[2] for one in versions)}
        for found in _COMMITMENT.findall(row[9]):
            for subject in subjects:
                self.wanted.pop((row[2], subject, found), None)

    def uncommitted(self) -> None:
        for name in self.wanted.values():
            self.tell(name, "changed", "No entry about it holds a commitment to it.")

    def file(self, connection: Connection) -> None:
        """What SQLite itself finds in its file: indices that do not lead to their rows, pages that are none."""
        try:
            found = [row[0] for row in connection.exec_driver_sql("PRAGMA integrity_check(20)")]
        except FAULTS as fault:
            found = [reason(fault)]
        for said in found:
            if said != "ok":
                self.tell("the file", "damaged", f"SQLite finds: {said}.")


def _entry(row: Row, versions: list[Row], notes: list[Row]) -> Entry:
    changes = [Change(one[1], one[2], one[6]) for one in versions]
    told: list[Note] = [rows.note(tuple(one)) for one in notes]
    return rows.entry(tuple(row), changes, told)
