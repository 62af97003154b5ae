"""The chain of the journal: every entry's digest covers the entry before it, so no byte changes unseen.

    digest(0) = 32 zero bytes
    digest(n) = SHA-256(digest(n-1) || field_1 || ... || field_k),  each field after its length (8 bytes, big-endian)

The fields, in this order: number, instant (microseconds since 1970 UTC), tenant, verb, subject, party, by, actor, key
(absent: the length is 2^64-1), body, status, reply, number of changes, number of notes; then of each change kind, id
and body; then of each note kind, subject, its audience joined by line feeds, and body. Numbers are decimal text.
Personal data is not covered: the body holds its commitments.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from coflex.service.ports import Change, Command, Entry, Note

FIRST = bytes(32)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ABSENT = b"\xff" * 8
_MICROSECOND = timedelta(microseconds=1)


def microseconds(at: datetime) -> int:
    return (at - EPOCH) // _MICROSECOND


def instant(us: int) -> datetime:
    return EPOCH + us * _MICROSECOND


def digest(
    before: bytes,
    number: int,
    at: datetime,
    command: Command,
    status: int,
    reply: bytes,
    changes: tuple[Change, ...],
    notes: tuple[Note, ...],
) -> bytes:
    """SHA-256 of an entry after the one with digest `before`."""
    fields: list[bytes | None] = [
        b"%d" % number,
        b"%d" % microseconds(at),
        command.tenant.encode(),
        command.verb.encode(),
        command.subject.encode(),
        command.party.encode(),
        command.by.encode(),
        command.actor.encode(),
        None if command.key is None else command.key.encode(),
        command.body,
        b"%d" % status,
        reply,
        b"%d" % len(changes),
        b"%d" % len(notes),
    ]
    for change in changes:
        fields += (change.kind.encode(), change.id.encode(), change.body)
    for note in notes:
        fields += (note.kind.encode(), note.subject.encode(), "\n".join(note.audience).encode(), note.body)
    parts = [_ABSENT if one is None else len(one).to_bytes(8, "big") + one for one in fields]
    return sha256(before + b"".join(parts)).digest()


def fit(entry: Entry) -> None:
    """Raises ValueError for what no journal gives back: a zero character in a text, or a reader of a note whose id is
    empty or longer than a line."""
    command = entry.command
    texts = [command.tenant, command.verb, command.subject, command.party, command.by, command.actor, command.key or ""]
    for change in entry.changes:
        texts += (change.kind, change.id)
    for note in entry.notes:
        texts += (note.kind, note.subject, *note.audience)
        if any(not party or "\n" in party for party in note.audience):
            raise ValueError(f"{command.verb} has a note for a party without an id of one line")
    texts += (one.subject for one in command.private)
    if "\0" in "".join(texts):
        raise ValueError(f"{command.verb} has a zero character in a text")


def of(entry: Entry, before: bytes) -> bytes:
    """The digest that an entry must have after `before`."""
    return digest(before, entry.number, entry.at, entry.command, entry.status, entry.reply, entry.changes, entry.notes)


def breaks(entries: Iterator[Entry] | list[Entry], before: bytes = FIRST, number: int = 0) -> Iterator[tuple[int, str]]:
    """Number and reason of every entry that does not continue the chain; the search goes on from what is written."""
    for entry in entries:
        if entry.number != number + 1:
            yield entry.number, f"entry {number + 1} is missing"
        if of(entry, before) != entry.digest:
            yield entry.number, "its content is not what was acknowledged"
        before, number = entry.digest, entry.number
