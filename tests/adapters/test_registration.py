"""Who is not known can register a party, but not by the thousand; and nobody becomes a person by acting for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coflex.adapters.web.api.problems import TooMany
from coflex.adapters.web.identity import Accounts, Keys, Passwords
from coflex.adapters.web.identity.limits import Limits, network
from coflex.register.parties import PartyEntry
from support.access import AT
from support.api import Api
from support.platform import TENANT

BURST, PER_MINUTE = 20, 5


@pytest.fixture
def api() -> Api:
    return Api(units=1, providers=1)


def registration(id: str) -> dict[str, Any]:
    return {"id": id, "name": id, "roles": ["service_provider"]}


async def registered(api: Api, count: int, party: str | None = None) -> list[Any]:
    """Answers to so many registrations at once."""
    async with api.http(party) as http:
        return [
            await http.post("/parties", json=registration(f"new-{k}"), headers={"Idempotency-Key": f"{k:040d}"})
            for k in range(count)
        ]


@pytest.mark.spec("REG-01")
@pytest.mark.parametrize("party", [None, "sp-1"])
def test_an_address_registers_a_few_parties_and_then_waits(api: Api, party: str | None) -> None:
    answers = asyncio.run(registered(api, BURST + 3, party))
    assert [one.status_code for one in answers] == [201] * BURST + [429] * 3
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60 / PER_MINUTE
    assert answers[-1].json()["code"] == "TOO_MANY"
    assert sum(one.id.startswith("new-") for one in api.machine.state(TENANT).all(PartyEntry)) == BURST


def test_an_operator_registers_as_many_as_it_must(api: Api) -> None:
    answers = asyncio.run(registered(api, BURST + 3, "ro"))
    assert {one.status_code for one in answers} == {201}


def test_the_bucket_of_registrations_is_one_of_each_address_and_fills_by_the_minute(tmp_path: Any) -> None:
    now = [0.0]
    accounts = Accounts(Keys(tmp_path / "keys.json", AT), Passwords(), registrations=Limits(lambda: now[0]))

    def taken(address: str) -> int:
        count = 0
        try:
            while count < 100:
                accounts.may_register(address)
                count += 1
        except TooMany:
            pass
        return count

    assert taken("192.0.2.1") == BURST
    assert taken("192.0.2.2") == BURST
    now[0] += 60
    assert taken("192.0.2.1") == PER_MINUTE
    assert taken("2001:db8::1") == BURST
    assert taken("2001:db8::2") == 0  # the same subscriber
    assert taken("2001:db8:0:1::1") == BURST


@pytest.mark.parametrize(
    ("address", "of"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_the_network_of_an_address(address: str, of: str) -> None:
    assert network(address) == of


@pytest.mark.spec("REG-01")
def test_only_so_many_parties_wait_for_a_decision(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coflex.adapters.web.api.rooms.parties.MOST_REQUESTED", 2)
    first, second, third = asyncio.run(registered(api, 3))
    assert (first.status_code, second.status_code, third.status_code) == (201, 201, 409)
    assert "2 parties wait" in third.json()["detail"]
    again = asyncio.run(registered(api, 1))[0]
    assert (again.status_code, again.json()) == (201, first.json())  # its answer is still there to be asked for
    assert api("POST", "/parties", "ro", registration("by-the-operator")).status_code == 201
    for name in ("new-0", "by-the-operator"):
        assert api("POST", f"/parties/{name}/approve", "ro").status_code == 200
    assert api("POST", "/parties", None, registration("new-2"), Idempotency_Key="k" * 40).status_code == 201


@pytest.mark.spec("REG-10", "PLAT-07")
@pytest.mark.parametrize("behalf", ["ada", "ro"])
def test_nobody_reads_changes_or_erases_personal_data_on_behalf(behalf: str) -> None:
    api = Api()
    person = {"name": "Ada Example", "email": "ada@example.org", "address": "Street 1"}
    form = {"id": "ada", "roles": ["asset_owner"], "person": person}
    assert api("POST", "/parties", None, form, Idempotency_Key="k" * 40).status_code == 201
    path = "/parties/ada/person"
    for method, body in (("GET", None), ("PUT", person | {"name": "Eve"}), ("DELETE", None)):
        answer = api(method, path, "mo", body, On_Behalf_Of=behalf, If_Match="*")
        assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
    assert api("GET", path, "ro").json() == person
