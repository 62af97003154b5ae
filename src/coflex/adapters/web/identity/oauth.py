"""The token end of the issuer: OAuth 2.0 (RFC 6749) with PKCE (RFC 7636), revocation (RFC 7009), OpenID Connect.

POST /v1/{tenant}/oauth/token     client credentials, authorization code, refresh token
POST /v1/{tenant}/oauth/revoke    a token is needed no more
GET  /v1/{tenant}/oauth/userinfo  who the bearer of a token is
GET  /v1/{tenant}/oauth/jwks      keys to verify our tokens with
GET  /v1/{tenant}/.well-known/openid-configuration
"""

from __future__ import annotations

import hmac
import re
import secrets
from base64 import b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import unquote_plus

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from coflex.adapters.web.api.problems import NotSignedIn, answer
from coflex.adapters.web.identity.forms import OAuthError, read_form, refusal, told
from coflex.adapters.web.identity.keys import digest
from coflex.adapters.web.identity.known import Identity, Refusal, presented, proven
from coflex.adapters.web.identity.limits import UNKNOWN_BURST, UNKNOWN_PER_S
from coflex.adapters.web.identity.platform import Platform
from coflex.adapters.web.identity.tokens import ACCESS, ACCESS_FOR, BadToken, scopes_of
from coflex.domain.errors import Forbidden, NotFound
from coflex.register.access import Client, ClientScope, Grant, Grants, User
from coflex.service.machine import encode
from coflex.service.ports import Command
from coflex.service.state import State
from coflex.service.verbs.access import GrantEnd, GrantForm, Refresh, Revocation

CODE_FOR = timedelta(seconds=60)
MOST_CODES = 10_000
OPENID = "openid"
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_REFRESH = re.compile(r"cr_([^.]+)\.([^.]+)\.(\d{1,9})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Code:
    """What an authorization code stands for, for a minute."""

    client: str
    user: str
    redirect: str
    scopes: tuple[ClientScope, ...]
    openid: bool
    nonce: str | None
    challenge: str
    session: str
    signed_in: datetime
    until: datetime


class Codes:
    """Authorization codes, by their digest, in memory: none outlives its minute, nor the process."""

    def __init__(self, most: int = MOST_CODES) -> None:
        self._open: OrderedDict[str, Code] = OrderedDict()
        # Grants made from codes that may be shown once more.
        self._used: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._most = most

    def give(self, code: Code) -> str:
        made = secrets.token_urlsafe(32)
        self._open[digest(made)] = code
        if len(self._open) > self._most:
            self._open.popitem(last=False)
        return made

    def find(self, code: str) -> Code | None:
        return self._open.get(digest(code))

    def spend(self, code: str) -> None:
        self._open.pop(digest(code), None)

    def became(self, code: str, user: str, grant: str) -> None:
        """Remember the grant that a spent code was turned into."""
        self._used[digest(code)] = user, grant
        if len(self._used) > self._most:
            self._used.popitem(last=False)

    def used(self, code: str) -> tuple[str, str] | None:
        """User and grant of a code that is shown again."""
        return self._used.pop(digest(code), None)


class TokenEnd:
    """The handlers. Used on the machine's thread."""

    def __init__(self, platform: Platform, identity: Identity, codes: Codes) -> None:
        self.platform, self.identity, self.codes = platform, identity, codes

    def routes(self) -> list[Route]:
        base = "/v1/{tenant}/oauth"
        return [
            Route(f"{base}/token", self._guarded(self._token), methods=["POST"]),
            Route(f"{base}/revoke", self._guarded(self._revoke), methods=["POST"]),
            Route(f"{base}/userinfo", self._userinfo, methods=["GET", "POST"]),
            Route(f"{base}/jwks", self._jwks, methods=["GET"]),
            Route("/v1/{tenant}/.well-known/openid-configuration", self._discovery, methods=["GET"]),
        ]

    # ---------------------------------------------------------------- tokens

    async def _token(self, request: Request, tenant: str, at: datetime) -> Response:
        form = await read_form(request)
        client = self._client(request, tenant, form, at)
        grants = {
            "client_credentials": self._client_credentials,
            "authorization_code": self._authorization_code,
            "refresh_token": self._refresh_token,
        }
        grant = grants.get(form.get("grant_type", ""))
        if grant is None:
            raise OAuthError("unsupported_grant_type", f"The grants here are {', '.join(grants)}.")
        return told(await grant(tenant, client, form, at))

    async def _client_credentials(
        self, tenant: str, client: Client, form: dict[str, str], at: datetime
    ) -> dict[str, Any]:
        if not client.secret_hash:
            raise OAuthError("unauthorized_client", "A client without a secret gets no token of its own.")
        scopes = _asked(form, client.scopes)
        token = self.identity.tokens.access(tenant, client, client.id, scopes, at)
        return _bearer(token, scopes)

    async def _authorization_code(
        self, tenant: str, client: Client, form: dict[str, str], at: datetime
    ) -> dict[str, Any]:
        shown = form.get("code", "")
        code = self.codes.find(shown)
        if code is None or code.client != client.id:
            await self._stolen(tenant, client, shown)
            raise OAuthError("invalid_grant", "The code is not known, or was used; sign in again.")
        self.codes.spend(shown)
        verifier = form.get("code_verifier", "")
        if not _VERIFIER.fullmatch(verifier) or not hmac.compare_digest(challenge_of(verifier), code.challenge):
            raise OAuthError("invalid_grant", "The code_verifier is not the one of the code_challenge.")
        if at >= code.until or form.get("redirect_uri") != code.redirect:
            raise OAuthError("invalid_grant", "The code has expired, or was made for another redirect_uri.")
        user = self._state(tenant).find(User, code.user)
        if user is None or not user.live(at):
            raise OAuthError("invalid_grant", "The user cannot sign in any more.")
        opened = GrantForm(client.id, code.scopes, code.session, code.signed_in, code.openid)
        made = await self._submit(tenant, "grant.open", user.id, user.party, user.id, opened)
        self.codes.became(shown, user.id, made["id"])
        user, grant = self._granted(tenant, user.id, made["id"], client, at)
        return self._of_grant(tenant, client, user, grant, at, code.nonce)

    async def _stolen(self, tenant: str, client: Client, code: str) -> None:
        """A code that is shown twice takes away what the first showing gave (RFC 6749, 4.1.2)."""
        used = self.codes.used(code)
        if used is None:
            return
        user, grant = used
        try:
            await self._submit(tenant, "grant.end", user, self._party(tenant, user), client.id, GrantEnd(grant))
        except NotFound:
            return

    async def _refresh_token(self, tenant: str, client: Client, form: dict[str, str], at: datetime) -> dict[str, Any]:
        found = self._parsed(tenant, form.get("refresh_token", ""))
        if found is None:
            raise OAuthError("invalid_grant", "The refresh token is not known; sign in again.")
        user, grant, generation = found
        user_now, grant_now = self._granted(tenant, user, grant, client, at)
        scopes = _asked(form, grant_now.scopes)
        reply = await self._submit(tenant, "grant.refresh", user, user_now.party, client.id, Refresh(grant, generation))
        if not reply["live"]:
            raise OAuthError(
                "invalid_grant", "The refresh token was used before, so all of its kin ended; sign in again."
            )
        user_now, grant_now = self._granted(tenant, user, grant, client, at)
        return self._of_grant(tenant, client, user_now, grant_now, at, None, scopes)

    def _granted(self, tenant: str, user: str, grant: str, client: Client, at: datetime) -> tuple[User, Grant]:
        """A user who lives and its running grant to a client. Raises OAuthError."""
        state = self._state(tenant)
        person, granted = state.find(User, user), state.find(Grants, user)
        found = granted.of(grant) if granted is not None else None
        if person is None or not person.live(at) or found is None or found.client != client.id or found.expires <= at:
            raise OAuthError("invalid_grant", "The grant has ended; sign in again.")
        return person, found

    def _of_grant(
        self,
        tenant: str,
        client: Client,
        user: User,
        grant: Grant,
        at: datetime,
        nonce: str | None,
        scopes: tuple[ClientScope, ...] | None = None,
    ) -> dict[str, Any]:
        """The tokens that a grant gives now."""
        tokens, given = self.identity.tokens, grant.scopes if scopes is None else scopes
        names = ((OPENID,) if grant.openid else ()) + tuple(given)
        answer = _bearer(tokens.access(tenant, user, client.id, names, at, grant.id), names)
        answer["refresh_token"] = self.refresh_token(tenant, user.id, grant)
        if grant.openid:
            answer["id_token"] = tokens.identity(tenant, user, client.id, grant.signed_in, nonce, at)
        return answer

    def refresh_token(self, tenant: str, user: str, grant: Grant) -> str:
        """The one refresh token of a grant that is taken now."""
        return f"cr_{user}.{grant.id}.{grant.generation}.{self._mac(tenant, user, grant.id, grant.generation)}"

    def _mac(self, tenant: str, user: str, grant: str, generation: int) -> str:
        made = self.identity.keys.derived("refresh token", tenant, user, grant, str(generation))
        return urlsafe_b64encode(made).decode().rstrip("=")

    def _parsed(self, tenant: str, token: str) -> tuple[str, str, int] | None:
        """User, grant and generation of a refresh token that this server made."""
        found = _REFRESH.fullmatch(token)
        if found is None:
            return None
        user, grant, generation, mac = found[1], found[2], int(found[3]), found[4]
        return (
            (user, grant, generation) if hmac.compare_digest(mac, self._mac(tenant, user, grant, generation)) else None
        )

    # ---------------------------------------------------------------- revocation

    async def _revoke(self, request: Request, tenant: str, at: datetime) -> Response:
        """An unknown token is as good as revoked: it is answered alike (RFC 7009, 2.2)."""
        form = await read_form(request)
        client = self._client(request, tenant, form, at)
        token = form.get("token", "")
        if not token:
            raise OAuthError("invalid_request", "The field 'token' is missing.")
        found = self._parsed(tenant, token)
        try:
            if found is not None:
                user, grant, _ = found
                await self._submit(tenant, "grant.end", user, self._party(tenant, user), client.id, GrantEnd(grant))
            else:
                await self._revoke_access(tenant, client, token, at)
        except (NotFound, BadToken):
            pass  # what is unknown is revoked already (RFC 7009 2.2)
        return told({})

    async def _revoke_access(self, tenant: str, client: Client, token: str, at: datetime) -> None:
        claims = self.identity.tokens.read(tenant, ACCESS, token, at)
        if claims["client_id"] != client.id:
            raise BadToken("it is of another client")
        if claims["sub"] != client.id:
            user, end = claims["sub"], GrantEnd(claims["grant"])
            await self._submit(tenant, "grant.end", user, self._party(tenant, user), client.id, end)
            return
        until = datetime.fromtimestamp(claims["exp"], UTC)
        form = Revocation(digest(claims["jti"]), until)
        await self._submit(tenant, "token.revoke", client.id, client.party, client.id, form)

    # ---------------------------------------------------------------- what applications read

    async def _userinfo(self, request: Request) -> Response:
        tenant = request.path_params["tenant"]
        try:
            who = await self.identity.authenticate(request, tenant)
            credential, _ = presented(request.scope["headers"])
            claims = self.identity.tokens.read(tenant, ACCESS, credential.decode("ascii"), self.platform.clock())
        except (BadToken, UnicodeDecodeError):
            return answer(Forbidden("This is for tokens of users who signed in here.", "Sign in with scope openid."))
        except NotSignedIn as fault:
            return answer(fault)
        if OPENID not in claims["scope"].split():
            return answer(Forbidden("The token was not asked for with the scope openid.", "Sign in with it."))
        return told({"sub": who.actor, "party": who.party, "roles": sorted(who.roles)})

    async def _jwks(self, request: Request) -> Response:
        self._state(request.path_params["tenant"])
        self.identity.keys.tend(self.platform.clock())
        body = msgspec.json.encode(self.identity.keys.public())
        return Response(body, 200, {"Cache-Control": "public, max-age=3600"}, "application/jwk-set+json")

    async def _discovery(self, request: Request) -> Response:
        tenant = request.path_params["tenant"]
        self._state(tenant)
        body = msgspec.json.encode(discovery(self.identity.tokens.issuer(tenant)))
        return Response(body, 200, {"Cache-Control": "public, max-age=3600"}, "application/json")

    # ---------------------------------------------------------------- inside

    def _guarded(
        self, act: Callable[[Request, str, datetime], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """A handler whose errors are those of OAuth, and whose callers are counted by address."""

        async def handler(request: Request) -> Response:
            address = request.client.host if request.client is not None else ""
            self.identity.limits.take(("oauth", address), UNKNOWN_PER_S, UNKNOWN_BURST)
            tenant = request.path_params["tenant"]
            self._state(tenant)
            try:
                return await act(request, tenant, self.platform.clock())
            except OAuthError as fault:
                return refusal(fault)

        return handler

    def _client(self, request: Request, tenant: str, form: dict[str, str], at: datetime) -> Client:
        """The client that asks, by its secret, or by its name alone where it has none. Raises OAuthError."""
        header = request.headers.get("authorization")
        id, secret = form.get("client_id", ""), form.get("client_secret", "")
        if header is not None:
            if secret:
                raise OAuthError("invalid_request", "Send the client's secret in one place.")
            id, secret = _basic(header)
            if form.get("client_id", id) != id:
                raise OAuthError("invalid_request", "The form names another client than the header.")
        client = self._state(tenant).find(Client, id)
        challenge = {"WWW-Authenticate": f'Basic realm="{tenant}"'} if header is not None else None
        try:
            is_public = client is not None and not client.secret_hash and not secret
            known = is_public or proven(client, secret, at) is not None
        except Refusal:
            known = False
        if client is None or not known or not client.live(at):
            raise OAuthError("invalid_client", "The client, or its secret, is not known.", 401, challenge)
        return client

    def _party(self, tenant: str, user: str) -> str:
        """Raises NotFound."""
        return self._state(tenant).get(User, user).party

    def _state(self, tenant: str) -> State:
        return self.platform.machine.state(tenant)

    async def _submit(
        self, tenant: str, verb: str, subject: str, party: str, actor: str, form: msgspec.Struct
    ) -> dict[str, Any]:
        receipt = await self.platform.submit(
            Command(tenant, verb, subject, party, party, actor, encode(form), form=form)
        )
        reply: dict[str, Any] = msgspec.json.decode(receipt.reply)
        return reply


def challenge_of(verifier: str) -> str:
    """S256 of PKCE: SHA-256 of the verifier in base64url without padding."""
    return urlsafe_b64encode(sha256(verifier.encode()).digest()).decode().rstrip("=")


def _asked(form: dict[str, str], most: tuple[ClientScope, ...]) -> tuple[ClientScope, ...]:
    """The scopes a form asks for, all when it says nothing. Raises OAuthError for more than there are."""
    if "scope" not in form:
        return most
    names = [name for name in form["scope"].split() if name != OPENID]
    scopes = scopes_of(form["scope"])
    if len(scopes) != len(set(names)) or not set(scopes) <= set(most):
        raise OAuthError("invalid_scope", f"The scopes here are {' '.join(most)}.")
    return scopes


def _bearer(token: str, scopes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": int(ACCESS_FOR.total_seconds()),
        "scope": " ".join(scopes),
    }


def _basic(header: str) -> tuple[str, str]:
    """Client and secret of HTTP Basic, each form-encoded (RFC 6749, 2.3.1). Raises OAuthError."""
    scheme, _, value = header.partition(" ")
    try:
        id, colon, secret = b64decode(value.strip(), validate=True).decode().partition(":")
    except ValueError:
        colon = id = secret = ""
    if scheme.lower() != "basic" or not colon:
        challenge = {"WWW-Authenticate": "Basic"}
        raise OAuthError("invalid_client", "The header Authorization is no HTTP Basic.", 401, challenge)
    return unquote_plus(id), unquote_plus(secret)


def discovery(issuer: str) -> dict[str, Any]:
    """The discovery document of an issuer (OpenID Connect Discovery 1.0)."""
    methods = ["client_secret_basic", "client_secret_post", "none"]
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/oauth/authorize",
        "token_endpoint": f"{issuer}/oauth/token",
        "userinfo_endpoint": f"{issuer}/oauth/userinfo",
        "jwks_uri": f"{issuer}/oauth/jwks",
        "revocation_endpoint": f"{issuer}/oauth/revoke",
        "end_session_endpoint": f"{issuer}/oauth/logout",
        "scopes_supported": [OPENID, *ClientScope],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA"],
        "token_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_methods_supported": methods,
        "code_challenge_methods_supported": ["S256"],
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "party"],
        "prompt_values_supported": ["none", "login"],
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "authorization_response_iss_parameter_supported": True,
    }
