"""Entries of a journal for tests: an author that continues its own chain, and journals to write them to."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from coflex.adapters.store import journal_writer
from coflex.adapters.store.journal import SqlJournal
from coflex.domain.errors import CoflexError
from coflex.service import chain
from coflex.service.ports import Change, Command, Entry, Journal, Note, Personal, StoreBroken, StoreFull
from support.postgres import emptied, left

START = datetime(2026, 3, 1, 8, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Author:
    """Gives one entry after the other, as a sequencer would; `entries` are all so far."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def next(
        self,
        verb: str = "unit.register",
        subject: str = "",
        *,
        tenant: str = "north",
        party: str = "dso",
        by: str | None = None,
        body: bytes = b'{"id":"u1"}',
        key: str | None = None,
        changes: Sequence[Change] = (),
        notes: Sequence[Note] = (),
        private: Sequence[Personal] = (),
        reply: bytes = b'{"ok":true}',
        after: timedelta = SECOND,
    ) -> Entry:
        command = Command(
            tenant, verb, subject, party, by or party, "client-1", body, key, expects=3, form=object(),
            private=tuple(private),
        )  # fmt: skip
        return self.take(command, 201, reply, changes, notes, after)

    def take(
        self,
        command: Command,
        status: int,
        reply: bytes,
        changes: Sequence[Change],
        notes: Sequence[Note],
        after: timedelta,
    ) -> Entry:
        last = self.entries[-1] if self.entries else None
        number, at = len(self.entries) + 1, (last.at if last else START) + after
        before = last.digest if last else chain.FIRST
        digest = chain.digest(before, number, at, command, status, reply, tuple(changes), tuple(notes))
        self.entries.append(Entry(number, at, command, status, reply, tuple(changes), tuple(notes), digest))
        return self.entries[-1]

    def several(self, count: int, size: int = 400) -> list[Entry]:
        """Entries of offers with `size` bytes each, with a key, a note and every tenth with a version."""
        made = []
        for _ in range(count):
            number = len(self.entries) + 1
            body = (b"%07d" % number) * (size // 7)
            changes = [Change("unit", f"u{number}", body)] if number % 10 == 0 else []
            note = Note("offer.submitted", "session-1", ("fsp",))
            made.append(
                self.next(
                    "offer.submit", "session-1", party="fsp", body=body, key=f"k{number}", changes=changes, notes=[note]
                )
            )
        return made


def kept(entry: Entry) -> Entry:
    """An entry as a journal gives it back."""
    return replace(entry, command=replace(entry.command, private=(), form=None, expects=None))


def sent(entries: Sequence[Entry]) -> list[Entry]:
    return [kept(entry) for entry in entries]


def all_of(journal: Journal) -> list[Entry]:
    """Everything in a journal, page by page."""
    found: list[Entry] = []
    while page := journal.entries(len(found), 777):
        found += page
    return found


def opened(place: str | Path, **options: float) -> SqlJournal:
    """A journal of a database that does not wait long for anybody."""
    return SqlJournal(place, **{"wait_s": 0.3, **options})


def fresh(url: str) -> str:
    """The URL of a PostgreSQL database with an empty journal: made once and then only cleared, as that is quicker."""
    left(url)
    try:
        cleared(url)
    except SQLAlchemyError:
        emptied(url)
    return url


def cleared(place: str | Path) -> None:
    """Take everything out of the journal of a place, whoever has it open."""
    engine = create_engine(place if isinstance(place, str) else f"sqlite:///{place}")
    with engine.begin() as connection:
        for table in ("entry", "version", "note", "feed", "personal"):
            connection.execute(text(f"DELETE FROM {table}"))
    engine.dispose()


def scribe(tell: Callable[[Any], None], place: str, batches: int, size: int, pages: int) -> None:
    """In a process of its own: wait for SIGUSR1, write batches, and tell the number after each, or how it failed.

    `pages`: in the log before it is moved into the file.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    tell("ready")
    signal.sigwait({signal.SIGUSR1})
    journal_writer.MOST_PAGES_IN_LOG = pages
    author = Author()
    try:
        journal = opened(place)
    except CoflexError:
        tell("refused")
        return
    for _ in range(batches):
        if not _told(tell, journal, author.several(size)):
            return
    journal.close()
    tell("closed")


def _told(tell: Callable[[Any], None], journal: Journal, batch: list[Entry]) -> bool:
    """Write a batch, again where there was no room; whether the journal goes on."""
    for _ in range(3):
        try:
            journal.append(batch)
        except StoreFull:
            tell("full")
            assert journal.head().number == batch[0].number - 1
        except StoreBroken:
            tell("broken")
            try:
                journal.append(batch)
            except StoreBroken:
                return False
            tell("trusted again")
            return False
        else:
            tell(batch[-1].number)
            return True
    return False
