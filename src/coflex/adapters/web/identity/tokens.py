"""Our own tokens: JSON Web Tokens signed with Ed25519 (RFC 7519, RFC 8037).

The kind of a token stands in its header and is asked for when it is read, so none passes for another.

    at+jwt       access token (RFC 9068), 15 minutes
    JWT          ID token (OpenID Connect), 15 minutes
    session+jwt  the sign-in itself, in a cookie of the browser, 12 hours
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64decode
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeyFlexible, OKPKey
from joserfc.jws import JWSRegistry

from coflex.adapters.web.identity.keys import Keys
from coflex.register.access import Client, ClientScope, User

ACCESS, ID, SESSION = "at+jwt", "JWT", "session+jwt"
ACCESS_FOR = timedelta(minutes=15)
SESSION_FOR = timedelta(hours=12)
MOST_TOKEN = 8_192


class BadToken(Exception):
    """Not a token of ours, or none of this kind, tenant or time. `expired`: it was one, and the bearer's."""

    def __init__(self, reason: str, expired: bool = False) -> None:
        super().__init__(reason)
        self.expired = expired


class Registry(JWSRegistry):
    """Takes exactly the algorithms it was made with, EdDSA under its first name (RFC 8037) too: it is the one that
    clients of OpenID Connect know."""

    def get_alg(self, name: str) -> Any:
        if self.allowed is None or name not in self.allowed:
            raise BadToken(f"the algorithm {name} is not taken")
        return self.algorithms[name]


_OURS = Registry(algorithms=["EdDSA"])
_FAULTS = (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError)


class Header(msgspec.Struct, frozen=True):
    """The header of a token, as far as it is looked at before the signature."""

    alg: str
    kid: str = ""
    typ: str = ""
    crit: Any = None


class _Claimed(msgspec.Struct, frozen=True):
    iss: str


def unverified(token: str) -> tuple[Header, str]:
    """Header and issuer that a token claims, whoever made it. Raises BadToken."""
    if len(token) > MOST_TOKEN:
        raise BadToken("it is too long")
    parts = token.split(".")
    if len(parts) != 3:
        raise BadToken("it has not three parts")
    try:
        header = msgspec.json.decode(_bytes(parts[0]), type=Header)
        claimed = msgspec.json.decode(_bytes(parts[1]), type=_Claimed)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise BadToken("it cannot be read") from None
    if header.crit is not None:
        raise BadToken("it asks for what is not known here")
    return header, claimed.iss


def _bytes(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def verified(token: str, key: KeyFlexible, registry: Registry) -> dict[str, Any]:
    """The claims of a token whose signature holds. Raises BadToken."""
    try:
        return jwt.decode(token, key, registry=registry).claims
    except _FAULTS as fault:
        raise BadToken(f"it does not verify: {fault}") from None


class Tokens:
    """Makes and reads our tokens. `address`: of the platform as browsers know it, without a slash at the end."""

    def __init__(self, keys: Keys, address: str) -> None:
        self.keys, self.address = keys, address.rstrip("/")

    def issuer(self, tenant: str) -> str:
        return f"{self.address}/v1/{tenant}"

    def access(
        self,
        tenant: str,
        holder: Client | User,
        client: str,
        scopes: Iterable[str],
        at: datetime,
        grant: str = "",
    ) -> str:
        """An access token of a client, or of a user who granted it to an application."""
        claims = {
            **self._claims(tenant, holder, at, ACCESS_FOR),
            "aud": self.issuer(tenant),
            "client_id": client,
            "scope": " ".join(scopes),
        }
        if grant:
            claims["grant"] = grant
        return self._signed(ACCESS, claims, at)

    def identity(
        self, tenant: str, user: User, client: str, signed_in: datetime, nonce: str | None, at: datetime
    ) -> str:
        """An ID token: who signed in, when, for which application."""
        claims = {
            **self._claims(tenant, user, at, ACCESS_FOR),
            "aud": client,
            "auth_time": int(signed_in.timestamp()),
        }
        if nonce is not None:
            claims["nonce"] = nonce
        return self._signed(ID, claims, at)

    def session(self, tenant: str, user: User, at: datetime) -> str:
        """A sign-in."""
        claims = {**self._claims(tenant, user, at, SESSION_FOR), "aud": f"{self.issuer(tenant)}/oauth"}
        return self._signed(SESSION, claims, at)

    def read(self, tenant: str, kind: str, token: str, at: datetime, expired: bool = False) -> dict[str, Any]:
        """The claims of one of our tokens; `expired`: also of one that is over. Raises BadToken."""
        found, issuer = unverified(token)
        key = self.keys.key(found.kid)
        if found.typ != kind or key is None or issuer != self.issuer(tenant):
            raise BadToken("it is none of ours, or of another tenant")
        claims = verified(token, key, _OURS)
        if not expired and at.timestamp() >= claims["exp"]:
            raise BadToken("it has expired", expired=True)
        return claims

    def _claims(self, tenant: str, holder: Client | User, at: datetime, lasts: timedelta) -> dict[str, Any]:
        issued = int(at.timestamp())
        return {
            "iss": self.issuer(tenant),
            "sub": holder.id,
            "party": holder.party,
            "iat": issued,
            "exp": issued + int(lasts.total_seconds()),
            "jti": secrets.token_urlsafe(18),
            "gen": holder.tokens,
        }

    def _signed(self, kind: str, claims: dict[str, Any], at: datetime) -> str:
        signer = self.keys.signer(at)
        key: OKPKey = signer.key
        return jwt.encode({"alg": "EdDSA", "typ": kind, "kid": signer.kid}, claims, key, registry=_OURS)


def scopes_of(text: str) -> tuple[ClientScope, ...]:
    """The scopes of ours in a blank-separated list, in their own order."""
    named: Collection[str] = text.split()
    return tuple(scope for scope in ClientScope if scope.value in named)
