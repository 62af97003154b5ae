"""Tokens: of any text nothing comes in but what was signed here, and no claim of an outside issuer breaks the door."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from joserfc.jwk import OKPKey
from joserfc.jws import JWSRegistry, serialize_compact

from coflex.adapters.web.api.problems import NotSignedIn, answer
from coflex.adapters.web.identity.keys import Keys
from coflex.adapters.web.identity.known import Identity
from coflex.adapters.web.identity.outside import KeysWanted, OutsideKeys
from coflex.adapters.web.identity.tokens import ACCESS, ID, SESSION, BadToken, Tokens, unverified
from coflex.domain.party import Party, Role
from coflex.register.access import Client, ClientScope, Issuer, Naming, User, login_digest
from coflex.register.parties import PartyEntry, PartyStatus
from coflex.register.records import KIND_OF
from coflex.service.machine import Machine, encode
from coflex.service.ports import Version

TENANT, PARTY, MAIL = "demo", "sp-1", "ana@example.org"
AT = datetime(2026, 1, 1, tzinfo=UTC)
USERS, PARTIES = "https://users.example", "https://parties.example"
_EDDSA = JWSRegistry(algorithms=["EdDSA"])


@dataclass(frozen=True)
class Door:
    """Our door, tokens that it gave out, and the key of the outside issuers."""

    identity: Identity
    given: tuple[str, ...]
    outside: OKPKey


@lru_cache(maxsize=1)
def door() -> Door:
    machine, outside = Machine({}), OKPKey.generate_key("Ed25519", {"kid": "ed"})
    client = Client("client-sp-1", PARTY, PARTY, tuple(ClientScope), "", AT)
    user = User("user-1", PARTY, tuple(ClientScope), login_digest(TENANT, MAIL), "", AT, AT)
    issuers = (
        Issuer("users", USERS, "coflex", "email", Naming.USER, (PARTY,), (ClientScope.READ,), (PARTY,)),
        Issuer("parties", PARTIES, "coflex", "party", Naming.PARTY, (PARTY,), (ClientScope.READ,), (PARTY,)),
    )
    party = PartyEntry(PARTY, Party(PARTY, PARTY, (Role.SERVICE_PROVIDER,)), PartyStatus.APPROVED, AT)
    for record in (party, client, user, *issuers):
        machine.load(Version(TENANT, KIND_OF[type(record)], record.id, 1, AT, encode(record)))
    keys = OutsideKeys(lambda: httpx.AsyncClient(transport=httpx.MockTransport(lambda asked: _served(asked, outside))))
    for issuer in issuers:
        asyncio.run(keys.fetch(issuer, AT))
    with TemporaryDirectory() as folder:
        kept = Keys(Path(folder) / "keys.json", AT)
    identity = Identity(machine, lambda: AT, kept, "https://flex.example", outside=keys)
    tokens = identity.tokens
    given = (
        tokens.access(TENANT, client, client.id, ("read",), AT),
        tokens.identity(TENANT, user, client.id, AT, None, AT),
        tokens.session(TENANT, user, AT),
        tokens.access("other", client, client.id, ("read",), AT),
        tokens.access(TENANT, client, client.id, ("read",), AT - timedelta(days=1)),
    )
    return Door(identity, given, outside)


def _served(asked: httpx.Request, key: OKPKey) -> httpx.Response:
    """The two documents of an issuer."""
    url = f"https://{asked.url.host}"
    if asked.url.path == "/keys":
        return httpx.Response(200, json={"keys": [key.as_dict(private=False)]})
    return httpx.Response(200, json={"issuer": url, "jwks_uri": f"{url}/keys"})


def check(data: bytes) -> None:
    """By the first byte: a token as it is; changes of one that was given out; the claims of an outside issuer."""
    kind, rest = data[:1], data[1:]
    if kind == b"o":
        _comes_in(serialize_compact({"alg": "EdDSA", "kid": "ed"}, rest, door().outside, registry=_EDDSA).encode())
    elif kind == b"c" and len(rest) > 2:
        token = bytearray(door().given[rest[0] % len(door().given)].encode())
        for place, sign in zip(rest[1::2], rest[2::2], strict=False):
            token[-place - 1 if place % 2 else place * 2 % len(token)] = sign
        _read(bytes(token))
    else:
        _read(rest)


def _read(raw: bytes) -> None:
    text = raw.decode("ascii", errors="ignore")
    with suppress(BadToken):
        unverified(text)
    tokens: Tokens = door().identity.tokens
    for kind, given in zip((ACCESS, ID, SESSION), door().given, strict=False):
        try:
            tokens.read(TENANT, kind, text, AT)
        except BadToken:
            continue
        # The last sign of a signature has bits that mean nothing; what is signed is the text before it.
        assert text.rpartition(".")[0] == given.rpartition(".")[0], f"{text} is taken as {kind}"
    if _comes_in(raw):
        assert text.rpartition(".")[0] == door().given[0].rpartition(".")[0], f"{text} comes in"


def _comes_in(credential: bytes) -> bool:
    """Whether a token opens the door. Only for the one party that all of them are of."""
    try:
        caller = door().identity.caller(TENANT, [(b"authorization", b"Bearer " + credential)], AT)
    except KeysWanted:
        return False
    except NotSignedIn as fault:
        assert answer(fault).status_code == 401
        return False
    assert (caller.who.party, caller.who.by) == (PARTY, PARTY)
    assert caller.who.actor.isascii()
    return True


def _claims(url: str, named: str) -> bytes:
    at = int(AT.timestamp())
    return f'o{{"iss": "{url}", "aud": ["coflex"], "sub": "42", "iat": {at}, "exp": {at + 600}, {named}}}'.encode()


def _unsigned(header: bytes, claims: bytes) -> bytes:
    return b"t" + b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in (header, claims, b"x" * 64))


SEEDS = (
    _claims(USERS, f'"email": "{MAIL}"'),
    _claims(PARTIES, f'"party": "{PARTY}"'),
    _claims(PARTIES, '"party": "sp-2"'),
    _claims(USERS, '"email": "\\ud800", "nbf": 1e10'),
    _claims(USERS, '"email": null').replace(b"[", b"").replace(b"]", b""),
    b"o[]",
    b"o{}",
    b"c\x00\x00\x00",
    b"c\x01\x05a\x09b",
    b"c\x02\x01=",
    b"c\x03\x00A",
    b"c\x04\x00A",
    b"t",
    b"ta.b.c",
    b"t...",
    _unsigned(b'{"alg": "none", "typ": "at+jwt"}', b'{"iss": "https://flex.example/v1/demo"}'),
    _unsigned(b'{"alg": "EdDSA", "kid": "ed", "crit": []}', b'{"iss": "https://users.example"}'),
    _unsigned(b'{"alg": "HS256", "kid": "ed", "b64": false}', b'{"iss": "https://users.example", "iss": ""}'),
)

if __name__ == "__main__":
    from harness import run

    run(__file__)
