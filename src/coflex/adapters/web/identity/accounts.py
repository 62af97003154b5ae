"""Clients, users, webhooks and outside issuers over the API: what makes or shows a secret is made here at the door.

A secret is random, is answered once, and enters the journal as a hash. Asked again with the same idempotency key within
ten minutes, the same secret is answered; later the key is refused, and a client is rotated.
"""

from __future__ import annotations

import math
import secrets
from base64 import urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.document import MATCH
from coflex.adapters.web.api.endpoints import command_of, version_known, written
from coflex.adapters.web.api.incoming import caller, idempotency_key, json_body, only_parameters, version_read
from coflex.adapters.web.api.operations import History, Read, Room, Special, Write
from coflex.adapters.web.api.problems import TooMany
from coflex.adapters.web.identity.keys import Keys, digest
from coflex.adapters.web.identity.known import api_key
from coflex.adapters.web.identity.limits import Limits, Throttle, network
from coflex.adapters.web.identity.passwords import Passwords, faults
from coflex.adapters.web.identity.platform import Platform
from coflex.domain.errors import Finding, Forbidden, Refused, refuse
from coflex.register.access import Client, ClientScope, Issuer, User, Webhook, WebhookProgress, login_digest, url_fault
from coflex.service import reading
from coflex.service.machine import decode, encode
from coflex.service.ports import Command
from coflex.service.sequencer import Receipt
from coflex.service.verbs.access import (
    ClientForm,
    FirstClientForm,
    PasswordForm,
    Rotation,
    UserForm,
)
from coflex.service.verbs.webhooks import WebhookForm
from coflex.service.who import Who

REMEMBERED_FOR, MOST_REMEMBERED = timedelta(minutes=10), 10_000
MOST_LOGIN = 200
# Of parties, by somebody who is not known, from one network address.
REGISTERED_PER_MINUTE, REGISTERED_BURST = 5, 20


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of every body: what it does not know it refuses."""


class NewClient(_Body, frozen=True):
    """A client to be made. `public`: an application that cannot keep a secret; it only signs users in."""

    name: str
    scopes: tuple[ClientScope, ...]
    expires: datetime | None = None
    redirects: tuple[str, ...] = ()
    public: bool = False


class NewSecret(_Body, frozen=True):
    """A client's secret is changed; the old one is taken for `overlap_s` seconds more."""

    overlap_s: int = 86_400


class NewUser(_Body, frozen=True):
    """A user to be made. Without a password it signs in at an outside issuer."""

    name: str
    scopes: tuple[ClientScope, ...]
    password: str = ""


class NewPassword(_Body, frozen=True):
    """A new password; users who change their own give the `current` one too."""

    password: str
    current: str = ""


class IssuedKey(msgspec.Struct, frozen=True):
    """A client's secret, answered once. `api_key`: for the header Authorization as it is. Null for a public client."""

    id: str
    client_secret: str | None
    api_key: str | None


class IssuedSecret(msgspec.Struct, frozen=True):
    """A webhook's secret, with which its deliveries are signed."""

    id: str
    secret: str


class Named(msgspec.Struct, frozen=True):
    """The record that was written."""

    id: str


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A command's form made from a body, and the secret that it hides."""

    form: Any
    secret: str
    at: datetime


class Accounts:
    """The handlers that make or show secrets. Used on the machine's thread.

    `private_webhooks`: whether webhooks may name addresses of private networks; as of `Webhooks`.
    """

    def __init__(
        self, keys: Keys, passwords: Passwords, private_webhooks: bool = False, registrations: Limits | None = None
    ) -> None:
        self._keys, self._passwords, self._private_webhooks = keys, passwords, private_webhooks
        self._throttle, self._registrations = Throttle(), registrations or Limits()
        self._prepared: OrderedDict[tuple[str, str, str, bytes], _Prepared] = OrderedDict()

    def may_register(self, address: str) -> None:
        """Count one more registration from a network address. Raises TooMany."""
        wait = self._registrations.wait(network(address), REGISTERED_PER_MINUTE / 60, REGISTERED_BURST)
        if wait:
            raise TooMany(
                f"This address sent {REGISTERED_BURST} registrations at once, or {REGISTERED_PER_MINUTE} a minute.",
                "Try again after the seconds in Retry-After.",
                math.ceil(wait),
            )

    async def first_key(self, platform: Platform, tenant: str, party: str, name: str, key: str) -> IssuedKey:
        """The key of the first client of a party that was just registered, with every scope; for the route that
        registers it. `key`: of that request. Raises Conflict when the party has a client."""
        at = platform.clock()
        known = self._remembered(tenant, party, key, name.encode(), at)
        if known is None:
            secret = new_secret()
            known = self._remember(
                tenant, party, key, name.encode(), _Prepared(FirstClientForm(name, digest(secret)), secret, at)
            )
        command = Command(
            tenant, "client.first", "", party, party, "operator", encode(known.form), f"first client, {key}"
        )
        receipt = await platform.submit(command)
        return _issued(receipt, known.secret)

    # ---------------------------------------------------------------- handlers

    async def create_client(self, desk: Desk, request: Request) -> Response:
        async def prepare(who: Who, raw: bytes) -> tuple[ClientForm, str]:
            body = decode(raw, NewClient)
            secret = "" if body.public else new_secret()
            hashed = digest(secret) if secret else ""
            return ClientForm(body.name, body.scopes, hashed, body.expires, body.redirects), secret

        receipt, secret, who = await self._write(desk, request, "client.create", prepare)
        return _answer(receipt, who, _issued(receipt, secret), "/clients/{id}")

    async def rotate_client(self, desk: Desk, request: Request) -> Response:
        async def prepare(who: Who, raw: bytes) -> tuple[Rotation, str]:
            secret = new_secret()
            return Rotation(digest(secret), decode(raw, NewSecret).overlap_s), secret

        receipt, secret, who = await self._write(desk, request, "client.rotate", prepare, "client")
        return _answer(receipt, who, _issued(receipt, secret))

    async def create_user(self, desk: Desk, request: Request) -> Response:
        async def prepare(who: Who, raw: bytes) -> tuple[UserForm, str]:
            body = decode(raw, NewUser)
            found = faults(body.password, body.name) if body.password else []
            if not body.name.strip() or len(body.name) > MOST_LOGIN:
                found.append(Finding("name", "bad_name", f"A sign-in name has 1 to {MOST_LOGIN} characters."))
            refuse("The user", found)
            hashed = await self._passwords.hashed(body.password) if body.password else ""
            return UserForm(login_digest(who.tenant, body.name), hashed, body.scopes), ""

        receipt, _, who = await self._write(desk, request, "user.create", prepare)
        return written(receipt, who.tenant, "/users/{id}")

    async def change_password(self, desk: Desk, request: Request) -> Response:
        async def prepare(who: Who, raw: bytes) -> tuple[PasswordForm, str]:
            body = decode(raw, NewPassword)
            refuse("The password", faults(body.password))
            if who.actor == request.path_params["user"]:
                await self._must_know(desk, who, body.current)
            elif ClientScope.MANAGE not in who.scopes:
                raise Forbidden("This needs the scope 'manage'.", "Ask whoever manages the access of your party.")
            return PasswordForm(await self._passwords.hashed(body.password)), ""

        receipt, _, who = await self._write(desk, request, "user.change_password", prepare, "user", ClientScope.READ)
        return written(receipt, who.tenant)

    async def create_webhook(self, desk: Desk, request: Request) -> Response:
        receipt, _, who = await self._write(desk, request, "webhook.create", self._webhook_form)
        return _answer(receipt, who, self._webhook_secret(receipt, who), "/webhooks/{id}")

    async def change_webhook(self, desk: Desk, request: Request) -> Response:
        receipt, _, who = await self._write(
            desk, request, "webhook.change", self._webhook_form, "webhook", needs_match=True
        )
        return written(receipt, who.tenant)

    async def _webhook_form(self, who: Who, raw: bytes) -> tuple[WebhookForm, str]:
        form = decode(raw, WebhookForm)
        fault = url_fault(form.url, self._private_webhooks)
        refuse("The webhook", [Finding("url", "bad_address", fault)] if fault else [])
        return form, ""

    async def rotate_webhook(self, desk: Desk, request: Request) -> Response:
        verb = desk.machine.verbs["webhook.rotate"]

        async def prepare(who: Who, raw: bytes) -> tuple[Any, str]:
            return decode(raw, verb.form), ""

        receipt, _, who = await self._write(desk, request, "webhook.rotate", prepare, "webhook")
        return _answer(receipt, who, self._webhook_secret(receipt, who))

    # ---------------------------------------------------------------- inside

    async def _write(
        self,
        desk: Desk,
        request: Request,
        verb: str,
        prepare: Any,
        subject: str = "",
        scope: ClientScope = ClientScope.MANAGE,
        needs_match: bool = False,
    ) -> tuple[Receipt, str, Who]:
        """Prepare the command of a body, once for its idempotency key, and hand it in: receipt, secret, who asked.

        Nothing of this is done on behalf of a party: whoever makes or is shown a secret can be who it stands for.
        """
        who = await caller(desk, request, scope)
        if who.on_behalf:
            raise Forbidden("Access is not made or set on behalf of a party.", "Let the party do it itself.")
        only_parameters(request, ())
        key, raw = idempotency_key(request), await json_body(request, empty=b"{}")
        about = str(request.path_params[subject]) if subject else ""
        place = f"{verb} {about} {who.party}\n".encode() + raw
        known = self._remembered(who.tenant, who.by, key, place, desk.clock())
        if known is None:
            form, secret = await prepare(who, raw)
            known = self._remember(who.tenant, who.by, key, place, _Prepared(form, secret, desk.clock()))
        expects = version_read(request, needs_match)
        if subject:
            expects = version_known(desk, who, desk.machine.verbs[verb].kind, about, expects)
        receipt = await desk.submit(command_of(who, verb, about, encode(known.form), key, expects, known.form))
        return receipt, known.secret, who

    def _remembered(self, tenant: str, by: str, key: str, place: bytes, at: datetime) -> _Prepared | None:
        while self._prepared:
            oldest = next(iter(self._prepared.values()))
            if at < oldest.at + REMEMBERED_FOR and len(self._prepared) <= MOST_REMEMBERED:
                break
            self._prepared.popitem(last=False)
        return self._prepared.get((tenant, by, key, sha256(place).digest()))

    def _remember(self, tenant: str, by: str, key: str, place: bytes, prepared: _Prepared) -> _Prepared:
        """The one that stays: that of an equal request which was quicker."""
        return self._prepared.setdefault((tenant, by, key, sha256(place).digest()), prepared)

    async def _must_know(self, desk: Desk, who: Who, password: str) -> None:
        """Raises Refused unless this is the user's password, TooMany after failures."""
        user = reading.record(desk.state(who.tenant), who, User, who.actor)
        self._throttle.attempt((who.tenant, who.actor))
        if not await self._passwords.right(user.password, password):
            raise Refused("The password", [Finding("current", "wrong", "This is not your password; give it again.")])
        self._throttle.succeeded((who.tenant, who.actor))

    def _webhook_secret(self, receipt: Receipt, who: Who) -> IssuedSecret:
        made = msgspec.json.decode(receipt.reply, type=_Webhook)
        return IssuedSecret(made.id, webhook_secret(self._keys, who.tenant, made.id, made.generation))


class _Webhook(msgspec.Struct):
    id: str
    generation: int


def new_secret() -> str:
    """256 random bits as 43 characters."""
    return secrets.token_urlsafe(32)


def webhook_secret(keys: Keys, tenant: str, webhook: str, generation: int) -> str:
    """What a webhook's deliveries are signed with: derived from the server's key, so it is kept nowhere."""
    made = keys.derived("webhook", tenant, webhook, str(generation))
    return f"whsec_{urlsafe_b64encode(made).decode().rstrip('=')}"


def _issued(receipt: Receipt, secret: str) -> IssuedKey:
    id = msgspec.json.decode(receipt.reply, type=Named).id
    return IssuedKey(id, secret or None, api_key(id, secret) if secret else None)


def _answer(receipt: Receipt, who: Who, body: IssuedKey | IssuedSecret, made_at: str = "") -> Response:
    """As any write is answered, with the secret for its body."""
    plain = written(receipt, who.tenant, made_at)
    kept: Mapping[str, str] = {
        name: value for name, value in plain.headers.items() if name not in ("content-length", "content-type")
    }
    return Response(msgspec.json.encode(body), receipt.status, dict(kept), "application/json")


# ---------------------------------------------------------------- the room

_MANAGE = ClientScope.MANAGE


def access_room(accounts: Accounts) -> Room:
    """Everything of this topic but the pages and tokens of the issuer."""
    return Room(
        "access",
        "API clients, users, webhooks and outside issuers of a party. Secrets are answered once and kept as hashes.",
        (*_clients(accounts), *_users(accounts), *_webhooks(accounts), *_ISSUERS),
    )


def _clients(accounts: Accounts) -> tuple[Any, ...]:
    example = {"name": "Bidding", "scopes": ["read", "write"]}
    return (
        Read("/clients", Client, "API clients of the party", scope=_MANAGE),
        Read("/clients/{client}", Client, "One API client", scope=_MANAGE),
        History("/clients/{client}/history", Client, "What became of an API client", scope=_MANAGE),
        Special("POST", "/clients", accounts.create_client, "A new API client; its secret is answered once",
                "client_create", {201: IssuedKey}, body=NewClient, write=True, scope=_MANAGE),
        Write("PUT", "/clients/{client}", "client.change", "Change name, scopes, end and redirects", Named,
              example=example, scope=_MANAGE),
        Special("POST", "/clients/{client}/rotate", accounts.rotate_client, "A new secret beside the old one",
                "client_rotate", {200: IssuedKey}, body=NewSecret, write=True, scope=_MANAGE),
        Write("POST", "/clients/{client}/revoke", "client.revoke", "Revoke the client and its tokens, at once", Named,
              scope=_MANAGE),
        Write("PUT", "/clients/{client}/rates", "client.limit", "What a client may send", Named, scope=_MANAGE),
        Write("POST", "/tokens/{holder}/revoke", "token.revoke", "Revoke tokens of a client or user", Named,
              scope=ClientScope.READ),
    )  # fmt: skip


def _users(accounts: Accounts) -> tuple[Any, ...]:
    return (
        Read("/users", User, "Users of the party", scope=_MANAGE),
        Read("/users/{user}", User, "One user"),
        Special("POST", "/users", accounts.create_user, "A new user", "user_create", {201: Named}, body=NewUser,
                write=True, scope=_MANAGE),
        Write("PUT", "/users/{user}", "user.change", "What the user may", Named, scope=_MANAGE),
        Special("POST", "/users/{user}/password", accounts.change_password, "A new password; all tokens end",
                "user_change_password", {200: Named}, body=NewPassword, write=True),
        Write("POST", "/users/{user}/lock", "user.lock", "Let the user in no more, at once", Named, scope=_MANAGE),
        Write("POST", "/users/{user}/unlock", "user.unlock", "Let the user in again", Named, scope=_MANAGE),
        Write("DELETE", "/users/{user}", "user.remove", "Remove the user", Named, scope=_MANAGE),
    )  # fmt: skip


def _webhooks(accounts: Accounts) -> tuple[Any, ...]:
    return (
        Read("/webhooks", Webhook, "Webhooks of the party", scope=_MANAGE),
        Read("/webhooks/{webhook}", Webhook, "One webhook", scope=_MANAGE),
        Read("/webhook-progress/{webhook}", WebhookProgress, "How far a webhook is", scope=_MANAGE),
        Special("POST", "/webhooks", accounts.create_webhook, "Events of the feed are sent to an address",
                "webhook_create", {201: IssuedSecret}, body=WebhookForm, write=True, scope=_MANAGE),
        Special("PUT", "/webhooks/{webhook}", accounts.change_webhook, "Change address and kinds", "webhook_change",
                {200: Named}, (replace(MATCH, required=True),), WebhookForm, write=True, problems=(428,),
                scope=_MANAGE),
        Special("POST", "/webhooks/{webhook}/rotate", accounts.rotate_webhook, "A new secret; the old one signs a day",
                "webhook_rotate", {200: IssuedSecret}, write=True, scope=_MANAGE),
        Write("POST", "/webhooks/{webhook}/enable", "webhook.enable", "Send again, from where it was or from now on",
              Named, scope=_MANAGE),
        Write("POST", "/webhooks/{webhook}/disable", "webhook.disable", "Send no more", Named, scope=_MANAGE),
        Write("DELETE", "/webhooks/{webhook}", "webhook.remove", "Remove the webhook", Named, scope=_MANAGE),
    )  # fmt: skip


_ISSUERS = (
    Read("/issuers", Issuer, "Outside issuers of identities"),
    Read("/issuers/{issuer}", Issuer, "One outside issuer"),
    Write("PUT", "/issuers/{issuer}", "issuer.set", "Take identities from an outside issuer", Named, scope=_MANAGE),
    Write("POST", "/issuers/{issuer}/accept", "issuer.accept", "Let it speak for the party", Named, scope=_MANAGE),
    Write(
        "POST",
        "/issuers/{issuer}/decline",
        "issuer.decline",
        "Let it speak for the party no more",
        Named,
        scope=_MANAGE,
    ),
    Write("DELETE", "/issuers/{issuer}", "issuer.remove", "Take them no more", Named, scope=_MANAGE),
)
