"""Clients, users and webhooks over the API; what is documented is there."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.routing import Route

from coflex.adapters.web.identity import (
    identity_routes,
)
from coflex.register.access import ClientScope
from coflex.register.parties import PartyEntry, PartyStatus
from support.access import TENANT, key_of
from support.identity import (
    ISSUER,
    NAME,
    PASSWORD,
    House,
    asked,
    bearer,
    exchange,
    get,
    refused,
    returned,
    run,
    sign_in,
)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# ---------------------------------------------------------------- clients and users over the API


def writes(key: str = "k1", party: str = "sp-1") -> dict[str, str]:
    return bearer(key_of(party)) | {"Idempotency-Key": key}


@pytest.mark.spec("PLAT-01")
def test_a_client_is_made_rotated_and_revoked_over_the_api_and_its_secret_answered_once(house: House) -> None:
    async def browse() -> None:
        async with house.http() as http:
            body = {"name": "Bidding", "scopes": ["read", "write"]}
            made = await http.post(f"/v1/{TENANT}/clients", json=body, headers=writes())
            assert made.status_code == 201
            key, id = made.json()["api_key"], made.json()["id"]
            assert made.headers["location"] == f"/v1/{TENANT}/clients/{id}"
            assert (await house.who(bearer(key))).scopes == frozenset({ClientScope.READ, ClientScope.WRITE})
            again = await http.post(f"/v1/{TENANT}/clients", json=body, headers=writes())
            assert again.json() == made.json()
            shown = (await http.get(f"/v1/{TENANT}/clients/{id}", headers=bearer(key_of("sp-1")))).json()
            assert (shown["name"], "secret_hash" in shown) == ("Bidding", False)
            other = await http.get(f"/v1/{TENANT}/clients/{id}", headers=bearer(key_of("sp-2")))
            assert other.status_code == 404
            turned = await http.post(f"/v1/{TENANT}/clients/{id}/rotate", json={}, headers=writes("k2"))
            for one in (key, turned.json()["api_key"]):
                assert (await house.who(bearer(one))).actor == id
            await http.post(f"/v1/{TENANT}/clients/{id}/revoke", headers=writes("k3"))
            assert await refused(house, bearer(turned.json()["api_key"])) == "revoked"
            denied = await http.post(f"/v1/{TENANT}/clients", json=body, headers=bearer("x") | {"Idempotency-Key": "k"})
            assert (denied.status_code, denied.json()["code"]) == (401, "NOT_SIGNED_IN")

    run(browse)
    written = b"".join(entry.command.body + entry.reply for entry in house.bench.journal.entries())
    assert not re.search(rb"cf_client-0", written)


@pytest.mark.spec("PLAT-01")
def test_a_user_is_made_over_the_api_signs_in_and_changes_its_password(house: House) -> None:
    client = house.application()

    async def browse() -> None:
        async with house.http() as http:
            users = f"/v1/{TENANT}/users"
            body = {"name": NAME, "password": PASSWORD, "scopes": ["read"]}
            weak = await http.post(users, json=body | {"password": "short"}, headers=writes())
            assert [one["code"] for one in weak.json()["findings"]] == ["length"]
            made = await http.post(users, json=body, headers=writes())
            id = made.json()["id"]
            assert (await http.post(users, json=body, headers=writes())).json()["id"] == id
            tokens = (await exchange(house, client, returned(await sign_in(http, asked(client)))["code"])).json()
            own = bearer(tokens["access_token"]) | {"Idempotency-Key": "own"}
            path, new = f"{users}/{id}/password", "another horse battery"
            wrong = await http.post(path, json={"password": new, "current": "x"}, headers=own)
            assert wrong.status_code == 422
            changed = await http.post(path, json={"password": new, "current": PASSWORD}, headers=own)
            assert changed.status_code == 200
            assert await refused(house, own) == "revoked"
            assert (await sign_in(http, asked(client))).status_code == 401
            returned(await sign_in(http, asked(client), NAME.upper(), new))

    run(browse)
    written = b"".join(entry.command.body + entry.reply for entry in house.bench.journal.entries()).lower()
    assert b"ana@" not in written
    assert b"horse" not in written


def test_the_first_key_of_a_party_is_the_same_for_the_same_request_and_then_never_again(house: House) -> None:
    bench = house.bench
    bench.put(replace(bench.state.get(PartyEntry, "sp-1"), id="sp-9", status=PartyStatus.REQUESTED))

    async def register(key: str) -> Any:
        return await house.accounts.first_key(house.desk, TENANT, "sp-9", "First", key)

    issued = run(lambda: register("k"))
    assert run(lambda: register("k")) == issued
    who = run(lambda: house.who(bearer(issued.api_key)))
    assert (who.party, who.roles, who.scopes) == ("sp-9", frozenset(), frozenset(ClientScope))
    with pytest.raises(Exception, match="a client already"):
        run(lambda: register("another"))


def test_a_webhooks_secret_is_answered_when_it_is_made_and_rotated(house: House) -> None:
    async def browse() -> None:
        async with house.http() as http:
            body = {"url": "https://receiver.example/in", "kinds": ["session.*"]}
            hooks = f"/v1/{TENANT}/webhooks"
            made = (await http.post(hooks, json=body, headers=writes())).json()
            turned = (await http.post(f"{hooks}/{made['id']}/rotate", json={}, headers=writes("k2"))).json()
            assert made["secret"].startswith("whsec_")
            assert turned["id"] == made["id"]
            assert turned["secret"] != made["secret"]
            listed = (await http.get(hooks, headers=bearer(key_of("sp-1")))).json()
            assert [one["id"] for one in listed["items"]] == [made["id"]]
            gone = await http.delete(f"{hooks}/{made['id']}", headers=writes("k3"))
            assert gone.status_code == 200

    run(browse)


def test_every_address_of_the_issuer_is_in_the_openapi_document(house: House) -> None:
    described = {
        (path, method.upper())
        for path, methods in house.described["paths"].items()
        for method in methods
        if "/oauth/" in path or ".well-known" in path
    }
    routed = {
        (route.path, method)
        for route in identity_routes(house.desk, house.identity, house.passwords)
        for method in (route.methods or ()) - {"HEAD"}
    }
    # What the page itself sends, and the second method of userinfo, are nobody's to call.
    inner = {(f"/v1/{{tenant}}/oauth/{name}", "POST") for name in ("sign-in", "logout", "userinfo")}
    assert described == routed - inner


def test_the_discovery_document_names_addresses_that_there_are(house: House) -> None:
    told = json.loads(run(lambda: get(house, f"/v1/{TENANT}/.well-known/openid-configuration")))
    assert told["issuer"] == ISSUER
    paths = {route.path.replace("{tenant}", TENANT) for route in house.app.routes if isinstance(route, Route)}
    for name, value in told.items():
        if name.endswith("_endpoint") or name == "jwks_uri":
            assert urlsplit(value).path in paths
