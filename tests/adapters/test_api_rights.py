"""Who may do what at the door: every role, every operation, own and others' records, against one table (PLAT-01).

`docs/rights.csv` is the table. A row is an operation; a cell says what a role may do: `any` (records of whoever), `own`
(those that name its party, whatever the client that asks) or nothing. What is not in the table is not allowed.
"""

from __future__ import annotations

import asyncio

import pytest

from coflex.domain.party import Role
from support.api import PARTY_OF, Api
from support.api_requests import Operation, dry, operations, status, table
from support.api_world import OTHER_OF


@pytest.fixture(scope="module")
def api() -> Api:
    return dry()


@pytest.fixture(scope="module")
def every(api: Api) -> list[Operation]:
    return list(operations(api.document))


# A client that may only read manages its own password and ends its own tokens.
# What two persons decide, no client can ask for.
OF_PERSONS = {
    "market_change", "product_set_price_cap", "session_rerun", "proposal_confirm", "settlement_terms_set",
    "settlement_rerun", "dispute_decide",
}  # fmt: skip
OF_READERS = {"user_change_password", "token_revoke"}
DENIED, UNKNOWN = {403, 404}, {401}
# What would say that the test asked wrongly, or that the platform failed.
WRONG = {400, 401, 405, 406, 415, 428, 429, 500, 501, 502, 503, 504}


async def cells(api: Api, every: list[Operation]) -> list[tuple[str, Role, str, int]]:
    """Operation, role, whose record ("own", "same", "other") and status of every cell."""
    found = []
    persons = signed_in(api)
    async with api.http(None) as http:
        for one in every:
            for role, party in PARTY_OF.items():
                clients = {"own": f"client-{party}", "same": f"second-{party}", "other": f"client-{OTHER_OF[role]}"}
                if one.id in OF_PERSONS:
                    clients = {whose: persons[client] for whose, client in clients.items()}
                for whose, client in clients.items():
                    found.append((one.id, role, whose, await status(http, one, party, client)))
    return found


def signed_in(api: Api) -> dict[str, dict[str, str]]:
    """A person beside each client of a party."""
    parties = sorted({*PARTY_OF.values(), *OTHER_OF.values()})
    return {
        f"{client}-{party}": api.signed_in(f"person-{client}-{party}", party)
        for party in parties
        for client in ("client", "second")
    }


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


@pytest.mark.spec("PLAT-01")
def test_a_client_does_no_more_than_its_scopes(api: Api, every: list[Operation]) -> None:
    async def ask() -> list[tuple[str, str, int]]:
        async with api.http(None) as http:
            return [
                (one.id, client, await status(http, one, "sp-1", client))
                for one in every
                for client in ("reader-sp-1", "nothing-sp-1")
                if client == "nothing-sp-1" or (one.method != "GET" and one.id not in OF_READERS)
            ]

    assert [row for row in asyncio.run(ask()) if row[2] != 403] == []


@pytest.mark.spec("MKT-02")
def test_sealed_offers_are_read_by_their_provider_alone(api: Api, every: list[Operation]) -> None:
    sealed = [one for one in every if one.method == "GET" and "/offers" in one.path]
    assert len(sealed) == 2
    for one in sealed:
        assert {role for role, cell in table()[one.id].items() if cell} == {Role.SERVICE_PROVIDER}
