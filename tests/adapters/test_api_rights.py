"""Who may do what at the door: every role, every operation, own and others' records, against one table (PLAT-01).

`docs/rights.csv` is the table. A row is an operation; a cell says what a role may do: `any` (records of whoever), `own`
(those that name its party, whatever the client that asks) or nothing. What is not in the table is not allowed.
"""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from coflex.adapters.web.api.desk import Desk
from coflex.domain.party import Role
from coflex.register.market import SessionEntry
from coflex.service.ports import Command
from coflex.service.sequencer import Receipt
from support.api import PARTY_OF, Api
from support.api_world import OTHER_OF, others, persons, published, records
from support.platform import FIRST, SECRET, TENANT, offer, put

TABLE = Path(__file__).parents[2] / "docs" / "rights.csv"
OUTCOME = FIRST.replace("local-1", "local-2")
# What the names in paths stand for, for a role's own party; {} is the party.
NAMED = {
    "tenant": TENANT, "party": "{}", "client": "client-{}", "user": "user-{}", "holder": "client-{}",
    "webhook": "webhook-{}", "proposal": "proposal-{}", "issuer": "issuer-1", "design": "beflexible_six",
    "perimeter": "per-1", "point": "pod-0001", "unit": "cu-0001", "group": "sp-1-local", "product": "local_energy",
    "consent": "consent-cu-0001", "prequalification": "cu-0001@dso", "qualification": "sp-1-local@local_energy",
    "test": "test-1", "scheduling_unit": "su-1", "member": "su-1@cu-0001", "agreement": "tso@sp-1", "session": FIRST,
    "offer": "o-1",
}  # fmt: skip
# Operations that another record suits better: a session with a result, a scheduling unit that has come so far.
ELSEWHERE = {
    "list_award": {FIRST: OUTCOME},
    "list_merit_line": {FIRST: OUTCOME},
    "list_uncovered": {FIRST: OUTCOME},
    "scheduling_unit_confirm": {"su-1": "su-2"},
    "scheduling_unit_take_part": {"su-1": "su-3"},
    "scheduling_test_set": {"su-1": "su-3"},
    "scheduling_test_answer": {"test-1": "test-2"},
    "scheduling_unit_agree": {"su-1": "su-4"},
}
# Bodies that the document gives no example of, or one that names what is not here.
BODIES: dict[str, Any] = {
    "client_create": {"name": "Bids", "scopes": ["read"]},
    "client_limit": {"requests_per_s": 10, "requests_burst": 20, "items_per_s": 10, "items_burst": 20},
    "token_revoke": {},
    "user_create": {"name": "a sign-in name", "scopes": ["read"], "password": "correct horse battery"},
    "user_change": {"scopes": ["read"]},
    "user_change_password": {"password": "correct horse battery", "current": "x"},
    "webhook_create": {"url": "https://hook.example/x"},
    "webhook_change": {"url": "https://hook.example/x"},
    "webhook_disable": {"reason": "Too many."},
    "issuer_set": {"url": "https://id2.example", "audience": "coflex", "claim": "p", "names": "party",
                   "parties": ["sp-1"]},
    "party_register": {"id": "new", "name": "New", "roles": ["service_provider"]},
    "person_change": {"name": "Ada", "email": "ada@example.org"},
    "offer_submit": offer("o-2", 1),
    "offer_replace": offer("o-1", 1),
    "units_import": {"rows": []},
    "product_test_set": {"starts": "2016-07-06T10:00:00Z"},
    "connection_point_register": {
        "id": "pod-new", "bus": "", "level": "distribution", "voltage_kv": 20.0, "system_operator": "dso",
        "owner": "owner", "latitude": 41.9, "longitude": 12.5,
    },
    "consent_give": {"unit": "cu-0001", "provider": "sp-1", "scope": ["offer"], "ends": "2027-01-01T00:00:00Z"},
    "product_qualification_request": {"group": "sp-1-local", "product": "local_energy", "up_kw": 1, "down_kw": 0},
    "product_qualification_apply_equivalence": {
        "source": "sp-1-local@local_energy", "group": "sp-1-local", "product": "local_energy",
    },
    "scheduling_unit_declare": {"id": "su-9", "type": "demand", "products": ["global_energy"], "tso": "tso"},
    "scheduling_test_set": {"product": "global_energy", "starts": "2016-07-06T10:00:00Z"},
}  # fmt: skip
# Nobody signs in where tokens are made.
ISSUER = "sign-in"


@dataclass(frozen=True)
class Operation:
    """An operation of the document."""

    id: str
    method: str
    path: str
    body: Any
    public: bool

    def request(self, party: str) -> tuple[str, str]:
        """Method and path, on the records of a party."""
        path = self.path
        for name, value in NAMED.items():
            path = path.replace(f"{{{name}}}", value.format(party))
        assert "{" not in path, f"what is {path}?"
        for before, after in ELSEWHERE.get(self.id, {}).items():
            path = path.replace(before, after)
        return self.method, path


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            if ISSUER in told["tags"] or told["operationId"] == "stream_event":
                continue
            content = told.get("requestBody", {}).get("content", {}).get("application/json", {})
            body = BODIES.get(told["operationId"], content.get("example"))
            yield Operation(told["operationId"], method.upper(), path, body, {} in told.get("security", []))


class Dry(Desk):
    """A desk whose commands are decided and taken back, so that every cell of the table meets the same state."""

    async def submit(self, command: Command) -> Receipt:
        at = self.clock()
        taken = self.machine.apply(command, self.sequencer.number + 1, at)
        self.machine.take_back(command.tenant, taken)
        return Receipt(self.sequencer.number, at, taken.status, taken.reply)


@pytest.fixture(scope="module")
def api() -> Api:
    api = Api()
    for made in (others(), records()):
        api.sequencer.submit(put(made))
    api.sequencer.submit(persons())
    entry = api.machine.state(TENANT).get(SessionEntry, OUTCOME)
    api.sequencer.submit(put(published(entry)))
    assert api("POST", f"/sessions/{FIRST}/offers", "sp-1", offer("o-1", 1)).status_code == 201
    api.desk.__class__ = Dry
    return api


@pytest.fixture(scope="module")
def every(api: Api) -> list[Operation]:
    return list(operations(api.document))


def table() -> dict[str, dict[Role, str]]:
    """The expectations: operation -> role -> "any", "own" or ""."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {row.pop("operation"): {Role(role): cell for role, cell in row.items()} for row in csv.DictReader(file)}


async def status(http: httpx.AsyncClient, one: Operation, owner: str, client: str | None) -> int:
    """The status of an operation on the records of a party, asked with a client's key; None: without one."""
    method, path = one.request(owner)
    headers = {} if client is None else {"Authorization": f"Bearer cf_{client}_{SECRET}"}
    if method != "GET":
        headers |= {"Idempotency-Key": "k" * 40, "If-Match": "*", "Content-Type": "application/json"}
    content = b"" if one.body is None else json.dumps(one.body).encode()
    return (await http.request(method, f"http://test{path}", content=content, headers=headers)).status_code


DENIED, UNKNOWN = {403, 404}, {401}
# What would say that the test asked wrongly, or that the platform failed.
WRONG = {400, 401, 405, 406, 415, 428, 429, 500, 501, 502, 503, 504}


async def cells(api: Api, every: list[Operation]) -> list[tuple[str, Role, str, int]]:
    """Operation, role, whose record ("own", "same", "other") and status of every cell."""
    found = []
    async with api.http(None) as http:
        for one in every:
            for role, party in PARTY_OF.items():
                clients = {"own": f"client-{party}", "same": f"second-{party}", "other": f"client-{OTHER_OF[role]}"}
                for whose, client in clients.items():
                    found.append((one.id, role, whose, await status(http, one, party, client)))
    return found


@pytest.mark.spec("PLAT-01", "REG-11")
def test_every_role_may_do_what_the_table_says_and_nothing_else(api: Api, every: list[Operation]) -> None:
    expected = table()
    faults = []
    for operation, role, whose, got in asyncio.run(cells(api, every)):
        cell = expected[operation][role]
        assert cell in ("", "own", "any"), f"{operation}, {role}: '{cell}'"
        may = cell == "any" or (cell == "own" and whose != "other")
        if got in WRONG or may is (got in DENIED):
            faults.append(f"{operation}: {role.value}, {whose}: {got}, the table says '{cell}'")
    assert faults == []


@pytest.mark.spec("PLAT-01")
def test_every_operation_has_its_row_and_every_row_its_operation(every: list[Operation]) -> None:
    assert sorted(table()) == sorted(one.id for one in every)
    assert all(set(row) == set(Role) for row in table().values())


@pytest.mark.spec("PLAT-01")
def test_without_credentials_that_hold_nothing_is_answered(api: Api, every: list[Operation]) -> None:
    async def ask() -> list[tuple[str, str | None, int]]:
        async with api.http(None) as http:
            return [
                (one.id, client, await status(http, one, "sp-1", client))
                for one in every
                for client in (None, "nobody", *(f"{how}-{party}" for how in ("expired", "revoked")
                                                 for party in PARTY_OF.values()))
                if not (one.public and client is None)
            ]  # fmt: skip

    assert [row for row in asyncio.run(ask()) if row[2] not in UNKNOWN] == []


@pytest.mark.spec("MKT-02")
def test_sealed_offers_are_read_by_their_provider_alone(api: Api, every: list[Operation]) -> None:
    sealed = [one for one in every if one.method == "GET" and "/offers" in one.path]
    assert len(sealed) == 2
    for one in sealed:
        assert {role for role, cell in table()[one.id].items() if cell} == {Role.SERVICE_PROVIDER}
