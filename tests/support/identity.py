"""A whole door on a bench: identity, its addresses and those of access; and what a browser and a client do with it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from argon2 import PasswordHasher
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from coflex.adapters.web.api import problems
from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.document import document
from coflex.adapters.web.api.endpoints import routes_of
from coflex.adapters.web.api.problems import NotSignedIn
from coflex.adapters.web.identity import (
    Accounts,
    Identity,
    Keys,
    Passwords,
    access_room,
    identity_routes,
    issuer_document,
)
from coflex.adapters.web.identity.limits import Limits
from coflex.adapters.web.identity.outside import OutsideKeys
from coflex.register.access import Client, login_digest
from coflex.service.who import Who
from support.access import AT, SECRET, TENANT, Bench

ADDRESS = "https://flex.example"
ISSUER = f"{ADDRESS}/v1/{TENANT}"
OAUTH = f"/v1/{TENANT}/oauth"
APP = "https://app.example/back"
NAME, PASSWORD = "Ana@example.org", "correct horse battery staple"
VERIFIER = "v" * 50
CHALLENGE = base64.urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
# Weak: what it costs to guess a password is not what is tested here.
WEAK = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)


class House:
    """A whole door on a bench: identity, its addresses, and those of access, behind one application."""

    def __init__(
        self,
        folder: Path,
        limits: Limits | None = None,
        outside: OutsideKeys | None = None,
        private_webhooks: bool = False,
    ) -> None:
        self.bench = Bench()
        self.keys = Keys(folder / "identity" / "keys.json", AT)
        self.identity = Identity(self.bench.machine, self.bench.clock, self.keys, ADDRESS, limits, outside)
        self.passwords = Passwords(WEAK)
        self.accounts = Accounts(self.keys, self.passwords, private_webhooks)
        bench = self.bench
        self.desk = Desk(bench.machine, bench.sequencer, bench.journal, bench.clock, self.identity.authenticate)
        rooms = (access_room(self.accounts),)
        routes = [
            *identity_routes(self.desk, self.identity, self.passwords),
            *routes_of(self.desk, rooms),
            Route(f"/v1/{TENANT}/whoami", self._whoami),
        ]
        self.app = Starlette(routes=routes)
        self.described = document(rooms, bench.machine.verbs, issuer_document())
        problems.install(self.app)

    async def _whoami(self, request: Request) -> Response:
        who = await self.identity.authenticate(request, TENANT)
        return JSONResponse({"party": who.party, "by": who.by, "actor": who.actor, "scopes": sorted(who.scopes)})

    def http(self, **more: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=ADDRESS, **more)

    def user(self, name: str = NAME, party: str = "sp-1", scopes: tuple[str, ...] = ("read", "write")) -> str:
        form = {"login": login_digest(TENANT, name), "password": WEAK.hash(PASSWORD), "scopes": scopes}
        return str(self.bench.take("user.create", form, party=party)["id"])

    def application(self, party: str = "mo", public: bool = False) -> str:
        hashed = "" if public else sha256(SECRET.encode()).hexdigest()
        form = {"name": "App", "scopes": ["read", "write"], "secret_hash": hashed, "redirects": [APP]}
        return str(self.bench.take("client.create", form, party=party)["id"])

    async def who(self, headers: Mapping[str, str], tenant: str = TENANT) -> Who:
        """Who sends a request with these headers."""
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        request = Request({"type": "http", "headers": raw, "client": ("10.0.0.9", 1)})
        return await self.identity.authenticate(request, tenant)

    def token(self, holder: str = "client-sp-1", scopes: tuple[str, ...] = ("read", "write")) -> str:
        client = self.bench.state.get(Client, holder)
        return self.identity.tokens.access(TENANT, client, client.id, scopes, self.bench.clock())


def run(act: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(act(), 20))  # type: ignore[arg-type]


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


async def refused(house: House, headers: Mapping[str, str]) -> str:
    """Why credentials are refused, as the challenge says it."""
    with pytest.raises(NotSignedIn) as fault:
        await house.who(headers)
    found = re.search(r'error_description="(\w+)"', fault.value.challenge)
    return found[1] if found else "missing"


def asked(client: str, **more: str) -> dict[str, str]:
    return {
        "response_type": "code",
        "client_id": client,
        "redirect_uri": APP,
        "scope": "openid read",
        "state": "s1",
        "nonce": "n1",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    } | more


async def sign_in(
    http: httpx.AsyncClient, query: Mapping[str, str], name: str = NAME, password: str = PASSWORD
) -> httpx.Response:
    """What a browser does: open the page, fill it in, send it."""
    page = await http.get(f"{OAUTH}/authorize?{urlencode(query)}")
    if page.status_code != 200:
        return page
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))
    fields = {key: value.replace("&amp;", "&") for key, value in fields.items()}
    action = re.search(r'action="([^"]+)"', page.text)
    assert action is not None
    return await http.post(action[1], data=fields | {"name": name, "password": password})


def returned(response: httpx.Response) -> dict[str, str]:
    """What a browser brings back to the application."""
    assert response.status_code == 303, response.text
    parts = urlsplit(response.headers["location"])
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == APP
    return {name: values[0] for name, values in parse_qs(parts.query).items()}


async def exchange(house: House, client: str, code: str, **more: str) -> httpx.Response:
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": APP, "code_verifier": VERIFIER}
    return await post(house, f"{OAUTH}/token", form | {"client_id": client, "client_secret": SECRET} | more)


async def refresh(house: House, client: str, token: str, **more: str) -> httpx.Response:
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": client, "client_secret": SECRET}
    return await post(house, f"{OAUTH}/token", form | more)


async def get(house: House, path: str) -> bytes:
    async with house.http() as http:
        response = await http.get(path)
        assert response.status_code == 200
        return response.content


async def post(house: House, path: str, form: Mapping[str, str]) -> httpx.Response:
    async with house.http() as http:
        return await http.post(path, data=dict(form))


def raw_bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def json_of(part: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(raw_bytes(part))
    return found


def text_of(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
