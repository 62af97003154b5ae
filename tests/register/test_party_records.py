"""What the register knows of parties: codes that exist, commitments that tell nothing."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.domain.party import Party, Role
from coflex.register.parties import Confirmed, Duty, PartyEntry, PartyStatus, commitment, eic_check

# Codes in public use: system operators and bidding zones as ENTSO-E's transparency platform lists them.
PUBLISHED = (
    "10XES-REE------E",
    "10YFR-RTE------C",
    "10XAT-APG------Z",
    "10Y1001A1001A82H",
    "10YDE-VE-------2",
    "10Y1001A1001A83F",
    "10YAT-APG------L",
)


@pytest.mark.spec("REG-01")
@pytest.mark.parametrize("code", PUBLISHED)
def test_published_codes_have_the_character_that_the_check_asks_for(code: str) -> None:
    assert eic_check(code) == code[-1]


@given(st.sampled_from(PUBLISHED), st.integers(0, 14), st.sampled_from("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-"))
def test_a_single_wrong_character_is_found(code: str, place: int, letter: str) -> None:
    slip = code[:place] + letter + code[place + 1 :]
    assert (eic_check(slip) == code[-1]) == (slip == code)


@pytest.mark.spec("REG-10")
@given(st.binary(min_size=16, max_size=16), st.binary(), st.binary(min_size=16, max_size=16))
def test_a_commitment_is_the_digest_of_salt_and_data_and_another_salt_gives_another(
    salt: bytes, body: bytes, other: bytes
) -> None:
    sealed = commitment(salt, body)
    assert sealed == hashlib.new("sha256", salt + body).hexdigest()
    assert (commitment(other, body) == sealed) == (other == salt)


@pytest.mark.spec("REG-01")
def test_a_provider_may_balance_under_a_contract_or_with_every_duty_confirmed() -> None:
    def entry(contract: str | None, *duties: Duty) -> PartyEntry:
        party = Party("sp", "SP", (Role.SERVICE_PROVIDER,))
        return PartyEntry(
            "sp", party, PartyStatus.APPROVED, datetime(2026, 1, 1, tzinfo=UTC), tso_contract=contract,
            duties=tuple(Confirmed(duty) for duty in duties),
        )  # fmt: skip

    assert entry("BSP-7").may_balance
    assert entry(None, Duty.TECHNICAL, Duty.COMMUNICATION).may_balance
    assert not entry(None, Duty.TECHNICAL).may_balance
    assert not entry(None).may_balance


def test_roles_count_while_a_party_is_approved() -> None:
    for status in PartyStatus:
        party = Party("sp", "SP", (Role.SERVICE_PROVIDER,))
        entry = PartyEntry("sp", party, status, datetime(2026, 1, 1, tzinfo=UTC))
        assert bool(entry.roles) == (status is PartyStatus.APPROVED)
