"""The journal in memory: the equal of the one in a database, but for durability."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from coflex.adapters.store.journal_rows import check
from coflex.service.chain import FIRST
from coflex.service.ports import Brief, Entry, FeedItem, Head, KeysTaken, Personal, Version
from coflex.service.sequencer import key_digest


class MemoryJournal:
    """Entries in a list; everything else is looked up from them. Appending is safe against reading threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._versions: dict[tuple[str, str, str], list[Version]] = {}
        self._personal: dict[tuple[str, str], Personal] = {}
        self._keys: dict[tuple[str, str, str], Entry] = {}

    def append(self, entries: Sequence[Entry]) -> None:
        with self._lock:
            check(entries, len(self._entries))
            taken = [one for one in map(_scope, entries) if one is not None and one in self._keys]
            if taken:
                raise KeysTaken(taken)
            for entry in entries:
                self._take(entry)

    def head(self) -> Head:
        entries = self._entries
        if not entries:
            return Head(0, None, FIRST)
        last = entries[-1]
        return Head(last.number, last.at, last.digest)

    def recover(self) -> Head:
        return self.head()

    def entries(self, after: int = 0, limit: int = 1000) -> list[Entry]:
        after = max(0, after)
        return self._entries[after : after + limit]

    def latest(self) -> Iterator[Version]:
        with self._lock:
            newest = [self._versions[key][-1] for key in sorted(self._versions)]
        return (version for version in newest if version.body is not None)

    def history(self, tenant: str, kind: str, id: str) -> list[Version]:
        return list(self._versions.get((tenant, kind, id), ()))

    def as_of(self, tenant: str, kind: str, at: datetime) -> list[Version]:
        with self._lock:
            of_kind = [self._versions[key] for key in sorted(self._versions) if key[:2] == (tenant, kind)]
            then = [[version for version in versions if version.at <= at] for versions in of_kind]
        return [versions[-1] for versions in then if versions and versions[-1].body is not None]

    def of_subject(self, tenant: str, verbs: Sequence[str], subject: str) -> Iterator[Brief]:
        for entry in list(self._entries):
            command = entry.command
            if command.tenant == tenant and command.subject == subject and command.verb in verbs:
                yield Brief(entry.number, entry.at, command.verb, command.party, command.body, entry.reply)

    def recent_keys(self, limit: int) -> list[tuple[str, str, str]]:
        keyed = [scope for entry in list(self._entries) if (scope := _scope(entry)) is not None]
        return keyed[max(0, len(keyed) - limit) :]

    def key(self, tenant: str, party: str, key: str) -> tuple[str, str, str, int, bytes, int, bytes] | None:
        entry = self._keys.get((tenant, party, key))
        return None if entry is None else _key_row(entry)

    def feed(self, tenant: str, party: str, after: tuple[int, int], limit: int) -> list[FeedItem]:
        found: list[FeedItem] = []
        for entry in self._entries[max(0, after[0] - 1) :]:
            if entry.command.tenant != tenant:
                continue
            for position, note in enumerate(entry.notes):
                mine = party in note.audience or "*" in note.audience
                if mine and (entry.number, position) > after:
                    found.append(FeedItem(entry.number, position, entry.at, note))
        return found[:limit]

    def personal(self, tenant: str, subject: str) -> Personal | None:
        return self._personal.get((tenant, subject))

    def close(self) -> None:
        """Nothing to let go of."""

    def _take(self, entry: Entry) -> None:
        command = entry.command
        for change in entry.changes:
            version = Version(command.tenant, change.kind, change.id, entry.number, entry.at, change.body)
            self._versions.setdefault((command.tenant, change.kind, change.id), []).append(version)
        for one in command.private:
            if one.body is None:
                self._personal.pop((command.tenant, one.subject), None)
            else:
                self._personal[command.tenant, one.subject] = one
        # Of a command a journal keeps what was asked: personal data lies apart, and what only the door knew is gone.
        kept = replace(entry, command=replace(command, private=(), form=None, expects=None))
        self._entries.append(kept)
        scope = _scope(kept)
        if scope is not None:
            self._keys[scope] = kept


def _scope(entry: Entry) -> tuple[str, str, str] | None:
    """Where an idempotency key counts once."""
    command = entry.command
    return None if command.key is None else (command.tenant, command.by, command.key)


def _key_row(entry: Entry) -> tuple[str, str, str, int, bytes, int, bytes]:
    command = entry.command
    digest = key_digest(command)
    return command.tenant, command.by, str(command.key), entry.number, digest, entry.status, entry.reply
