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
from coflex.register.access import ClientScope, Webhook
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


@pytest.mark.spec("PLAT-01")
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9000/admin",
        "https://localhost/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:10.0.0.1]/",
        "https://2130706433/",
    ],
)
def test_a_webhook_into_a_private_network_is_refused_unless_the_server_was_told_to_call_it(
    tmp_path: Path, url: str
) -> None:
    async def browse(house: House) -> tuple[int, int]:
        async with house.http() as http:
            hooks = f"/v1/{TENANT}/webhooks"
            there = (await http.post(hooks, json={"url": "https://receiver.example/in"}, headers=writes())).json()
            made = await http.post(hooks, json={"url": url}, headers=writes("k2"))
            changing = writes("k3") | {"If-Match": "*"}
            changed = await http.put(f"{hooks}/{there['id']}", json={"url": url}, headers=changing)
            if made.status_code == 422:
                assert [one["place"] for one in made.json()["findings"]] == ["url"]
            return made.status_code, changed.status_code

    closed, opened = House(tmp_path / "closed"), House(tmp_path / "open", private_webhooks=True)
    assert run(lambda: browse(closed)) == (422, 422)
    assert [one.url for one in closed.bench.state.all(Webhook)] == ["https://receiver.example/in"]
    assert run(lambda: browse(opened)) == (201, 200)


def test_a_change_of_a_webhook_needs_the_version_that_was_read(house: House) -> None:
    async def browse() -> None:
        async with house.http() as http:
            hooks, body = f"/v1/{TENANT}/webhooks", {"url": "https://receiver.example/in"}
            made = await http.post(hooks, json=body, headers=writes())
            path, new = f"{hooks}/{made.json()['id']}", body | {"kinds": ["unit.*"]}
            assert (await http.put(path, json=new, headers=writes("k2"))).status_code == 428
            old = writes("k3") | {"If-Match": '"1"'}
            assert (await http.put(path, json=new, headers=old)).status_code == 412
            read = writes("k4") | {"If-Match": made.headers["etag"]}
            changed = await http.put(path, json=new, headers=read)
            assert (changed.status_code, changed.json()["kinds"]) == (200, ["unit.*"])
            assert "secret" not in changed.json()
            assert (await http.put(f"{path}?a=1", json=new, headers=read)).status_code == 400

    run(browse)


SECRETS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("POST", "clients", {"name": "x", "scopes": ["read"]}),
    ("POST", "clients/client-sp-1/rotate", {}),
    ("POST", "users", {"name": "spy@example.org", "password": PASSWORD, "scopes": ["manage"]}),
    ("POST", "users/USER/password", {"password": PASSWORD}),
    ("POST", "webhooks", {"url": "https://operator.example/"}),
    ("PUT", "webhooks/HOOK", {"url": "https://operator.example/"}),
    ("POST", "webhooks/HOOK/rotate", {}),
)


@pytest.mark.spec("PLAT-07")
@pytest.mark.parametrize(("method", "path", "body"), SECRETS)
def test_no_secret_is_made_or_shown_to_the_market_operator_on_behalf_of_a_party(
    house: House, method: str, path: str, body: dict[str, Any]
) -> None:
    hook = house.bench.take("webhook.create", {"url": "https://example.org/"}, actor="client-sp-1")["id"]
    path = path.replace("USER", house.user()).replace("HOOK", hook)
    number = house.bench.sequencer.number

    async def browse() -> None:
        headers = writes("k", "mo") | {"On-Behalf-Of": "sp-1", "If-Match": "*"}
        async with house.http() as http:
            answer = await http.request(method, f"/v1/{TENANT}/{path}", json=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")

    run(browse)
    assert house.bench.sequencer.number == number


@pytest.mark.spec("PLAT-01")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("clients/{}/rotate", {}),
        ("users/{}/password", {"password": PASSWORD}),
        ("webhooks/{}/rotate", {}),
        ("webhooks/{}/disable", {"reason": "x"}),
    ],
)
def test_a_version_tells_nothing_of_what_is_another_partys(house: House, path: str, body: dict[str, Any]) -> None:
    hook = house.bench.take("webhook.create", {"url": "https://example.org/"}, actor="client-sp-1")["id"]
    theirs = {"clients": "client-sp-1", "users": house.user(), "webhooks": hook}[path.split("/")[0]]

    async def told(id: str) -> tuple[int, str]:
        async with house.http() as http:
            headers = writes(f"k-{id}", "sp-2") | {"If-Match": '"7"'}
            answer = await http.post(f"/v1/{TENANT}/{path.format(id)}", json=body, headers=headers)
            return answer.status_code, answer.json()["detail"].replace(id, "ID")

    there, none = run(lambda: told(theirs)), run(lambda: told("nothing"))
    assert there == none
    assert there[0] == 404


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
