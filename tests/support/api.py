"""The REST door on a platform in memory: the register of `support.platform`, a client for every role."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from uuid import uuid4

import httpx
from argon2 import PasswordHasher
from starlette.types import ASGIApp

from coflex.adapters.exchange.tables.units_import import read_units
from coflex.adapters.store.journal_memory import MemoryJournal
from coflex.adapters.web.api.app import create_app
from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.orders import Orders
from coflex.adapters.web.api.rooms.resources import CSV, WORKBOOK
from coflex.adapters.web.identity import Accounts, Identity, Keys, Passwords
from coflex.adapters.web.identity.limits import Limits
from coflex.domain.party import Party, Role
from coflex.register.access import Client, ClientScope, Grant, Grants, Rates, User, login_digest
from coflex.register.parties import PartyEntry, PartyStatus
from coflex.service.gates import TenantGates
from coflex.service.machine import Machine
from coflex.service.sequencer import Sequencer
from support.canned_field import CannedField
from support.platform import LONG_AGO, SECRET, TENANT, TEST_VERBS, Clock, key_of, put, ready

T = TypeVar("T")
ROOT = f"/v1/{TENANT}"
# One party for each role that `support.platform` has not.
MORE = {
    "ro": Role.REGISTER_OPERATOR,
    "mda": Role.METERED_DATA_ADMINISTRATOR,
    "observer": Role.OBSERVER,
}
PARTY_OF = {
    Role.TSO: "tso",
    Role.DSO: "dso",
    Role.MARKET_OPERATOR: "mo",
    Role.SERVICE_PROVIDER: "sp-1",
    Role.BALANCE_RESPONSIBLE_PARTY: "brp",
    Role.METERED_DATA_ADMINISTRATOR: "mda",
    Role.REGISTER_OPERATOR: "ro",
    Role.ASSET_OWNER: "owner",
    Role.OBSERVER: "observer",
}


def client(id: str, party: str, **more: Any) -> Client:
    """A client of a party with the secret of all test clients and every scope."""
    hashed = sha256(SECRET.encode()).hexdigest()
    rates = Rates(100_000, 200_000, 10_000_000, 20_000_000)
    return Client(id, party, party, tuple(ClientScope), hashed, LONG_AGO, rates=rates, **more)


def others() -> Iterator[Any]:
    """Parties and clients beyond those of `support.platform`."""
    for name, role in MORE.items():
        yield PartyEntry(name, Party(name, name.upper(), (role,)), PartyStatus.APPROVED, LONG_AGO)
        yield client(f"client-{name}", name)
    yield PartyEntry("mo", Party("mo", "MO", (Role.MARKET_OPERATOR,)), PartyStatus.APPROVED, LONG_AGO)
    yield client("client-brp", "brp")
    for name in PARTY_OF.values():
        yield client(f"expired-{name}", name, expires=LONG_AGO + timedelta(days=1))
        yield client(f"revoked-{name}", name, revoked=LONG_AGO + timedelta(days=1))
    yield client("second-mo", "mo")


READERS = {CSV: partial(read_units, "units.csv"), WORKBOOK: partial(read_units, "units.xlsx")}


class Api:
    """The platform, its application, and requests to it as one of its parties."""

    def __init__(
        self,
        records: Iterable[Any] = (),
        units: int = 4,
        providers: int = 2,
        registrations: Limits | None = None,
    ) -> None:
        self.clock, self.journal, self.machine = Clock(), MemoryJournal(), Machine(TEST_VERBS)
        self.sequencer = Sequencer(self.machine, self.journal, self.clock, TenantGates(self.machine))
        for command in [*ready(units, providers), put(others()), put(records)]:
            self.sequencer.submit(command)
        self.open(registrations)

    def open(self, registrations: Limits | None = None) -> None:
        """The door of the platform that is there."""
        self.folder = TemporaryDirectory()
        keys = Keys(Path(self.folder.name) / "keys.json", self.clock())
        # Limits of rates are another test's: here a second passes between any two requests.
        limits = Limits(count().__next__)
        self.identity = Identity(self.machine, self.clock, keys, "http://test", limits)
        self.desk = Desk(self.machine, self.sequencer, self.journal, self.clock, self.identity.authenticate)
        self.accounts = Accounts(keys, Passwords(PasswordHasher(1, 8, 1)), registrations=registrations)
        self.starlette = create_app(self.desk, self.accounts, READERS, field=CannedField())
        self.app: ASGIApp = Orders(self.starlette, self.desk, lambda *words: None)

    @property
    def document(self) -> dict[str, Any]:
        return self.starlette.state.about.document  # type: ignore[no-any-return]

    def http(self, party: str | None = "mo", **headers: str) -> httpx.AsyncClient:
        """A client that speaks as a party; None: without credentials."""
        sent = {} if party is None else {"Authorization": f"Bearer {key_of(party)}"}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url=f"http://test{ROOT}", headers=sent | headers)

    async def ask(self, method: str, path: str, party: str | None = "mo", body: Any = None, **headers: str) -> Any:
        """One request; a write gets a new idempotency key where none is given. Header names with underscores."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if method != "GET":
            sent = {"Idempotency-Key": uuid4().hex} | sent
        async with self.http(party) as http:
            return await http.request(method, path, json=body, headers=sent)

    def signed_in(self, name: str, party: str) -> dict[str, str]:
        """The header of a user of a party, a person who signed in at the party's client."""
        state, at = self.machine.state(TENANT), self.clock()
        scopes = tuple(ClientScope)
        user = User(name, party, scopes, login_digest(TENANT, name), "", LONG_AGO, LONG_AGO)
        grant = Grant("grant", f"client-{party}", scopes, "", at, at + timedelta(days=1))
        self.sequencer.submit(put([user, Grants(name, party, (grant,))]))
        token = self.identity.tokens.access(TENANT, state.get(User, name), grant.client, scopes, at, grant.id)
        return {"Authorization": f"Bearer {token}"}

    def run(self, act: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run(act())

    def __call__(self, method: str, path: str, party: str | None = "mo", body: Any = None, **headers: str) -> Any:
        """One request, on a loop of its own."""
        return asyncio.run(self.ask(method, path, party, body, **headers))

    def without_roles(self, party: str) -> None:
        """Suspend a party."""
        state = self.machine.state(TENANT)
        entry = replace(state.get(PartyEntry, party), status=PartyStatus.SUSPENDED)
        self.sequencer.submit(put([entry]))
