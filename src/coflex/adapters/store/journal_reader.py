"""Reading a journal in a database, from any thread, also while a server writes to it.

Every read is a transaction that sees one state, and none waits for the connection that writes.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Select, Table, and_, func, literal, select, tuple_, union

from coflex.adapters.store import journal_rows as rows
from coflex.adapters.store.journal_faults import told
from coflex.adapters.store.journal_writer import head_of
from coflex.adapters.store.place import FAULTS, open_reading, place_of
from coflex.adapters.store.tables import ENTRY, FEED, NOTE, PERSONAL, RECORD_VERSION
from coflex.service.chain import instant, microseconds
from coflex.service.ports import Brief, Change, Command, Entry, FeedItem, Head, Note, Personal, Version
from coflex.service.sequencer import key_digest

AT_ONCE = 5_000  # rows in one step of a long read
EVERYBODY = "*"

KeyRow = tuple[str, str, str, int, bytes, int, bytes]
KEY_COLUMNS = [
    ENTRY.c[name]
    for name in ("tenant", "by_party", "key", "number", "status", "reply", "verb", "subject", "party", "body")
]
BRIEF_COLUMNS = [ENTRY.c[name] for name in ("number", "at_us", "verb", "party", "body", "reply")]
CHANGE_COLUMNS = [RECORD_VERSION.c[name] for name in ("number", "kind", "id", "body")]


class JournalReader:
    """The reading half of the port `Journal`. `place`: the path of a file, or a database URL.

    Raises CoflexError when the place cannot be opened, holds something else, or tables of another version.
    """

    def __init__(self, place: str | Path) -> None:
        self._place = place_of(place)
        self._readers = open_reading(self._place)

    def close(self) -> None:
        """Let go of the database."""
        self._readers.dispose()

    def head(self) -> Head:
        with self._reading() as connection:
            return head_of(connection)

    def entries(self, after: int = 0, limit: int = 1000) -> list[Entry]:
        wanted = select(ENTRY).where(ENTRY.c.number > after).order_by(ENTRY.c.number).limit(limit)
        with self._reading() as connection:
            return _whole(connection, wanted)

    def of_subject(self, tenant: str, verbs: Sequence[str], subject: str) -> Iterator[Brief]:
        about = and_(ENTRY.c.tenant == tenant, ENTRY.c.subject == subject, ENTRY.c.verb.in_(verbs))
        after = 0
        while True:
            wanted = select(*BRIEF_COLUMNS).where(about, ENTRY.c.number > after).order_by(ENTRY.c.number)
            with _uncollected(), self._reading() as connection:
                found = connection.execute(wanted.limit(AT_ONCE)).all()
            for number, at_us, *said in found:
                yield Brief(number, instant(at_us), *said)
            if len(found) < AT_ONCE:
                return
            after = found[-1].number

    def latest(self) -> Iterator[Version]:
        name = (RECORD_VERSION.c.tenant, RECORD_VERSION.c.kind, RECORD_VERSION.c.id)
        newest = select(*name, func.max(RECORD_VERSION.c.number).label("number")).group_by(*name)
        yield from self._versions(newest)

    def history(self, tenant: str, kind: str, id: str) -> list[Version]:
        kept = RECORD_VERSION.c
        query = select(RECORD_VERSION).where(kept.tenant == tenant, kept.kind == kind, kept.id == id)
        with self._reading() as connection:
            return [rows.version(row) for row in connection.execute(query.order_by(kept.number))]

    def as_of(self, tenant: str, kind: str, at: datetime) -> list[Version]:
        kept = RECORD_VERSION.c
        then = (
            select(kept.tenant, kept.kind, kept.id, func.max(kept.number).label("number"))
            .where(kept.tenant == tenant, kept.kind == kind, kept.at_us <= microseconds(at))
            .group_by(kept.tenant, kept.kind, kept.id)
        )
        return list(self._versions(then))

    def recent_keys(self, limit: int) -> list[tuple[str, str, str]]:
        query = select(*KEY_COLUMNS[:3]).where(ENTRY.c.key.is_not(None)).order_by(ENTRY.c.number.desc()).limit(limit)
        with _uncollected(), self._reading() as connection:
            found = connection.execute(query).all()
            return [(tenant, by, key) for tenant, by, key in reversed(found)]

    def key(self, tenant: str, party: str, key: str) -> KeyRow | None:
        mine = (ENTRY.c.tenant == tenant, ENTRY.c.by_party == party, ENTRY.c.key == key)
        with self._reading() as connection:
            row = connection.execute(select(*KEY_COLUMNS).where(*mine)).first()
        return None if row is None else _key_row(row)

    def feed(self, tenant: str, party: str, after: tuple[int, int], limit: int) -> list[FeedItem]:
        place = tuple_(literal(after[0]), literal(after[1]))
        mine = [
            select(FEED.c.number, FEED.c.position)
            .where(FEED.c.tenant == tenant, FEED.c.party == one, tuple_(FEED.c.number, FEED.c.position) > place)
            .order_by(FEED.c.number, FEED.c.position)
            .limit(limit)
            .subquery()
            for one in (party, EVERYBODY)
        ]
        among = union(*(select(one) for one in mine)).subquery()
        query = (
            select(ENTRY.c.at_us, NOTE)
            .join_from(among, NOTE, and_(NOTE.c.number == among.c.number, NOTE.c.position == among.c.position))
            .join(ENTRY, ENTRY.c.number == NOTE.c.number)
            .order_by(NOTE.c.number, NOTE.c.position)
            .limit(limit)
        )
        with self._reading() as connection:
            found = connection.execute(query).all()
        return [FeedItem(row[1], row[2], instant(row[0]), rows.note(row[1:])) for row in found]

    def personal(self, tenant: str, subject: str) -> Personal | None:
        query = select(PERSONAL).where(PERSONAL.c.tenant == tenant, PERSONAL.c.subject == subject)
        with self._reading() as connection:
            row = connection.execute(query).first()
        return None if row is None else Personal(subject, row.salt, row.body)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._readers.connect() as connection:
                yield connection
        except FAULTS as fault:
            raise told(self._place, fault) from fault

    def _versions(self, among: Select[Any]) -> Iterator[Version]:
        """The versions whose (tenant, kind, id, number) are among these, without those that say the record ended."""
        kept, one = RECORD_VERSION.c, among.subquery()
        same = and_(kept.tenant == one.c.tenant, kept.kind == one.c.kind, kept.id == one.c.id)
        query = (
            select(RECORD_VERSION)
            .join_from(one, RECORD_VERSION, and_(same, kept.number == one.c.number))
            .where(kept.body.is_not(None))
            .order_by(kept.tenant, kept.kind, kept.id)
        )
        with self._reading() as connection:
            for row in connection.execution_options(yield_per=AT_ONCE).execute(query):
                yield rows.version(row)


def _key_row(row: Any) -> KeyRow:
    tenant, by, key, number, status, reply, verb, subject, party, body = row
    return tenant, by, key, number, key_digest(Command(tenant, verb, subject, party, by, "", body)), status, reply


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector, which would look at every new object again and again while none of them is garbage.

    In several threads at once: who found it on turns it on again, so it never stays off.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


@_uncollected()
def _whole(connection: Connection, wanted: Select[Any]) -> list[Entry]:
    """The entries of a query, with their changes and notes."""
    found = connection.execute(wanted).all()
    if not found:
        return []
    changes: dict[int, list[Change]] = {}
    for number, kind, id, body in connection.execute(_beside(RECORD_VERSION, CHANGE_COLUMNS, wanted, found)).all():
        changes.setdefault(number, []).append(Change(kind, id, body))
    notes: dict[int, list[Note]] = {}
    for row in connection.execute(_beside(NOTE, list(NOTE.c), wanted, found)).all():
        notes.setdefault(row[0], []).append(rows.note(row))
    return [rows.entry(row, changes.get(row[0], ()), notes.get(row[0], ())) for row in found]


def _beside(beside: Table, columns: list[Column[Any]], wanted: Select[Any], found: Sequence[Any]) -> Select[Any]:
    """What belongs to entries found: by their range where they lie close together, else one by one."""
    number, first, last = beside.c.number, found[0][0], found[-1][0]
    query = select(*columns).order_by(number, beside.c.position)
    if last - first < 4 * len(found):
        return query.where(number.between(first, last))
    one = wanted.with_only_columns(ENTRY.c.number).subquery().c.number
    return query.join_from(one.table, beside, number == one)
