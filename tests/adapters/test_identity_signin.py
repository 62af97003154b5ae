"""The issuer: tokens for secrets and for users who sign in, driven from outside by another program's client."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from coflex.adapters.web.identity import (
    Passwords,
    identity_routes,
)
from coflex.register.access import ClientScope
from support.access import SECRET, TENANT, key_of
from support.identity import (
    ADDRESS,
    APP,
    ISSUER,
    NAME,
    OAUTH,
    PASSWORD,
    WEAK,
    House,
    asked,
    bearer,
    exchange,
    json_of,
    post,
    refresh,
    refused,
    returned,
    run,
    sign_in,
)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# ---------------------------------------------------------------- client credentials


@pytest.mark.spec("PLAT-01")
def test_a_client_gets_a_token_for_its_secret_by_another_programs_client(house: House) -> None:
    from authlib.integrations.httpx_client import AsyncOAuth2Client

    async def ask(method: str) -> dict[str, Any]:
        async with AsyncOAuth2Client(
            "client-sp-1",
            SECRET,
            token_endpoint_auth_method=method,
            scope="read",
            transport=httpx.ASGITransport(house.app),
        ) as client:
            token = await client.fetch_token(f"{ADDRESS}{OAUTH}/token", grant_type="client_credentials")
            who = await client.get(f"{ADDRESS}/v1/{TENANT}/whoami")
            return {**token, "who": who.json()}

    for method in ("client_secret_basic", "client_secret_post"):
        got = run(lambda method=method: ask(method))
        assert (got["token_type"], got["expires_in"], got["scope"]) == ("Bearer", 900, "read")
        assert got["who"] == {"party": "sp-1", "by": "sp-1", "actor": "client-sp-1", "scopes": ["read"]}


@pytest.mark.spec("PLAT-01")
@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"grant_type": "client_credentials"}, 401, "invalid_client"),
        ({"grant_type": "client_credentials", "client_id": "client-sp-1", "client_secret": "x"}, 401, "invalid_client"),
        ({"grant_type": "client_credentials", "client_id": "client-x", "client_secret": SECRET}, 401, "invalid_client"),
        (
            {"grant_type": "password", "client_id": "client-sp-1", "client_secret": SECRET},
            400,
            "unsupported_grant_type",
        ),
        ({"client_id": "client-sp-1", "client_secret": SECRET}, 400, "unsupported_grant_type"),
        (
            {"grant_type": "client_credentials", "client_id": "client-sp-1", "client_secret": SECRET, "scope": "all"},
            400,
            "invalid_scope",
        ),
        (
            {"grant_type": "authorization_code", "client_id": "client-sp-1", "client_secret": SECRET, "code": "x"},
            400,
            "invalid_grant",
        ),
        (
            {
                "grant_type": "refresh_token",
                "client_id": "client-sp-1",
                "client_secret": SECRET,
                "refresh_token": f"cr_user-1.grant-1.1.{'m' * 43}",
            },
            400,
            "invalid_grant",
        ),
    ],
)
def test_what_the_token_address_refuses_it_refuses_in_the_words_of_oauth(
    house: House, form: dict[str, str], status: int, error: str
) -> None:
    response = run(lambda: post(house, f"{OAUTH}/token", form))
    assert (response.status_code, response.json()["error"]) == (status, error)
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("content", "media", "status"),
    [
        (b"grant_type=client_credentials&grant_type=x", "application/x-www-form-urlencoded", 400),
        (b"{}", "application/json", 400),
        (b"a=" + b"x" * 20_000, "application/x-www-form-urlencoded", 413),
        (b"a=%ff", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"a%d=1" % k for k in range(100)), "application/x-www-form-urlencoded", 400),
    ],
)
def test_a_form_that_is_none_is_refused(house: House, content: bytes, media: str, status: int) -> None:
    async def send() -> httpx.Response:
        async with house.http() as http:
            return await http.post(f"{OAUTH}/token", content=content, headers={"Content-Type": media})

    response = run(send)
    assert (response.status_code, response.json()["error"]) == (status, "invalid_request")


def test_a_client_in_the_header_is_challenged_there(house: House) -> None:
    async def send(value: str) -> httpx.Response:
        async with house.http() as http:
            return await http.post(
                f"{OAUTH}/token", data={"grant_type": "client_credentials"}, headers={"Authorization": value}
            )

    for value in ("Basic !", "Bearer x", "Basic " + base64.b64encode(b"client-sp-1:wrong").decode()):
        response = run(lambda value=value: send(value))
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith("Basic")


@pytest.mark.spec("PLAT-01")
def test_a_token_is_revoked_by_its_client_and_by_no_other(house: House) -> None:
    token = house.token()

    def revoke(client: str, what: str) -> int:
        form = {"token": what, "client_id": client, "client_secret": SECRET}
        return int(run(lambda: post(house, f"{OAUTH}/revoke", form)).status_code)

    assert revoke("client-sp-2", token) == 200
    assert run(lambda: house.who(bearer(token))).party == "sp-1"
    assert revoke("client-sp-1", token) == 200
    assert run(lambda: refused(house, bearer(token))) == "revoked"
    assert revoke("client-sp-1", "nothing.we.made") == 200


# ---------------------------------------------------------------- signing in


@pytest.mark.spec("PLAT-01")
def test_an_application_signs_a_user_in_by_another_programs_openid_connect(tmp_path: Path) -> None:
    """The whole flow by authlib: discovery, state, nonce, PKCE, code, ID token, userinfo, refresh."""
    from authlib.integrations.starlette_client import OAuth
    from starlette.middleware.sessions import SessionMiddleware

    house = House(tmp_path)
    house.bench.clock.at = datetime.now(UTC)  # authlib looks at the real clock
    user, client = house.user(), house.application()
    oauth = OAuth()
    oauth.register(
        "coflex",
        client_id=client,
        client_secret=SECRET,
        server_metadata_url=f"{ISSUER}/.well-known/openid-configuration",
        client_kwargs={
            "scope": "openid read write",
            "code_challenge_method": "S256",
            "transport": httpx.ASGITransport(house.app),
        },
    )
    got: dict[str, Any] = {}

    async def begin(request: Request) -> Response:
        return await oauth.coflex.authorize_redirect(request, APP)  # type: ignore[no-any-return]

    async def back(request: Request) -> Response:
        got["token"] = await oauth.coflex.authorize_access_token(request)
        got["userinfo"] = await oauth.coflex.userinfo(token=got["token"])
        return JSONResponse({})

    app = Starlette(routes=[Route("/begin", begin), Route("/back", back)])
    app.add_middleware(SessionMiddleware, secret_key="of the application")

    async def browse() -> None:
        theirs = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://app.example")
        async with theirs, house.http() as http:
            leave = (await theirs.get("/begin")).headers["location"]
            query = {key: values[0] for key, values in parse_qs(urlsplit(leave).query).items()}
            assert query["code_challenge_method"] == "S256"
            response = await sign_in(http, query)
            assert (await theirs.get(response.headers["location"])).status_code == 200

    run(browse)
    claims = got["token"]["userinfo"]
    assert (claims["sub"], claims["party"], claims["aud"]) == (user, "sp-1", client)
    assert dict(got["userinfo"]) == {"sub": user, "party": "sp-1", "roles": ["service_provider"]}
    who = run(lambda: house.who(bearer(got["token"]["access_token"])))
    assert (who.actor, who.party, who.scopes) == (user, "sp-1", frozenset({ClientScope.READ, ClientScope.WRITE}))
    again = run(lambda: refresh(house, client, got["token"]["refresh_token"])).json()
    assert again["refresh_token"] != got["token"]["refresh_token"]
    assert run(lambda: house.who(bearer(again["access_token"]))).actor == user


@pytest.mark.spec("PLAT-01")
def test_one_sign_in_serves_every_application_until_the_user_signs_out(house: House) -> None:
    user = house.user()
    first, second = house.application(), house.application("sp-1", public=True)

    async def browse() -> None:
        async with house.http() as http:
            code = returned(await sign_in(http, asked(first)))
            assert (code["state"], code["iss"]) == ("s1", ISSUER)
            tokens = (await exchange(house, first, code["code"])).json()
            assert json_of(tokens["id_token"].split(".")[1])["nonce"] == "n1"
            # The second application asks no password.
            quiet = returned(await http.get(f"{OAUTH}/authorize?{urlencode(asked(second, prompt='none'))}"))
            more = (await exchange(house, second, quiet["code"], client_secret="")).json()
            for one in (tokens, more):
                assert (await house.who(bearer(one["access_token"]))).actor == user
            # Signing out with the first one's proof takes both.
            query = {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": APP, "state": "bye"}
            out = await http.get(f"{OAUTH}/logout?{urlencode(query)}")
            assert out.headers["location"] == f"{APP}?state=bye"
            for one in (tokens, more):
                assert await refused(house, bearer(one["access_token"])) == "revoked"
            assert (await refresh(house, first, tokens["refresh_token"])).json()["error"] == "invalid_grant"
            back = returned(await http.get(f"{OAUTH}/authorize?{urlencode(asked(first, prompt='none'))}"))
            assert back["error"] == "login_required"

    run(browse)


@pytest.mark.spec("PLAT-01")
def test_a_refresh_token_that_comes_twice_ends_all_that_came_from_it(house: House) -> None:
    house.user()
    client = house.application()

    async def browse() -> None:
        async with house.http() as http:
            code = returned(await sign_in(http, asked(client)))["code"]
        first = (await exchange(house, client, code)).json()
        second = (await refresh(house, client, first["refresh_token"], scope="read")).json()
        await house.who(bearer(second["access_token"]))
        stolen = await refresh(house, client, first["refresh_token"])
        assert (stolen.status_code, stolen.json()["error"]) == (400, "invalid_grant")
        assert await refused(house, bearer(second["access_token"])) == "revoked"
        assert (await refresh(house, client, second["refresh_token"])).status_code == 400

    run(browse)


@pytest.mark.spec("PLAT-01")
def test_a_code_is_taken_once_by_its_client_with_its_verifier_within_a_minute(house: House) -> None:
    house.user()
    client, other = house.application(), house.application()

    async def code(http: httpx.AsyncClient) -> str:
        return returned(await sign_in(http, asked(client)))["code"]

    async def browse() -> None:
        async with house.http() as http:
            first = await code(http)
            assert (await exchange(house, other, first)).status_code == 400
            tokens = (await exchange(house, client, first)).json()
            await house.who(bearer(tokens["access_token"]))
            assert (await exchange(house, client, first)).status_code == 400
            # Who shows a code twice takes away what the first showing gave.
            assert await refused(house, bearer(tokens["access_token"])) == "revoked"
            assert (await exchange(house, client, await code(http), code_verifier="w" * 50)).status_code == 400
            assert (await exchange(house, client, await code(http), redirect_uri=APP + "/x")).status_code == 400
            late = await code(http)
            house.bench.clock.at += timedelta(seconds=61)
            assert (await exchange(house, client, late)).status_code == 400

    run(browse)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"scope": "openid manage"}, "invalid_scope"),
        ({"scope": "openid something"}, "invalid_scope"),
        ({"request": "x"}, "request_not_supported"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"max_age": "x"}, "invalid_request"),
        ({"prompt": "none"}, "login_required"),
    ],
)
def test_what_an_application_asks_wrongly_it_is_told_at_its_own_address(
    house: House, change: dict[str, str], error: str
) -> None:
    client = house.application()

    async def browse() -> dict[str, str]:
        async with house.http() as http:
            return returned(await http.get(f"{OAUTH}/authorize?{urlencode(asked(client, **change))}"))

    told = run(browse)
    assert (told["error"], told["state"], told["iss"]) == (error, "s1", ISSUER)


@pytest.mark.spec("PLAT-01")
@pytest.mark.parametrize(
    "change",
    [{"client_id": "client-none"}, {"redirect_uri": "https://evil.example/"}, {"redirect_uri": APP + "?x=1"}],
)
def test_nobody_is_sent_to_an_address_that_is_not_registered(house: House, change: dict[str, str]) -> None:
    client = house.application()

    async def browse() -> httpx.Response:
        async with house.http() as http:
            return await http.get(f"{OAUTH}/authorize?{urlencode(asked(client) | change)}")

    page = run(browse)
    assert page.status_code == 400
    assert "location" not in page.headers
    assert "evil" not in page.text


@pytest.mark.spec("PLAT-01")
def test_an_application_of_another_company_signs_nobody_in(house: House) -> None:
    house.user()
    client = house.application("sp-2")

    async def browse() -> dict[str, str]:
        async with house.http() as http:
            return returned(await sign_in(http, asked(client)))

    assert run(browse)["error"] == "access_denied"


@pytest.mark.spec("PLAT-01")
def test_a_form_is_taken_from_the_browser_that_was_given_it_alone(house: House) -> None:
    house.user()
    client = house.application()

    async def browse() -> None:
        async with house.http() as attacker, house.http() as victim:
            page = await attacker.get(f"{OAUTH}/authorize?{urlencode(asked(client))}")
            fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))
            fields = {key: value.replace("&amp;", "&") for key, value in fields.items()}
            fields |= {"name": NAME, "password": PASSWORD}
            assert (await victim.post(f"{OAUTH}/sign-in", data=fields)).status_code == 403
            await victim.get(f"{OAUTH}/authorize?{urlencode(asked(client))}")
            assert (await victim.post(f"{OAUTH}/sign-in", data=fields)).status_code == 403
            changed = fields | {"asked": fields["asked"].replace("s1", "s2")}
            assert (await attacker.post(f"{OAUTH}/sign-in", data=changed)).status_code == 403
            assert (await attacker.post(f"{OAUTH}/sign-in", data=fields)).status_code == 303

    run(browse)


@pytest.mark.spec("PLAT-01")
def test_pages_run_nothing_load_nothing_and_are_framed_by_nobody(house: House) -> None:
    client = house.application()

    async def browse() -> httpx.Response:
        async with house.http() as http:
            query = asked(client, state='"><script>alert(1)</script>')
            return await http.get(f"{OAUTH}/authorize?{urlencode(query)}")

    page = run(browse)
    policy = page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert policy.startswith("default-src 'none'")
    assert "form-action 'self' https://app.example;" in policy
    assert "frame-ancestors 'none'" in policy
    style = re.search(r"<style>(.*?)</style>", page.text, re.S)
    assert style is not None
    assert base64.b64encode(sha256(style[1].encode()).digest()).decode() in policy
    cookie = page.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "Secure", "SameSite=lax", f"Path={OAUTH}"))


@pytest.mark.spec("PLAT-01")
def test_wrong_names_and_passwords_are_told_alike_and_more_and_more_slowly(house: House) -> None:
    house.user()
    locked = house.user("locked@example.org")
    house.bench.take("user.lock", None, locked)
    client = house.application()

    async def browse() -> None:
        told = set()
        for name, password in ((NAME, "wrong password"), ("nobody@x", PASSWORD), ("locked@example.org", PASSWORD)):
            async with house.http() as http:
                response = await sign_in(http, asked(client), name, password)
                found = re.search(r'<p role="alert">(.*?)</p>', response.text)
                assert found is not None
                told.add((response.status_code, found[1]))
        assert told == {(401, "The name or the password is not right.")}
        async with house.http() as http:
            statuses = [(await sign_in(http, asked(client), NAME, "wrong")).status_code for _ in range(8)]
            assert statuses == [401] * 4 + [429] * 4
            assert (await sign_in(http, asked(client))).status_code == 429

    run(browse)


def test_signing_out_without_a_proof_asks_the_user_first(house: House) -> None:
    user, client = house.user(), house.application()

    async def browse() -> None:
        async with house.http() as http:
            tokens = (await exchange(house, client, returned(await sign_in(http, asked(client)))["code"])).json()
            query = urlencode({"post_logout_redirect_uri": "https://evil.example/"})
            page = await http.get(f"{OAUTH}/logout?{query}")
            assert page.status_code == 200
            assert (await house.who(bearer(tokens["access_token"]))).actor == user
            fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))
            done = await http.post(f"{OAUTH}/logout", data=fields)
            assert (done.status_code, "location" in done.headers) == (200, False)
            assert await refused(house, bearer(tokens["access_token"])) == "revoked"

    run(browse)


def test_an_older_sign_in_is_asked_for_the_password_again_where_the_application_wants_it(house: House) -> None:
    house.user()
    client = house.application()

    async def browse() -> None:
        async with house.http() as http:
            returned(await sign_in(http, asked(client)))
            house.bench.clock.at += timedelta(seconds=100)
            for change, status in (
                ({}, 303),
                ({"max_age": "101"}, 303),
                ({"max_age": "99"}, 200),
                ({"prompt": "login"}, 200),
            ):
                page = await http.get(f"{OAUTH}/authorize?{urlencode(asked(client, **change))}")
                assert page.status_code == status
            house.bench.clock.at += timedelta(hours=12)
            assert (await http.get(f"{OAUTH}/authorize?{urlencode(asked(client))}")).status_code == 200

    run(browse)


def test_userinfo_is_for_tokens_of_users_with_openid_alone(house: House) -> None:
    house.user()
    client = house.application()

    async def browse() -> None:
        async with house.http() as http:
            plain = returned(await sign_in(http, asked(client, scope="read")))["code"]
            tokens = (await exchange(house, client, plain)).json()
            assert "id_token" not in tokens
            for credential, status in ((tokens["access_token"], 403), (key_of("sp-1"), 403), ("x", 401)):
                response = await http.get(f"{OAUTH}/userinfo", headers=bearer(credential))
                assert response.status_code == status
            assert 'error="invalid_token"' in response.headers["www-authenticate"]

    run(browse)


def test_a_password_that_was_changed_while_it_was_looked_at_lets_nobody_in(house: House) -> None:
    user, client = house.user(), house.application()

    class Slow(Passwords):
        async def right(self, kept: str, password: str) -> bool:
            house.bench.take("user.lock", None, user)
            return await super().right(kept, password)

    house.app.routes[:0] = identity_routes(house.desk, house.identity, Slow(WEAK))

    async def browse() -> int:
        async with house.http() as http:
            return (await sign_in(http, asked(client))).status_code

    assert run(browse) == 401
