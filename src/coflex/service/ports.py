"""What the machine is given and what it asks of the world: commands, journal entries, and the ports behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from coflex.domain.errors import CoflexError


@dataclass(frozen=True, slots=True)
class Command:
    """One thing asked of the platform, before it has a number.

    `verb`: what is to be done ("unit.register"). `subject`: id of the record it is about, empty where it makes one.
    `party`: for whom it is done. `by`: the party that does it, another one where an operator acts on behalf.
    `actor`: the client or user that asked ("clock" for gates, "engine" for computed results).
    `body`: the form as JSON, just as it enters the journal. `form`: the same decoded, where the door has it already.
    `key`: idempotency key of the party's client; `expects`: number of the entry that last wrote the subject, if the
    caller insists on it. `private`: personal data that is kept beside the journal; the body holds its commitments.
    """

    tenant: str
    verb: str
    subject: str
    party: str
    by: str
    actor: str
    body: bytes
    key: str | None = None
    expects: int | None = None
    form: Any = field(default=None, compare=False)
    private: tuple[Personal, ...] = ()


@dataclass(frozen=True, slots=True)
class Personal:
    """Personal data of a subject, apart from the journal. The journal holds sha256(salt + body) and nothing else of it.

    `body` None: the data of the subject is erased, salt and all.
    """

    subject: str
    salt: bytes
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Change:
    """A record as it is from this entry on; None: it ended. `body` is the record as JSON, as the store keeps it."""

    kind: str
    id: str
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Note:
    """An event of the feed. `audience`: parties that read it; ("*",) everybody of the tenant."""

    kind: str
    subject: str
    audience: tuple[str, ...]
    body: bytes = b"{}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A command that was taken: its number, its instant (UTC, whole microseconds), its answer and what it changed.

    `digest`: SHA-256 over the entry before it and everything in this one (see `coflex.service.chain`).
    """

    number: int
    at: datetime
    command: Command
    status: int
    reply: bytes
    changes: tuple[Change, ...]
    notes: tuple[Note, ...]
    digest: bytes


class Brief(NamedTuple):
    """As much of an entry as the book of a session needs: what was said, by which party, and what was answered."""

    number: int
    at: datetime
    verb: str
    party: str
    body: bytes
    reply: bytes


@dataclass(frozen=True, slots=True)
class Version:
    """A record as an entry wrote it: `number` and `at` of that entry."""

    tenant: str
    kind: str
    id: str
    number: int
    at: datetime
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of a journal; number 0 and 32 zero bytes where there is none."""

    number: int
    at: datetime | None
    digest: bytes


class StoreFull(CoflexError):
    """There is no room; nothing of the entries was written and the journal is as it was."""

    code = "STORE_FULL"


class StoreLost(CoflexError):
    """The store cannot be reached, or its answer did not arrive: whether the entries were written is not known."""

    code = "STORE_LOST"


class StoreBroken(CoflexError):
    """The store can no longer be trusted (a sync failed, or its head is not ours): nothing may be acknowledged."""

    code = "STORE_BROKEN"


class KeysTaken(CoflexError):
    """Idempotency keys of the entries belong to older ones; nothing was written and the journal is as it was.

    `keys`: (tenant, party, key).
    """

    code = "KEYS_TAKEN"

    def __init__(self, keys: Sequence[tuple[str, str, str]]) -> None:
        super().__init__("An idempotency key was used long ago.", "Ask again with the same key: the answer is there.")
        self.keys = tuple(keys)


class Journal(Protocol):
    """The durable store of entries, versions, feed and personal data. One writer; used from one thread at a time
    for writing, from any thread for reading."""

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries, their versions, notes and personal data in one transaction, on the disk when it returns.

        Raises StoreFull, KeysTaken, StoreLost or StoreBroken.
        """
        ...

    def head(self) -> Head:
        """The last entry that is durably there. Raises StoreLost while it cannot be asked."""
        ...

    def recover(self) -> Head:
        """After StoreLost: connect anew, take back the writer's lock, and say what is there.

        Raises StoreLost while that fails, StoreBroken when another writer has the lock.
        """
        ...

    def entries(self, after: int = 0, limit: int = 1000) -> list[Entry]:
        """Entries with number > after, in order."""
        ...

    def latest(self) -> Iterator[Version]:
        """The newest version of every record that has not ended, by tenant, kind and id."""
        ...

    def history(self, tenant: str, kind: str, id: str) -> list[Version]:
        """All versions of a record, oldest first."""
        ...

    def as_of(self, tenant: str, kind: str, at: datetime) -> list[Version]:
        """Every record of a kind as it was at an instant, by id; those that had ended are left out."""
        ...

    def of_subject(self, tenant: str, verbs: Sequence[str], subject: str) -> Iterator[Brief]:
        """Entries of some verbs about one subject, in order: how the book of an open session is read back."""
        ...

    def recent_keys(self, limit: int) -> list[tuple[str, str, str]]:
        """(tenant, party, key) of the newest entries with an idempotency key, in their order."""
        ...

    def key(self, tenant: str, party: str, key: str) -> tuple[str, str, str, int, bytes, int, bytes] | None:
        """(tenant, party, key, number, SHA-256 of verb, subject and body, status, reply) of the entry with a key,
        however old; None where there is none."""
        ...

    def feed(self, tenant: str, party: str, after: tuple[int, int], limit: int) -> list[FeedItem]:
        """Notes for a party (or everybody) after a place in the feed, in order."""
        ...

    def personal(self, tenant: str, subject: str) -> Personal | None:
        """Personal data of a subject, or None where there is none or it was erased."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class FeedItem:
    """A note with its place in the feed: number of its entry, and position among that entry's notes."""

    number: int
    position: int
    at: datetime
    note: Note


class Clock(Protocol):
    """The server's clock, UTC. It may go back; the sequencer does not."""

    def __call__(self) -> datetime: ...
