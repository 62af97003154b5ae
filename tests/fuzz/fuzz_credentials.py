"""Headers that say who asks: read as their documentation says, and only the keys that were given out come in."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from coflex.adapters.web.api.problems import NotSignedIn, answer
from coflex.adapters.web.identity.keys import Keys
from coflex.adapters.web.identity.known import Caller, Identity, presented
from coflex.domain.errors import CoflexError, Forbidden, NotFound
from coflex.domain.party import Party, Role
from coflex.register.access import Client, ClientScope
from coflex.register.parties import PartyEntry, PartyStatus
from coflex.register.records import KIND_OF
from coflex.service.machine import Machine, encode
from coflex.service.ports import Version

TENANT = "demo"
AT = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "s" * 43
PARTIES = {"mo": Role.MARKET_OPERATOR, "sp-1": Role.SERVICE_PROVIDER, "sp-2": Role.SERVICE_PROVIDER}
Headers = list[tuple[bytes, bytes]]


def key_of(party: str) -> bytes:
    return f"cf_client-{party}_{SECRET}".encode()


@lru_cache(maxsize=1)
def identity() -> Identity:
    """A platform with a market operator and two providers, a client each."""
    machine = Machine({})
    for name, role in PARTIES.items():
        hashed = sha256(SECRET.encode()).hexdigest()
        for record in (
            PartyEntry(name, Party(name, name, (role,)), PartyStatus.APPROVED, AT),
            Client(f"client-{name}", name, name, tuple(ClientScope), hashed, AT),
        ):
            machine.load(Version(TENANT, KIND_OF[type(record)], record.id, 1, AT, encode(record)))
    with TemporaryDirectory() as folder:
        return Identity(machine, lambda: AT, Keys(Path(folder) / "keys.json", AT), "https://flex.example")


def expected(headers: Headers) -> tuple[bytes, bytes] | None:
    """Credential and party by the documentation; None where they are refused: one credential, named Bearer or shaped as
    an API key, and one party at most."""
    tokens = [value.split(b" ", 1) for name, value in headers if name == b"authorization"]
    keys = [value.strip() for name, value in headers if name == b"x-api-key"]
    parties = [value for name, value in headers if name == b"on-behalf-of"]
    if len(tokens) + len(keys) != 1 or len(parties) > 1:
        return None
    if any(len(token) != 2 or token[0].lower() != b"bearer" for token in tokens):
        return None
    if any(not key.startswith(b"cf_") for key in keys):
        return None
    credential = tokens[0][1].strip() if tokens else keys[0]
    return (credential, parties[0] if parties else b"") if credential else None


def check(data: bytes) -> None:
    """Lines of `name: value`, names in lower case, as the server hands them on."""
    pairs = (line.partition(b":") for line in data.split(b"\n"))
    headers = [(name.strip().lower(), value.strip(b" \t")) for name, _, value in pairs]
    wanted = expected(headers)
    try:
        found = presented(headers)
    except (NotSignedIn, Forbidden) as fault:
        assert wanted is None, f"{headers} are refused: {fault}"
        assert answer(fault).status_code in (401, 403)
    else:
        assert found == wanted, f"{headers} are read as {found}, not {wanted}"
    try:
        caller = identity().caller(TENANT, headers, AT)
    except CoflexError as fault:
        assert isinstance(fault, NotSignedIn | Forbidden | NotFound)
        assert answer(fault).status_code in (401, 403, 404)
    else:
        assert wanted is not None
        _is_entitled(caller, *wanted)


def _is_entitled(caller: Caller, credential: bytes, behalf: bytes) -> None:
    """The caller is who has the key, and for whom it may act."""
    by = next((party for party in PARTIES if key_of(party) == credential), None)
    assert caller.who.by == by, f"{credential!r} comes in as {caller.who.by}"
    party = behalf.decode("latin-1").strip() or by
    assert caller.who.party == party
    assert party == by or by == "mo"
    assert caller.who.roles == {PARTIES[party]}


SEEDS = (
    b"",
    b"authorization: Bearer " + key_of("sp-1"),
    b"Authorization: bEARER  " + key_of("mo") + b"\nOn-Behalf-Of: sp-2",
    b"x-api-key: " + key_of("sp-2"),
    b"x-api-key: nothing",
    b"authorization: Basic " + key_of("mo"),
    b"authorization: Bearer " + key_of("sp-1") + b"\non-behalf-of: sp-2",
    b"authorization: Bearer " + key_of("sp-1") + b"\nx-api-key: " + key_of("sp-1"),
    b"on-behalf-of: sp-1\non-behalf-of: sp-2\nx-api-key: " + key_of("mo"),
    b"on-behalf-of: \xff\xe9\nx-api-key: " + key_of("mo"),
    b"authorization: Bearer cf_" + b"x" * 44 + b"\n: ",
    b"authorization: Bearer \xc3\xa9",
    b"authorization: Bearer a.b.c",
    b"authorization: Bearer e30.eyJpc3MiOiJodHRwczovL2ZsZXguZXhhbXBsZS92MS9kZW1vIn0.e30",
)

if __name__ == "__main__":
    from harness import run

    run(__file__)
