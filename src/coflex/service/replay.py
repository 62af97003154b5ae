"""Restore and replay: the state from the store, and the proof that the journal alone gives the same.

`restore` reads the newest records and the books of sessions whose result is not known: what a server does when it
starts. `replay` decides every command anew in an empty machine and holds each answer, change, note and digest against
what the journal says, to the byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from coflex.domain.errors import CoflexError
from coflex.market.engine import SessionState
from coflex.register.market import SessionEntry
from coflex.register.outcomes import SessionOutcome, Step, outcome_id
from coflex.service import chain
from coflex.service.books import books
from coflex.service.machine import Machine, encode, now
from coflex.service.ports import Entry, Journal
from coflex.service.state import State
from coflex.service.verbs.offers import VERBS_BY_NAME, reread


class Engine(Protocol):
    """Computes anew what the engine brought."""

    def reached(self, machine: Machine, number: int) -> None:
        """The machine has taken the entry of this number, and nothing after it."""
        ...

    def body(self, entry: Entry) -> bytes | None:
        """The body that an entry of the engine must have; None where nothing was computed anew."""
        ...


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a replay departs from the journal: number of the entry, what, and how."""

    number: int
    what: str


def restore(machine: Machine, journal: Journal) -> None:
    """Bring the machine to the journal's head."""
    for version in journal.latest():
        machine.load(version)
    for tenant in sorted(machine.tenants):
        state = machine.tenants[tenant]
        for session in state.all(SessionEntry):
            if has_book(state, session):
                read_book(state, session, journal)


def has_book(state: State, session: SessionEntry) -> bool:
    """Whether a session's offers are in its book, not yet in a result."""
    result = state.find(SessionOutcome, outcome_id(session.id, Step.RESULT))
    return session.state in (SessionState.OPEN, SessionState.CLOSED) and result is None


def read_book(state: State, session: SessionEntry, journal: Journal) -> None:
    """The book of a session from the entries about it."""
    book, withdrawn = None, frozenset(session.withdrawn)
    for brief in journal.of_subject(state.tenant, tuple(VERBS_BY_NAME), session.id):
        if book is None:
            book = books(state).of(state, session, now(state, brief.at))
        reread(book, brief, withdrawn)


def replay(entries: Iterable[Entry], machine: Machine, engine: Engine | None = None) -> Iterator[Difference]:
    """Decide every entry anew, in its order; yields what differs and goes on as the journal says where it can."""
    before = chain.FIRST
    for entry in entries:
        computed = engine.body(entry) if engine is not None else None
        if computed is not None and computed != entry.command.body:
            yield Difference(entry.number, "the result computed anew is another one")
        try:
            taken = machine.apply(entry.command, entry.number, entry.at)
        except CoflexError as fault:
            yield Difference(entry.number, f"it was taken, and is refused now: {fault}")
            continue
        for what, ours, theirs in (
            ("status", taken.status, entry.status),
            ("reply", taken.reply, entry.reply),
            ("changes", taken.changes, entry.changes),
            ("notes", taken.notes, entry.notes),
        ):
            if ours != theirs:
                yield Difference(entry.number, f"the {what} decided anew is another one")
        if chain.of(entry, before) != entry.digest:
            yield Difference(entry.number, "its content is not what was acknowledged")
        before = entry.digest
        if engine is not None:
            engine.reached(machine, entry.number)


def fingerprint(machine: Machine) -> str:
    """SHA-256, hexadecimal, over all records of all tenants with the numbers of their entries, and over the open
    books: equal for equal states."""
    hashed = sha256()
    for tenant in sorted(machine.tenants):
        state = machine.tenants[tenant]
        for kind, id, record, number in state.kinds():
            hashed.update(encode((tenant, kind, id, number, record)))
        for session in state.all(SessionEntry):
            if has_book(state, session):
                hashed.update(encode((tenant, session.id, books(state).offers(session.id))))
    return hashed.hexdigest()
