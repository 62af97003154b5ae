"""Entries as rows of the journal's tables, and back; and what no journal takes, in memory or in a database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import Table

from coflex.adapters.store.tables import ENTRY, FEED, NOTE, PERSONAL, RECORD_VERSION
from coflex.service.chain import fit, instant, microseconds
from coflex.service.ports import Change, Command, Entry, Note, Personal, StoreBroken, Version

Row: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of several entries. `tables`: what is added. `erased`: (tenant, subject) whose personal data goes first,
    because it ended or is replaced. `weight`: bytes of all bodies. `erases`: whether personal data goes for good."""

    tables: dict[Table, list[Row]]
    erased: tuple[tuple[str, str], ...]
    erases: bool
    weight: int


def check(entries: Sequence[Entry], last: int) -> None:
    """Refuse entries that do not continue after number `last`, or that no journal gives back.

    Raises StoreBroken for a number, ValueError for a record written twice by one entry, a key taken twice, and for
    what `fit` names.
    """
    for expected, entry in enumerate(entries, start=last + 1):
        if entry.number != expected:
            raise StoreBroken(
                f"Entry {entry.number} does not follow entry {expected - 1}.",
                "Let one server write to a store; then restart this one.",
            )
        fit(entry)
        if len(entry.changes) > 1 and len({(one.kind, one.id) for one in entry.changes}) < len(entry.changes):
            raise ValueError(f"Entry {entry.number} writes a record twice.")
    keys = [(one.command.tenant, one.command.by, one.command.key) for one in entries if one.command.key is not None]
    if len(set(keys)) < len(keys):
        raise ValueError("Two entries of one batch have the same key.")


def batch(entries: Sequence[Entry]) -> Batch:
    """The rows of entries that `check` has let pass."""
    commands: list[Row] = []
    versions: list[Row] = []
    notes: list[Row] = []
    feed: list[Row] = []
    private: dict[tuple[str, str], Personal] = {}
    weight = 0
    for entry in entries:
        number, command, at_us = entry.number, entry.command, microseconds(entry.at)
        tenant = command.tenant
        commands.append((
            number, at_us, tenant, command.verb, command.subject, command.party, command.by, command.actor,
            command.key, command.body, entry.status, entry.reply, entry.digest,
        ))  # fmt: skip
        weight += len(command.body) + len(entry.reply)
        for place, change in enumerate(entry.changes):
            versions.append((tenant, change.kind, change.id, number, place, at_us, change.body))
            weight += len(change.body or b"")
        for place, note in enumerate(entry.notes):
            notes.append((number, place, note.kind, note.subject, "\n".join(note.audience), note.body))
            feed += readers(tenant, number, place, note)
            weight += len(note.body)
        for one in command.private:
            private[tenant, one.subject] = one
    kept = [(*key, one.salt, one.body) for key, one in private.items() if one.body is not None]
    tables = {ENTRY: commands, RECORD_VERSION: versions, NOTE: notes, FEED: feed, PERSONAL: kept}
    return Batch(tables, tuple(private), len(kept) < len(private), weight)


def readers(tenant: str, number: int, place: int, note: Note) -> list[Row]:
    """The rows of the feed by which the readers of a note find it."""
    return [(tenant, party, number, place) for party in dict.fromkeys(note.audience)]


def entry(row: Row, changes: Iterable[Change] = (), notes: Iterable[Note] = ()) -> Entry:
    """The entry of a row of the table `entry`, with its changes and notes in order."""
    number, at_us, tenant, verb, subject, party, by, actor, key, body, status, reply, digest = row
    command = Command(tenant, verb, subject, party, by, actor, body, key)
    return Entry(number, instant(at_us), command, status, reply, tuple(changes), tuple(notes), digest)


def version(row: Row) -> Version:
    """The version of a row of the table `version`."""
    tenant, kind, id, number, _, at_us, body = row
    return Version(tenant, kind, id, number, instant(at_us), body)


def note(row: Row) -> Note:
    """The note of a row of the table `note`."""
    _, _, kind, subject, audience, body = row
    return Note(kind, subject, tuple(audience.split("\n")) if audience else (), body)
