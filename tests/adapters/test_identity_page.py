"""The page for developers runs as it stands, against a server on this machine; the browser is played here."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import uvicorn
from starlette.types import ASGIApp

from coflex.adapters.web.identity.accounts import webhook_secret
from coflex.adapters.web.identity.outside import OutsideKeys
from coflex.adapters.web.webhooks import signature
from coflex.register.access import ClientScope, Issuer, Naming
from support.access import SECRET, TENANT, key_of
from support.identity import APP, NAME, PASSWORD, House
from support.outside_issuer import Outside

PAGE = Path(__file__).parents[2] / "docs" / "identity.md"


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """An application on a free port of this machine."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


def browsed(address: str) -> dict[str, str]:
    """What a browser brings back from the page to sign in."""
    with httpx.Client() as http:
        page = http.get(address)
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))
        fields = {name: value.replace("&amp;", "&") for name, value in fields.items()}
        action = re.search(r'action="([^"]+)"', page.text)
        assert action is not None
        parts = urlsplit(address)
        to = f"{parts.scheme}://{parts.netloc}{action[1]}"
        back = http.post(to, data=fields | {"name": NAME, "password": PASSWORD}).headers["location"]
    assert back.startswith(APP)
    return {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}


@pytest.mark.spec("PLAT-01")
def test_the_page_for_developers_runs_as_it_stands(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.bench.clock.at = datetime.now(UTC)
    user = house.user()
    known: dict[str, Any] = {"KEY": key_of("sp-1"), "APP": {"id": house.application(), "client_secret": SECRET}}
    with served(house.app) as address:
        house.identity.tokens.address = address
        told, key, token, leave, fetch, look, again, verify = blocks()
        exec(told, known)
        known["TENANT"] = f"{address}/v1/{TENANT}"
        exec(key, known)
        assert known["made"].status_code == 201
        exec(token, known)
        assert asyncio.run(house.who({"Authorization": f"Bearer {known['token']}"})).actor == known["client"]["id"]
        exec(leave, known)
        back = browsed(known["leave_for"])
        assert (back["state"], back["iss"]) == (known["state"], known["TENANT"])
        known["code"] = back["code"]
        exec(fetch, known)
        exec(look, known)
        assert (known["who"]["sub"], known["who"]["party"]) == (user, "sp-1")
        before = known["tokens"]["refresh_token"]
        exec(again, known)
        assert known["tokens"]["refresh_token"] != before
    exec(verify, known)
    secret, at, body = webhook_secret(house.keys, TENANT, "webhook-1", 1), int(datetime.now(UTC).timestamp()), b"{}"
    is_ours = known["is_ours"]
    assert is_ours(secret, signature(["another", secret], at, body), body)
    assert not is_ours(secret, signature([secret], at, body), b"{ }")
    assert not is_ours(secret, signature([secret], at - 400, body), body)


@pytest.mark.spec("PLAT-01")
def test_an_outside_issuer_on_this_machine_is_asked_over_its_own_socket(tmp_path: Path) -> None:
    outside = Outside()
    house = House(tmp_path, outside=OutsideKeys())
    user = house.user()
    with served(outside.app) as address:
        outside.url = address
        house.bench.put(
            Issuer(
                "corp",
                address,
                "coflex",
                "email",
                Naming.USER,
                ("sp-1",),
                (ClientScope.READ, ClientScope.WRITE),
                ("sp-1",),
            )
        )
        who = asyncio.run(house.who({"Authorization": f"Bearer {outside.token('ES256')}"}))
    assert (who.actor, who.scopes) == (user, frozenset({ClientScope.READ, ClientScope.WRITE}))


def test_every_block_of_the_page_is_one_that_runs() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(blocks()) == 16
