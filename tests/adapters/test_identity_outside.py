"""Outside issuers of identities: another application with keys of every kind."""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from coflex.adapters.web.identity.outside import OutsideKeys
from coflex.register.access import ClientScope, Issuer, Naming
from support.access import AT
from support.identity import House, bearer, json_of, refused, run, text_of
from support.outside_issuer import Outside

# ---------------------------------------------------------------- outside issuers


def with_outside(tmp_path: Path, **fields: Any) -> tuple[House, Outside]:
    outside = Outside()
    house = House(tmp_path, outside=OutsideKeys(outside.http))
    issuer = Issuer("corp", outside.url, "coflex", "email", Naming.USER, ("sp-1",), (ClientScope.READ,), ("sp-1",))
    house.bench.put(replace(issuer, **fields))
    return house, outside


@pytest.mark.spec("PLAT-01")
@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_user_comes_in_with_a_token_of_its_companys_issuer(tmp_path: Path, algorithm: str) -> None:
    house, outside = with_outside(tmp_path)
    user = house.user()
    who = run(lambda: house.who(bearer(outside.token(algorithm))))
    assert (who.actor, who.party, who.scopes) == (user, "sp-1", frozenset({ClientScope.READ}))
    run(lambda: house.who(bearer(outside.token("ES256", jti="another"))))
    assert outside.asked == 1
    house.bench.take("user.lock", None, user)
    assert run(lambda: refused(house, bearer(outside.token(algorithm)))) == "revoked"


@pytest.mark.spec("PLAT-01")
def test_a_token_that_names_a_party_reads_and_writes_for_it_and_leaves_no_name(tmp_path: Path) -> None:
    house, outside = with_outside(tmp_path, claim="org", names=Naming.PARTY, scopes=tuple(ClientScope))
    who = run(lambda: house.who(bearer(outside.token(org="sp-1", sub="ana@example.org"))))
    assert (who.party, who.scopes) == ("sp-1", frozenset({ClientScope.READ, ClientScope.WRITE}))
    assert re.fullmatch(r"corp:[0-9a-f]{16}", who.actor)
    for org in ("sp-2", "mo", 7, None):
        assert run(lambda org=org: refused(house, bearer(outside.token(org=org)))) == "unknown"


@pytest.mark.spec("PLAT-01")
@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "another"}, "unknown"),
        ({"aud": ["another", "coflex"]}, ""),
        ({"exp": int(AT.timestamp())}, "expired"),
        ({"exp": None}, "unknown"),
        ({"exp": True}, "unknown"),
        ({"exp": int(AT.timestamp()) + 10**6}, "unknown"),
        ({"nbf": int(AT.timestamp()) + 3600}, "unknown"),
        ({"iss": "https://elsewhere.example"}, "unknown"),
        ({"email": "nobody@example.org"}, "unknown"),
        ({"email": ["ana@example.org"]}, "unknown"),
        ({"sub": None}, "unknown"),
    ],
)
def test_only_tokens_made_for_us_and_in_force_are_taken(tmp_path: Path, claims: dict[str, Any], reason: str) -> None:
    house, outside = with_outside(tmp_path)
    house.user()
    if reason:
        assert run(lambda: refused(house, bearer(outside.token(**claims)))) == reason
    else:
        assert run(lambda: house.who(bearer(outside.token(**claims)))).party == "sp-1"


def test_a_user_of_a_party_that_the_issuer_may_not_speak_for_is_not_let_in(tmp_path: Path) -> None:
    house, outside = with_outside(tmp_path)
    house.user(party="sp-2")
    assert run(lambda: refused(house, bearer(outside.token()))) == "unknown"


@pytest.mark.spec("PLAT-01")
def test_the_key_of_one_algorithm_does_not_verify_another(tmp_path: Path) -> None:
    house, outside = with_outside(tmp_path)
    house.user()
    head, claims = {"alg": "HS256", "kid": "rsa"}, outside.token().split(".")[1]
    signed = f"{text_of(head)}.{claims}"
    # The public key as the secret of a symmetric algorithm.
    mac = hmac.digest(outside.keys["RS256"].as_pem(private=False), signed.encode(), "sha256")
    forged = [f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"]
    for algorithm, key in (("PS256", "RS256"), ("ES256", "ES256"), ("EdDSA", "EdDSA")):
        head = {"alg": algorithm, "kid": "rsa"}
        forged.append(jwt.encode(head, json_of(claims), outside.keys[key], algorithms=[algorithm]))
    for token in forged:
        assert run(lambda token=token: refused(house, bearer(token))) == "unknown"


def test_an_issuer_that_is_down_is_asked_once_a_minute_and_its_keys_are_used_for_a_day(tmp_path: Path) -> None:
    house, outside = with_outside(tmp_path)
    house.user()
    clock = house.bench.clock

    def at(**later: float) -> dict[str, str]:
        clock.at = AT + timedelta(**later)
        now = int(clock.at.timestamp())
        return bearer(outside.token(iat=now, exp=now + 600))

    async def fails(headers: dict[str, str]) -> str:
        try:
            await house.who(headers)
        except Exception as fault:
            return type(fault).__name__
        return ""

    outside.down = True
    assert [run(lambda: fails(at())) for _ in range(3)] == ["Unavailable"] * 3
    assert outside.asked == 1
    outside.down = False
    assert run(lambda: fails(at(minutes=2))) == ""
    outside.down = True
    assert run(lambda: fails(at(hours=2))) == ""
    assert run(lambda: fails(at(hours=2, seconds=30))) == ""
    assert outside.asked == 3
    assert run(lambda: fails(at(days=2))) == "Unavailable"


def test_a_new_key_of_the_issuer_is_fetched_when_a_token_names_it(tmp_path: Path) -> None:
    house, outside = with_outside(tmp_path)
    house.user()
    run(lambda: house.who(bearer(outside.token())))
    outside.keys["RS256"] = RSAKey.generate_key(2048, {"kid": "rsa-2"})
    assert run(lambda: refused(house, bearer(outside.token()))) == "unknown"
    house.bench.clock.at += timedelta(minutes=1)
    assert run(lambda: house.who(bearer(outside.token()))).party == "sp-1"
    assert outside.asked == 2
