"""Who comes in: keys and tokens, checked by programs that are not ours; how much each may send."""

from __future__ import annotations

import base64
import json
import os
import time
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey

from coflex.adapters.web.api.problems import NotSignedIn, TooMany
from coflex.adapters.web.identity import (
    Identity,
    Keys,
)
from coflex.adapters.web.identity.keys import KeysUnsafe
from coflex.adapters.web.identity.limits import Limits, Throttle
from coflex.adapters.web.identity.tokens import ACCESS, BadToken
from coflex.domain.errors import Forbidden, NotFound
from coflex.domain.party import Role
from coflex.register.access import Client, ClientScope, Rates, User
from coflex.register.parties import PartyEntry, PartyStatus
from coflex.service.who import Who
from support.access import AT, SECRET, TENANT, key_of
from support.identity import ADDRESS, ISSUER, OAUTH, House, bearer, get, json_of, raw_bytes, refused, run, text_of


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# ---------------------------------------------------------------- API keys


@pytest.mark.spec("PLAT-01")
@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
def test_an_api_key_tells_the_client_its_party_roles_and_scopes(house: House, header: str) -> None:
    key = key_of("sp-1")
    who = run(lambda: house.who({header: f"Bearer {key}" if header == "Authorization" else key}))
    assert who == Who(TENANT, "sp-1", "sp-1", "client-sp-1", frozenset({Role.SERVICE_PROVIDER}), frozenset(ClientScope))


@pytest.mark.spec("PLAT-01")
@pytest.mark.parametrize(
    "credential",
    [
        "",
        "cf_",
        "cf_client-sp-1",
        f"cf_client-sp-1_{'t' * 43}",
        f"cf_client-nobody_{SECRET}",
        f"cf__{SECRET}",
        "a.b.c",
        "a.b",
        "....",
        "é" * 20,
        "x" * 9000,
        f"{base64.urlsafe_b64encode(b'[]').decode()}.e30.e30",
    ],
)
def test_what_is_no_credential_of_ours_is_refused(house: House, credential: str) -> None:
    assert run(lambda: refused(house, bearer(credential))) == ("missing" if not credential else "unknown")


@given(st.binary(max_size=200))
def test_no_bytes_in_the_header_do_anything_but_be_refused(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    house = _kept_house(tmp_path_factory)
    with pytest.raises(NotSignedIn):
        house.identity.caller(TENANT, [(b"authorization", b"Bearer " + raw)], AT)
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (raw[:60], raw[60:120], raw[120:])]
    with pytest.raises(NotSignedIn):
        house.identity.caller(TENANT, [(b"authorization", b"Bearer " + b".".join(parts))], AT)


_HOUSES: list[House] = []


def _kept_house(factory: pytest.TempPathFactory) -> House:
    if not _HOUSES:
        _HOUSES.append(House(factory.mktemp("kept")))
    return _HOUSES[0]


@pytest.mark.spec("PLAT-01")
def test_expired_and_revoked_are_told_to_the_holder_alone(house: House) -> None:
    client = house.bench.state.get(Client, "client-sp-1")
    house.bench.put(replace(client, expires=AT + timedelta(hours=1)))
    assert run(lambda: house.who(bearer(key_of("sp-1")))).actor == "client-sp-1"
    house.bench.clock.at = AT + timedelta(hours=1)
    assert run(lambda: refused(house, bearer(key_of("sp-1")))) == "expired"
    house.bench.put(replace(client, revoked=AT))
    assert run(lambda: refused(house, bearer(key_of("sp-1")))) == "revoked"
    assert run(lambda: refused(house, bearer(f"cf_client-sp-1_{'t' * 43}"))) == "unknown"


@pytest.mark.spec("PLAT-01")
def test_a_secret_that_was_rotated_away_holds_for_its_overlap(house: House) -> None:
    form = {"secret_hash": sha256(b"n" * 43).hexdigest(), "overlap_s": 60}
    house.bench.take("client.rotate", form, "client-sp-1")
    new = bearer(f"cf_client-sp-1_{'n' * 43}")
    assert run(lambda: house.who(new)) == run(lambda: house.who(bearer(key_of("sp-1"))))
    house.bench.clock.at += timedelta(seconds=60)
    assert run(lambda: refused(house, bearer(key_of("sp-1")))) == "expired"
    assert run(lambda: house.who(new)).party == "sp-1"


def test_two_credentials_at_once_are_refused(house: House) -> None:
    headers = [(b"authorization", f"Bearer {key_of('sp-1')}".encode()), (b"x-api-key", key_of("sp-2").encode())]
    for order in (headers, headers[::-1]):
        with pytest.raises(NotSignedIn):
            house.identity.caller(TENANT, order, AT)


def test_a_party_that_left_comes_in_no_more_and_a_suspended_one_has_no_role(house: House) -> None:
    entry = house.bench.state.get(PartyEntry, "sp-1")
    house.bench.put(replace(entry, status=PartyStatus.SUSPENDED))
    assert run(lambda: house.who(bearer(key_of("sp-1")))).roles == frozenset()
    house.bench.put(replace(entry, status=PartyStatus.ENDED))
    assert run(lambda: refused(house, bearer(key_of("sp-1")))) == "revoked"


def test_an_unknown_tenant_is_not_found(house: House) -> None:
    with pytest.raises(NotFound):
        run(lambda: house.who(bearer(key_of("sp-1")), "nowhere"))


# ---------------------------------------------------------------- on behalf


@pytest.mark.spec("PLAT-07")
def test_the_market_operator_acts_on_behalf_and_is_marked(house: House) -> None:
    who = run(lambda: house.who(bearer(key_of("mo")) | {"On-Behalf-Of": "sp-1"}))
    assert (who.party, who.by, who.actor, who.on_behalf) == ("sp-1", "mo", "client-mo", True)
    assert who.roles == frozenset({Role.SERVICE_PROVIDER})


@pytest.mark.spec("PLAT-07")
def test_nobody_else_acts_on_behalf_whether_the_party_exists_or_not(house: House) -> None:
    told = set()
    for party in ("sp-1", "nobody"):
        with pytest.raises(Forbidden) as fault:
            run(lambda party=party: house.who(bearer(key_of("dso")) | {"On-Behalf-Of": party}))
        told.add(str(fault.value))
    assert len(told) == 1
    assert not run(lambda: house.who(bearer(key_of("dso")) | {"On-Behalf-Of": "dso"})).on_behalf
    with pytest.raises(NotFound):
        run(lambda: house.who(bearer(key_of("mo")) | {"On-Behalf-Of": "nobody"}))


@pytest.mark.spec("PLAT-07")
def test_an_operator_that_lost_its_role_acts_for_nobody_from_that_entry_on(house: House) -> None:
    headers = bearer(key_of("mo")) | {"On-Behalf-Of": "sp-1"}
    run(lambda: house.who(headers))
    house.bench.put(replace(house.bench.state.get(PartyEntry, "mo"), status=PartyStatus.SUSPENDED))
    with pytest.raises(Forbidden):
        run(lambda: house.who(headers))


# ---------------------------------------------------------------- tokens


@pytest.mark.spec("PLAT-01")
def test_a_token_of_ours_is_verified_by_plain_ed25519_with_the_published_key(house: House) -> None:
    token = house.token()
    head, body, signature = token.split(".")
    [key] = json.loads(run(lambda: get(house, f"{OAUTH}/jwks")))["keys"]
    assert (key["kty"], key["crv"], key["use"], "d" in key) == ("OKP", "Ed25519", "sig", False)
    assert json_of(head) == {"alg": "EdDSA", "typ": "at+jwt", "kid": key["kid"]}
    # RFC 7638: the thumbprint is of the required members in order.
    members = json.dumps({name: key[name] for name in ("crv", "kty", "x")}, separators=(",", ":"))
    assert key["kid"] == base64.urlsafe_b64encode(sha256(members.encode()).digest()).decode().rstrip("=")
    public = Ed25519PublicKey.from_public_bytes(raw_bytes(key["x"]))
    public.verify(raw_bytes(signature), f"{head}.{body}".encode())
    with pytest.raises(InvalidSignature):
        public.verify(raw_bytes(signature), f"{head}.{body}x".encode())
    claims = json_of(body)
    assert claims["exp"] - claims["iat"] == 900
    assert (claims["iss"], claims["aud"], claims["sub"]) == (ISSUER, ISSUER, "client-sp-1")


def test_a_token_of_ours_is_verified_by_another_library(house: House) -> None:
    from authlib.jose import JsonWebKey, JsonWebToken

    keys = json.loads(run(lambda: get(house, f"{OAUTH}/jwks")))
    claims = JsonWebToken(["EdDSA"]).decode(house.token(), JsonWebKey.import_key_set(keys))
    assert claims["client_id"] == "client-sp-1"


@pytest.mark.spec("PLAT-01")
def test_a_token_holds_until_it_expires_its_holder_changes_or_it_is_revoked(house: House) -> None:
    bench, token = house.bench, house.token(scopes=("read",))
    who = run(lambda: house.who(bearer(token)))
    assert (who.party, who.scopes) == ("sp-1", frozenset({ClientScope.READ}))
    bench.take("client.change", {"name": "x", "scopes": ["write"]}, "client-sp-1")
    assert run(lambda: house.who(bearer(token))).scopes == frozenset()
    bench.take("token.revoke", None, "client-sp-1")
    assert run(lambda: refused(house, bearer(token))) == "revoked"
    fresh = house.token()
    run(lambda: house.who(bearer(fresh)))
    bench.clock.at += timedelta(minutes=15)
    assert run(lambda: refused(house, bearer(fresh))) == "expired"


@pytest.mark.spec("PLAT-01")
def test_no_token_of_another_kind_tenant_key_or_algorithm_passes(house: House, tmp_path: Path) -> None:
    tokens, bench = house.identity.tokens, house.bench
    user = bench.state.get(User, house.user())
    client = bench.state.get(Client, "client-sp-1")
    stranger = Identity(bench.machine, bench.clock, Keys(tmp_path / "other.json", AT), ADDRESS).tokens
    claims = json_of(house.token().split(".")[1])
    public = house.keys.public()["keys"][0]
    header = {"alg": "HS256", "typ": "at+jwt", "kid": public["kid"]}
    # The public key as the secret of a symmetric algorithm: the oldest trick with JSON Web Tokens.
    confused = jwt.encode(header, claims, OctKey.import_key(raw_bytes(public["x"])), algorithms=["HS256"])
    head, body, signature = house.token().split(".")
    unsigned = f"{text_of({'alg': 'none', 'typ': 'at+jwt', 'kid': public['kid']})}.{body}."
    other_claims = f"{head}.{text_of(claims | {'party': 'sp-2', 'sub': 'client-sp-2'})}.{signature}"
    for token in (
        tokens.identity(TENANT, user, "client-sp-1", AT, None, AT),
        tokens.session(TENANT, user, AT),
        tokens.access("other", client, client.id, ("read",), AT),
        stranger.access(TENANT, client, client.id, ("read",), AT),
        confused,
        unsigned,
        other_claims,
    ):
        assert run(lambda token=token: refused(house, bearer(token))) == "unknown"


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_token_with_any_byte_changed_is_none(
    tmp_path_factory: pytest.TempPathFactory, place: int, change: int
) -> None:
    house = _kept_house(tmp_path_factory)
    raw = bytearray(house.token().encode())
    raw[place % len(raw)] ^= change
    decoded = bytes(raw).split(b".")
    same = len(decoded) == 3 and _same_bits(bytes(raw), house)
    if same:  # the last bits of base64 that stand for nothing
        return
    with pytest.raises(NotSignedIn):
        house.identity.caller(TENANT, [(b"authorization", b"Bearer " + bytes(raw))], AT)


def _same_bits(raw: bytes, house: House) -> bool:
    try:
        house.identity.tokens.read(TENANT, ACCESS, raw.decode("ascii"), AT)
    except (BadToken, UnicodeDecodeError):
        return False
    return True


def test_the_same_caller_costs_less_than_ten_microseconds(house: House) -> None:
    common = [(b"host", b"x"), (b"user-agent", b"u"), (b"accept", b"*/*"), (b"content-type", b"application/json")]
    for credential in (house.token(), key_of("sp-1")):
        headers = [*common, (b"authorization", b"Bearer " + credential.encode())]
        house.identity.caller(TENANT, headers, AT)
        best = min(_timed(house, headers) for _ in range(20))
        assert best < 10e-6


def _timed(house: House, headers: list[tuple[bytes, bytes]]) -> float:
    begun = time.perf_counter()
    for _ in range(500):
        house.identity.caller(TENANT, headers, AT)
    return (time.perf_counter() - begun) / 500


# ---------------------------------------------------------------- the server's keys


@pytest.mark.spec("PLAT-01")
def test_the_servers_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "identity" / "keys.json"
    first = Keys(path, AT)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]
    again = Keys(path, AT + timedelta(days=1))
    assert again.public() == first.public()
    assert again.derived("a", "b") == first.derived("a", "b") != first.derived("ab", "")
    path.chmod(0o640)
    if os.name == "posix":
        with pytest.raises(KeysUnsafe, match="chmod 600"):
            Keys(path, AT)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(KeysUnsafe, match="backup"):
        Keys(path, AT)


def test_signing_keys_follow_each_other_and_none_signs_before_it_is_published(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json", AT)
    first = keys.signer(AT).kid
    published: dict[str, datetime] = {first: AT}
    for day in range(400):
        at = AT + timedelta(days=day)
        keys.tend(at)
        names = {one["kid"] for one in keys.public()["keys"]}
        for name in names:
            published.setdefault(name, at)
        signer = keys.signer(at).kid
        assert signer in names
        assert signer == first or at - published[signer] >= timedelta(days=1)
    assert len(published) == 5
    assert 2 <= len(keys.public()["keys"]) + 1 <= 4
    assert keys.key(first) is None


def test_a_token_outlives_the_change_of_keys(house: House) -> None:
    token = house.token()
    house.keys.rotate(AT, starts=AT)
    newer = house.token()
    assert token.split(".")[0] != newer.split(".")[0]
    for one in (token, newer):
        assert run(lambda one=one: house.who(bearer(one))).party == "sp-1"


# ---------------------------------------------------------------- limits


@pytest.mark.spec("PLAT-01")
def test_who_sends_ten_times_its_rate_gets_its_rate_and_costs_others_nothing(tmp_path: Path) -> None:
    now = [0.0]
    house = House(tmp_path, Limits(lambda: now[0]))
    loud, quiet = bearer(key_of("sp-1")), bearer(key_of("sp-2"))
    taken = {"loud": 0, "quiet": 0}

    async def send() -> None:
        for tick in range(10_000):  # five seconds: 2,000 a second against 20 a second
            now[0] = tick / 2_000
            for name, headers, every in (("loud", loud, 1), ("quiet", quiet, 100)):
                if tick % every == 0:
                    try:
                        await house.who(headers)
                        taken[name] += 1
                    except TooMany as fault:
                        assert fault.after_s == 1

    run(send)
    assert taken == {"loud": 400 + 1_000 - 1, "quiet": 100}


@given(
    st.lists(st.tuples(st.floats(0, 2), st.integers(1, 5)), max_size=60),
    st.integers(1, 50),
    st.integers(5, 100),
)
def test_no_bucket_gives_more_than_its_burst_and_its_rate(
    steps: list[tuple[float, int]], rate: int, burst: int
) -> None:
    now = [0.0]
    limits = Limits(lambda: now[0])
    given_out, last = 0, 0.0
    for pause, cost in steps:
        now[0] += pause
        wait = limits.wait("a", rate, burst, cost)
        if wait == 0:
            given_out += cost
            assert given_out <= burst + rate * now[0] + 1e-6
        else:
            now[0] += wait + 1e-9
            assert limits.wait("a", rate, burst, cost) == 0, "the wait that was told is enough"
            given_out += cost
        last = now[0]
    assert last >= 0


def test_rates_are_those_of_the_record_and_items_are_counted_apart(tmp_path: Path) -> None:
    house = House(tmp_path, Limits(lambda: 0.0))
    client = house.bench.state.get(Client, "client-sp-1")
    house.bench.put(replace(client, rates=Rates(1, 2, 10, 100)))
    who = run(lambda: house.who(bearer(key_of("sp-1"))))
    house.identity.items(who, 100)
    with pytest.raises(TooMany) as fault:
        house.identity.items(who, 50)
    assert fault.value.after_s == 5
    run(lambda: house.who(bearer(key_of("sp-1"))))
    with pytest.raises(TooMany):
        run(lambda: house.who(bearer(key_of("sp-1"))))


def test_an_address_has_not_many_wrong_credentials_and_known_callers_from_it_go_on(tmp_path: Path) -> None:
    house = House(tmp_path, Limits(lambda: 0.0))

    async def send() -> list[int]:
        await house.who(bearer(key_of("sp-1")))
        told = []
        for _ in range(300):
            try:
                await house.who(bearer("cf_client-sp-1_" + "t" * 43))
            except NotSignedIn:
                told.append(401)
            except TooMany:
                told.append(429)
        await house.who(bearer(key_of("sp-1")))
        return told

    assert run(send) == [401] * 200 + [429] * 100


def test_memory_of_callers_is_bounded() -> None:
    limits = Limits(lambda: 0.0, most=100)
    for caller in range(1_000):
        limits.wait(caller, 1, 1)
    assert len(limits._buckets) == 100


def test_failures_wait_longer_and_longer_and_a_success_forgives() -> None:
    now = [0.0]
    throttle = Throttle(lambda: now[0])
    waits = []
    for _ in range(20):
        try:
            throttle.attempt("ana")
        except TooMany as fault:
            waits.append(fault.after_s)
            now[0] += fault.after_s
    assert waits == [2**k for k in range(len(waits))]
    assert len(waits) >= 6
    throttle.succeeded("ana")
    for _ in range(5):
        throttle.attempt("ana")
