"""Parties: who is on the platform, what the operator approved them for, and since when (REG-01).

Names and addresses of natural persons are kept apart from the register and can be erased: a record holds a commitment
to them alone (REG-10).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from coflex.domain.party import Party, Role


class PartyStatus(StrEnum):
    """requested -> approved or rejected; approved <-> suspended; approved or suspended -> ended."""

    REQUESTED = "requested"
    APPROVED = "approved"
    REJECTED = "rejected"
    SUSPENDED = "suspended"
    ENDED = "ended"


class Duty(StrEnum):
    """What a balancing provider without a contract with the TSO must fulfil (document O, Polish demonstration).

    `technical`: those of a scheduling operator. `communication`: those of the link with the TSO.
    """

    TECHNICAL = "technical"
    COMMUNICATION = "communication"


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A duty that a provider confirmed: it fulfils it itself, or by the `proxy` it names."""

    duty: Duty
    proxy: str = ""


@dataclass(frozen=True, slots=True)
class PartyEntry:
    """A party in the register. `party.roles` are those it asked for; they count while it is approved.

    `status_since`: the instant from which the status holds. `code`: its EIC or national code, empty if none.
    `tso_contract`: reference of a balancing contract with the TSO, None where a provider has none; then `duties`
    holds what it confirmed. `personal_commitment`: of a natural person, SHA-256 (hexadecimal) of salt and personal
    data, which are kept elsewhere until `personal_erased`; then `party.name` is empty.
    """

    id: str
    party: Party
    status: PartyStatus
    status_since: datetime
    reason: str = ""
    code: str = ""
    tso_contract: str | None = None
    duties: tuple[Confirmed, ...] = ()
    personal_commitment: str = ""
    personal_erased: datetime | None = None

    @property
    def roles(self) -> tuple[Role, ...]:
        """Roles that count now."""
        return self.party.roles if self.status is PartyStatus.APPROVED else ()

    @property
    def stands(self) -> bool:
        """Whether the register may name it: approved, or suspended for the time being."""
        return self.status in (PartyStatus.APPROVED, PartyStatus.SUSPENDED)

    @property
    def may_balance(self) -> bool:
        """Whether it may provide balancing: under a contract with the TSO, or with every duty confirmed."""
        return self.tso_contract is not None or {one.duty for one in self.duties} == set(Duty)


@dataclass(frozen=True, slots=True)
class Person:
    """Personal data of a natural person; never part of a record, a note or a log."""

    name: str
    email: str
    address: str = ""


def commitment(salt: bytes, body: bytes) -> str:
    """What a record holds of personal data: SHA-256 of salt and data, hexadecimal; alone it tells nothing."""
    return sha256(salt + body).hexdigest()


_EIC_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-"


def eic_check(code: str) -> str:
    """The sixteenth character that the first fifteen of an Energy Identification Code ask for.

    Source: ENTSO-E, Energy Identification Coding Scheme reference manual, check character. Raises ValueError on a
    character that the code does not have.
    """
    weighted = sum((16 - place) * _EIC_LETTERS.index(letter) for place, letter in enumerate(code[:15]))
    return _EIC_LETTERS[36 - (weighted - 1) % 37]


RECORDS: dict[str, type[object]] = {"party": PartyEntry}
