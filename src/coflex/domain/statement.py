"""Statements: who is paid what, for what, and why. Money in whole cents."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from coflex.domain.quantity import Direction


class Cause(StrEnum):
    ACTIVATION = "activation"
    PENALTY = "penalty"
    FEE = "fee"
    ROUNDING = "rounding"


@dataclass(frozen=True, slots=True)
class SettlementLine:
    """One award settled for one unit and quarter-hour. Energies in kWh, unsigned in `direction`; `amount` exact.

    `amount_eur`: what the buyer owes the provider for delivery; `penalty_eur`: what the provider owes the buyer.
    """

    unit: str
    start: datetime
    session: str
    buyer: str
    provider: str
    direction: Direction
    ordered_kwh: Decimal
    baseline_method: str
    baseline_kwh: Decimal
    measured_kwh: Decimal
    delivered_kwh: Decimal
    paid_kwh: Decimal
    price_eur_mwh: Decimal
    amount_eur: Decimal
    penalty_eur: Decimal
    remark: str


@dataclass(frozen=True, slots=True)
class Posting:
    """One side of a booking: positive cents are credited to the account, negative debited.
    The postings of one `booking` add to zero."""

    booking: str
    account: str
    cents: int
    cause: Cause
    session: str


@dataclass(frozen=True, slots=True)
class Statement:
    """What one party pays and receives for a delivery day, in cents."""

    party: str
    received_cents: int
    paid_cents: int
    penalty_cents: int
    fee_cents: int
    lines: int
    ordered_kwh: Decimal
    delivered_kwh: Decimal

    @property
    def balance_cents(self) -> int:
        """Received minus paid, penalties and fees."""
        return self.received_cents - self.paid_cents - self.penalty_cents - self.fee_cents
