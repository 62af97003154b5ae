"""A tenant with a few parties and their clients, on a machine that knows the verbs of access alone."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import Any

import msgspec

from coflex.adapters.store.journal_memory import MemoryJournal
from coflex.domain.party import Party, Role
from coflex.register.access import Client, ClientScope
from coflex.register.market import Market
from coflex.register.parties import PartyEntry, PartyStatus
from coflex.service.machine import Context, Machine, Outcome, Verb, encode
from coflex.service.ports import Command, Note
from coflex.service.sequencer import Receipt, Sequencer
from coflex.service.state import State
from coflex.service.verbs import access, issuers, webhooks

TENANT = "demo"
AT = datetime(2026, 1, 1, tzinfo=UTC)
# Secrets of clients are 43 characters; these are of "client-<party>".
SECRET = "s" * 43


def _put(state: State, context: Context, form: Any) -> Outcome:
    return Outcome(None)


class Records:
    """What a test writes as it is, past every rule: an act keeps the records of the test."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Any, str, Any]] = []

    def act(self, state: State, context: Context, form: Any) -> Outcome:
        written, self.waiting = tuple(self.waiting), []
        return Outcome(len(written), written)


def _tell(state: State, context: Context, form: list[tuple[str, str, tuple[str, ...]]]) -> Outcome:
    """Notes for the feed: (kind, subject, audience)."""
    return Outcome(
        len(form), (), tuple(Note(kind, subject, tuple(audience), b'{"of":"test"}') for kind, subject, audience in form)
    )


class Clock:
    """A server's clock that stands until it is moved."""

    def __init__(self, at: datetime = AT) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at


class Bench:
    """A platform without a server: the sequencer of tests behind the shape of a desk."""

    def __init__(self, sandbox: bool = True) -> None:
        self._records = Records()
        self.clock = Clock()
        self.journal = MemoryJournal()
        verbs = {verb.name: verb for room in (access, webhooks, issuers) for verb in room.VERBS}
        verbs["test.put"] = Verb("test.put", Any, self._records.act)
        verbs["test.tell"] = Verb("test.tell", list[tuple[str, str, tuple[str, ...]]], _tell)
        verbs["tenant.open"] = Verb("tenant.open", Any, _put)
        self.machine = Machine(verbs)
        self.sequencer = Sequencer(self.machine, self.journal, self.clock)
        self.take("tenant.open", party="")
        self.put(_market(sandbox), *parties(), *clients())

    @property
    def state(self) -> State:
        return self.machine.state(TENANT)

    def put(self, *records: Any) -> None:
        """Write records as they are."""
        self._records.waiting = [(type(one), one.id, one) for one in records]
        self.take("test.put")

    def tell(self, *notes: tuple[str, str, tuple[str, ...]]) -> None:
        """Notes in the feed."""
        self.take("test.tell", list(notes))

    def take(
        self,
        verb: str,
        form: Any = None,
        subject: str = "",
        party: str = "sp-1",
        by: str | None = None,
        actor: str = "operator",
        tenant: str = TENANT,
    ) -> Any:
        """The reply to a command, as JSON carries it. `actor`: the platform itself where a test does not say."""
        body = encode({} if form is None else form)
        receipt = self.sequencer.submit(Command(tenant, verb, subject, party, by or party, actor, body))
        return msgspec.json.decode(receipt.reply)

    async def submit(self, command: Command) -> Receipt:
        return self.sequencer.submit(command)


def _market(sandbox: bool) -> Market:
    day = date(2026, 1, 1)
    return Market("market", "Test", "Europe/Madrid", "", "", day, day, AT, AT, sandbox=sandbox)


def parties() -> Iterable[PartyEntry]:
    for name, role in (
        ("mo", Role.MARKET_OPERATOR),
        ("dso", Role.DSO),
        ("sp-1", Role.SERVICE_PROVIDER),
        ("sp-2", Role.SERVICE_PROVIDER),
    ):
        yield PartyEntry(name, Party(name, name.upper(), (role,)), PartyStatus.APPROVED, AT)


def clients() -> Iterable[Client]:
    """One of each party, with every scope: `client-<party>`."""
    for party in ("mo", "dso", "sp-1", "sp-2"):
        hashed = sha256(SECRET.encode()).hexdigest()
        yield Client(f"client-{party}", party, party, tuple(ClientScope), hashed, AT)


def key_of(party: str) -> str:
    return f"cf_client-{party}_{SECRET}"
