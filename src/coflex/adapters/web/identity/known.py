"""Who sends a request: an API key, one of our tokens, or one of an outside issuer; and for whom.

What a credential is worth is kept by its SHA-256 until it ends, and forgotten at once when any record that it hangs on
is written. Signatures are kept apart, since no record changes them.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from starlette.requests import Request

from coflex.adapters.web.api.problems import NotSignedIn
from coflex.adapters.web.identity.keys import Keys, digest
from coflex.adapters.web.identity.limits import UNKNOWN_BURST, UNKNOWN_PER_S, Limits, too_many
from coflex.adapters.web.identity.outside import KeysWanted, OutsideKeys, claims_of
from coflex.adapters.web.identity.tokens import ACCESS, BadToken, Tokens, scopes_of, unverified
from coflex.domain.errors import Forbidden, NotFound
from coflex.domain.party import Role
from coflex.register.access import (
    Client,
    ClientScope,
    Grants,
    Issuer,
    Naming,
    Rates,
    RevokedToken,
    User,
    login_digest,
)
from coflex.register.parties import PartyEntry, PartyStatus
from coflex.service.machine import Machine
from coflex.service.ports import Clock
from coflex.service.state import State
from coflex.service.verbs.access import user_by_login
from coflex.service.who import Who

KEY_PREFIX = "cf_"
SECRET_LENGTH = 43
MOST_KEPT = 20_000
# Records that decide what a credential is worth.
RIGHTS = (Client, User, Grants, RevokedToken, Issuer, PartyEntry)
NEVER = datetime.max.replace(tzinfo=UTC)
# What a user, or a caller of an outside issuer, may send.
USUAL = Rates()

Headers = Iterable[tuple[bytes, bytes]]


class Refusal(NotSignedIn):
    """Credentials that do not hold. `reason`: "missing", "unknown", and to whoever proved to be the holder "expired" or
    "revoked". `challenge`: for the header WWW-Authenticate (RFC 6750)."""

    def __init__(self, reason: str, message: str, remedy: str) -> None:
        super().__init__(message, remedy)
        self.reason = reason
        fault = "" if reason == "missing" else f' error="invalid_token", error_description="{reason}"'
        self.challenge = f"Bearer{fault}"


def missing() -> Refusal:
    return Refusal("missing", "This needs credentials.", "Send an API key or a token in the header Authorization.")


def unknown() -> Refusal:
    return Refusal("unknown", "The credentials are not known here.", "Check them, or get a new token.")


def expired() -> Refusal:
    return Refusal("expired", "The credentials have expired.", "Get a new token, or have the key rotated.")


def revoked() -> Refusal:
    return Refusal("revoked", "The credentials were revoked.", "Sign in again, or ask who manages your access.")


@dataclass(frozen=True, slots=True)
class Caller:
    """What a credential is worth: who, until when, at which rates."""

    who: Who
    until: datetime
    rates: Rates


class Identity:
    """Tells who sends a request. Used on the machine's thread.

    `address`: the platform's own, as the world knows it ("https://flex.example").
    """

    def __init__(
        self,
        machine: Machine,
        clock: Clock,
        keys: Keys,
        address: str,
        limits: Limits | None = None,
        outside: OutsideKeys | None = None,
    ) -> None:
        self.machine, self.clock, self.keys = machine, clock, keys
        self.tokens = Tokens(keys, address)
        self.limits = limits or Limits()
        self.outside = outside or OutsideKeys()
        self._signed: OrderedDict[bytes, dict[str, Any]] = OrderedDict()

    async def authenticate(self, request: Request, tenant: str) -> Who:
        """Who sends a request, counted against its rate; the body is not looked at.

        Raises Refusal (401), Forbidden (on behalf of whom it may not), NotFound (tenant), TooMany, Unavailable (an
        outside issuer does not answer).
        """
        headers, at = request.scope["headers"], self.clock()
        caller = self._kept(tenant, headers, at)
        if caller is None:
            caller = await self._met(tenant, headers, at, request.client.host if request.client is not None else "")
        rates = caller.rates
        self.limits.take((tenant, caller.who.actor), rates.requests_per_s, rates.requests_burst)
        return caller.who

    def items(self, who: Who, count: int) -> None:
        """Count the items of a batch. Raises TooMany."""
        client = self.machine.state(who.tenant).find(Client, who.actor)
        rates = client.rates if client is not None else USUAL
        self.limits.take((who.tenant, who.actor, "items"), rates.items_per_s, rates.items_burst, count)

    def caller(self, tenant: str, headers: Headers, at: datetime) -> Caller:
        """The same without counting. Raises also KeysWanted."""
        kept = self._kept(tenant, headers, at)
        if kept is not None:
            return kept
        state = self.machine.state(tenant)
        credential, behalf = presented(headers)
        place = sha256(credential).digest(), behalf
        caller = self._behalf(state, self._worth(state, credential, place[0], at), behalf)
        callers = state.derived("known callers", RIGHTS, _none_known)
        if len(callers) >= MOST_KEPT:
            callers.clear()
        callers[place] = caller
        return caller

    def _kept(self, tenant: str, headers: Headers, at: datetime) -> Caller | None:
        """Who was known before, by the digest of the credential. Raises Refusal for no credential, NotFound."""
        credential, behalf = presented(headers)
        callers = self.machine.state(tenant).derived("known callers", RIGHTS, _none_known)
        caller = callers.get((sha256(credential).digest(), behalf))
        return caller if caller is not None and at < caller.until else None

    async def _met(self, tenant: str, headers: Headers, at: datetime, address: str) -> Caller:
        """Who was not known before. Wrong credentials cost a verification each, so an address has not many of them."""
        if self.limits.drained(("address", address), UNKNOWN_PER_S, UNKNOWN_BURST):
            raise too_many(UNKNOWN_PER_S, UNKNOWN_BURST, 1.0)
        try:
            try:
                return self.caller(tenant, headers, at)
            except KeysWanted:
                return await self._after_fetching(tenant, headers, at)
        except NotSignedIn:
            self.limits.wait(("address", address), UNKNOWN_PER_S, UNKNOWN_BURST)
            raise

    async def _after_fetching(self, tenant: str, headers: Headers, at: datetime) -> Caller:
        _, url = unverified(presented(headers)[0].decode())
        issuer = _issuer(self.machine.state(tenant), url)
        if issuer is not None:
            await self.outside.fetch(issuer, at)
        try:
            return self.caller(tenant, headers, at)
        except KeysWanted:
            raise unknown() from None

    def _behalf(self, state: State, caller: Caller, behalf: bytes) -> Caller:
        """The caller for the party that On-Behalf-Of names. Raises Forbidden, NotFound."""
        who = caller.who
        party = behalf.decode("latin-1").strip()
        if not party or party == who.party:
            return caller
        if Role.MARKET_OPERATOR not in who.roles:
            raise Forbidden("Only the market operator acts on behalf of a party.", "Leave out On-Behalf-Of.")
        entry = state.find(PartyEntry, party)
        if entry is None:
            raise NotFound("There is no such party to act on behalf of.", "Check the header On-Behalf-Of.")
        return replace(caller, who=replace(who, party=party, roles=frozenset(entry.roles)))

    # ---------------------------------------------------------------- what a credential is worth

    def _worth(self, state: State, credential: bytes, kept_as: bytes, at: datetime) -> Caller:
        try:
            text = credential.decode("ascii")
        except UnicodeDecodeError:
            raise unknown() from None
        if text.startswith(KEY_PREFIX):
            return _of_key(state, text, at)
        try:
            return self._of_token(state, text, kept_as, at)
        except BadToken as fault:
            raise (expired() if fault.expired else unknown()) from None

    def _of_token(self, state: State, token: str, kept_as: bytes, at: datetime) -> Caller:
        header, url = unverified(token)
        ours = url == self.tokens.issuer(state.tenant)
        issuer = None if ours else _issuer(state, url)
        if not ours and issuer is None:
            raise BadToken("its issuer is not known")
        claims = self._signed.get(kept_as)
        if claims is None or at.timestamp() >= claims["exp"]:
            if issuer is None:
                claims = self.tokens.read(state.tenant, ACCESS, token, at)
            else:
                key = self.outside.key(issuer, header.kid, at)
                claims = claims_of(token, header, issuer, key, at)
            self._signed[kept_as] = claims
            if len(self._signed) > MOST_KEPT:
                self._signed.popitem(last=False)
        if issuer is None:
            return _of_ours(state, claims, at)
        return _of_outside(state, issuer, claims, at)


def presented(headers: Headers) -> tuple[bytes, bytes]:
    """The credential and the party to act for, from the headers of ASGI (names in lower case). Raises Refusal.

    One credential at most: with two it is not clear who asks.
    """
    credential, behalf, count, named = b"", b"", 0, False
    for name, value in headers:
        if name == b"authorization":
            scheme, _, credential = value.partition(b" ")
            credential = credential.strip()
            count += 1
            if scheme.lower() != b"bearer":
                raise missing()
        elif name == b"x-api-key":
            credential, count = value.strip(), count + 1
            if not credential.startswith(b"cf_"):
                raise unknown()
        elif name == b"on-behalf-of":
            if named:
                raise Forbidden("On-Behalf-Of names one party.", "Send it once.")
            behalf, named = value, True
    if not credential:
        raise missing()
    if count > 1:
        raise Refusal("unknown", "There are several credentials.", "Send either a token or an API key, once.")
    return credential, behalf


def _of_key(state: State, key: str, at: datetime) -> Caller:
    """`cf_<client>_<secret>`. A wrong secret says nothing of the client."""
    id, secret = key[len(KEY_PREFIX) : -SECRET_LENGTH - 1], key[-SECRET_LENGTH:]
    client = state.find(Client, id)
    until = proven(client, secret, at)
    if client is None or until is None or key[-SECRET_LENGTH - 1] != "_":
        raise unknown()
    return _caller(state, client, client.scopes, until, client.rates, at)


def proven(client: Client | None, secret: str, at: datetime) -> datetime | None:
    """Until when a secret is the client's, None if it is not. The comparison takes the same time for every secret.

    Raises Refusal when it was the client's secret before the last rotation and its overlap is over.
    """
    shown = digest(secret)
    is_new = hmac.compare_digest(shown, client.secret_hash if client is not None else "")
    is_old = hmac.compare_digest(shown, client.previous_hash if client is not None else "")
    if client is None or not (is_new or is_old):
        return None
    if is_new:
        return NEVER
    if client.previous_until is None or at >= client.previous_until:
        raise expired()
    return client.previous_until


def _of_ours(state: State, claims: dict[str, Any], at: datetime) -> Caller:
    """One of our access tokens, by what its holder and grant are now."""
    client, scopes = state.find(Client, claims["client_id"]), scopes_of(claims["scope"])
    until = datetime.fromtimestamp(claims["exp"], UTC)
    holder: Client | User | None = client
    if claims["sub"] != claims["client_id"]:
        holder = state.find(User, claims["sub"])
        granted = state.find(Grants, claims["sub"])
        grant = granted.of(claims.get("grant", "")) if granted is not None else None
        if grant is None or client is None or not client.live(at):
            raise revoked()
        scopes = tuple(one for one in scopes if one in client.scopes)
    if holder is None or holder.tokens != claims["gen"] or state.find(RevokedToken, digest(claims["jti"])):
        raise revoked()
    if client is not None and client.expires is not None:
        until = min(until, client.expires)
    rates = client.rates if client is not None and client is holder else USUAL
    return _caller(state, holder, tuple(one for one in scopes if one in holder.scopes), until, rates, at)


def _of_outside(state: State, issuer: Issuer, claims: dict[str, Any], at: datetime) -> Caller:
    """A token of an outside issuer: a user of ours that it names, or one of its parties.

    Who is named by no record of ours is written as the issuer's id and a digest of its subject: no name gets in here.
    """
    named, subject = claims.get(issuer.claim), claims.get("sub")
    until = datetime.fromtimestamp(claims["exp"], UTC)
    if not isinstance(named, str) or not isinstance(subject, str):
        raise BadToken("it does not say who that is")
    if issuer.names is Naming.USER:
        user = user_by_login(state, login_digest(state.tenant, named))
        if user is None or not issuer.speaks_for(user.party):
            raise unknown()
        return _caller(state, user, tuple(one for one in user.scopes if one in issuer.scopes), until, USUAL, at)
    if not issuer.speaks_for(named):
        raise unknown()
    actor = f"{issuer.id}:{digest(f'{issuer.url} {subject}')[:16]}"
    scopes = frozenset(issuer.scopes) - {ClientScope.MANAGE}
    return Caller(Who(state.tenant, named, named, actor, _roles(state, named), scopes), until, USUAL)


def _caller(
    state: State,
    holder: Client | User,
    scopes: tuple[ClientScope, ...],
    until: datetime,
    rates: Rates,
    at: datetime,
) -> Caller:
    """A client or user as a caller, while it lives. Raises Refusal."""
    if not holder.live(at):
        is_over = isinstance(holder, Client) and holder.revoked is None
        raise expired() if is_over else revoked()
    if isinstance(holder, Client) and holder.expires is not None:
        until = min(until, holder.expires)
    roles = _roles(state, holder.party)
    return Caller(Who(state.tenant, holder.party, holder.party, holder.id, roles, frozenset(scopes)), until, rates)


def _roles(state: State, party: str) -> frozenset[Role]:
    """Roles that count now. Raises Refusal for a party that has left."""
    entry = state.find(PartyEntry, party)
    if entry is None or entry.status is PartyStatus.ENDED:
        raise revoked()
    return frozenset(entry.roles)


def _none_known() -> dict[tuple[bytes, bytes], Caller]:
    return {}


def _issuer(state: State, url: str) -> Issuer | None:
    found = state.grouped(Issuer, "url", lambda one: one.url).get(url)
    return found[0] if found else None


def api_key(client: str, secret: str) -> str:
    return f"{KEY_PREFIX}{client}_{secret}"
