"""Outside issuers of identities: their keys, fetched when a token needs them, and their tokens.

A company signs its people in at its own issuer; the market operator has entered it. Of an issuer only two documents are
read, its discovery document and its keys, each with bounds on time and size, and never more often than once a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx
import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, KeySet, OKPKey, RSAKey

from coflex.adapters.web.identity.tokens import BadToken, Header, Registry, verified
from coflex.register.access import Issuer
from coflex.service.sequencer import Unavailable

FETCHED_FOR = timedelta(hours=1)
# Keys that could not be fetched anew are used for a day more: an issuer that is down must not stop the market.
STALE_FOR = timedelta(days=1)
PAUSE = timedelta(minutes=1)
TIMEOUT_S, MOST_BYTES, MOST_KEYS = 5.0, 1 << 18, 100
LEEWAY_S = 30
LONGEST = timedelta(days=1)

_REGISTRY = Registry(algorithms=["RS256", "ES256", "EdDSA"])


class _Discovery(msgspec.Struct, frozen=True):
    issuer: str
    jwks_uri: str


class _KeySet(msgspec.Struct, frozen=True):
    keys: list[dict[str, Any]]


class KeysWanted(Exception):
    """The keys of an issuer are needed first."""


@dataclass(slots=True)
class _Fetched:
    keys: dict[str, Key]
    at: datetime
    tried: datetime


class OutsideKeys:
    """The keys of issuers, by their address. Used on one event loop."""

    def __init__(self, client: Callable[[], httpx.AsyncClient] | None = None) -> None:
        self._client = client or _client
        self._fetched: dict[str, _Fetched] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def key(self, issuer: Issuer, kid: str, at: datetime) -> Key:
        """The key that an issuer names so. Raises KeysWanted; BadToken when it has none."""
        kept = self._fetched.get(issuer.url)
        if kept is None or at >= kept.at + FETCHED_FOR:
            if kept is None or at >= kept.tried + PAUSE:
                raise KeysWanted
            if at >= kept.at + STALE_FOR:
                raise Unavailable(f"The keys of the issuer '{issuer.id}' cannot be fetched.", "Try again in a minute.")
        if kid in kept.keys:
            return kept.keys[kid]
        if not kid and len(kept.keys) == 1:
            return next(iter(kept.keys.values()))
        if at >= kept.tried + PAUSE:
            raise KeysWanted  # its issuer may have made a new one
        raise BadToken("its issuer has no such key")

    async def fetch(self, issuer: Issuer, at: datetime) -> None:
        """Fetch an issuer's keys, once for all who wait. What cannot be fetched leaves the keys that there are."""
        async with self._locks.setdefault(issuer.url, asyncio.Lock()):
            kept = self._fetched.get(issuer.url)
            if kept is not None and at < kept.tried + PAUSE:
                return
            if kept is None:
                # With no keys yet, as long ago as makes them stale.
                kept = self._fetched[issuer.url] = _Fetched({}, at - STALE_FOR, at)
            kept.tried = at
            try:
                async with asyncio.timeout(2 * TIMEOUT_S), self._client() as client:
                    kept.keys = await _keys(client, issuer.url)
            except (httpx.HTTPError, httpx.InvalidURL, msgspec.MsgspecError, ValueError, TimeoutError):
                return
            kept.at = at


def claims_of(token: str, header: Header, issuer: Issuer, key: Key, at: datetime) -> dict[str, Any]:
    """The claims of a token of an issuer, made for us and in force. Raises BadToken."""
    kinds: dict[str, type[Key]] = {"RS256": RSAKey, "ES256": ECKey, "EdDSA": OKPKey}
    if header.alg not in kinds or not isinstance(key, kinds[header.alg]):
        raise BadToken("its algorithm is not that of the key")
    claims = verified(token, key, _REGISTRY)
    audience = claims.get("aud")
    if claims.get("iss") != issuer.url or issuer.audience not in (
        audience if isinstance(audience, list) else [audience]
    ):
        raise BadToken("it was made for somebody else")
    now = at.timestamp()
    ends, starts = _time(claims.get("exp")), _time(claims.get("nbf", claims.get("iat", 0)))
    if now < starts - LEEWAY_S or ends > now + LONGEST.total_seconds():
        raise BadToken("it is not in force yet, or for too long")
    if now >= ends:
        raise BadToken("it has expired", expired=True)
    return claims


def _time(value: Any) -> float:
    """Seconds since 1970. Raises BadToken."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e11:
        raise BadToken("its times are missing")
    return value


def _client() -> httpx.AsyncClient:
    # No proxy from the environment and no redirect: what is read is what the market operator entered.
    return httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False)


async def _keys(client: httpx.AsyncClient, url: str) -> dict[str, Key]:
    """The keys of an issuer by their name. Raises what its answers are worth."""
    discovered = msgspec.json.decode(
        await _get(client, f"{url.rstrip('/')}/.well-known/openid-configuration"), type=_Discovery
    )
    if discovered.issuer != url:
        raise ValueError("the issuer says that it is another one")
    if httpx.URL(discovered.jwks_uri).scheme != httpx.URL(url).scheme:
        raise ValueError("the keys are not where the issuer is trusted")
    listed = msgspec.json.decode(await _get(client, discovered.jwks_uri), type=_KeySet)
    found: dict[str, Key] = {}
    for one in listed.keys[:MOST_KEYS]:
        if one.get("use", "sig") != "sig" or one.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        try:
            key = next(iter(KeySet.import_key_set({"keys": [one]})))
        except (JoseError, ValueError, TypeError, KeyError):
            continue  # a key of a kind that is not read here is nobody's fault
        found[str(one.get("kid", ""))] = key
    return found


async def _get(client: httpx.AsyncClient, url: str) -> bytes:
    parts, size = [], 0
    async with client.stream("GET", url, headers={"Accept": "application/json"}) as response:
        if response.status_code != 200:
            raise ValueError(f"it answered {response.status_code}")
        async for part in response.aiter_bytes():
            size += len(part)
            if size > MOST_BYTES:
                raise ValueError("its answer is too long")
            parts.append(part)
    return b"".join(parts)
