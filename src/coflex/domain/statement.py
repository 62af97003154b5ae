"""Statements: who is paid what, for what, and why. Money in whole cents."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from coflex.domain.quantity import Direction


class Cause(StrEnum):
    """What an amount is for. `availability`: capacity held ready, `claw_back`: what of that is taken again; `owner`:
    the owner's share that the provider pays on; `compensation`: what the provider and the supplier of an activated
    unit owe each other for the energy that changed hands; `rounding`: the cents of a shared purchase that rounding
    leaves."""

    ACTIVATION = "activation"
    PENALTY = "penalty"
    FEE = "fee"
    ROUNDING = "rounding"
    AVAILABILITY = "availability"
    CLAW_BACK = "claw_back"
    OWNER = "owner"
    COMPENSATION = "compensation"


class Measure(StrEnum):
    """What the quantity of a charge counts."""

    MWH = "MWh"
    MVARH = "Mvarh"
    MW_H = "MW h"
    EUR = "EUR"


@dataclass(frozen=True, slots=True)
class SettlementLine:
    """One award settled for one unit and quarter-hour. Energies in kWh, unsigned in `direction`; `amount` exact.

    `amount_eur`: what the buyer owes the provider for delivery; `penalty_eur`: what the provider owes the buyer.
    `award`: its name in the session. `baseline_kwh`, `measured_kwh`: signed, injection positive; None where there is
    none, and nothing was paid. `rule`: id and version of the rule document, as "mfrr@1".
    """

    unit: str
    start: datetime
    session: str
    award: str
    buyer: str
    provider: str
    direction: Direction
    ordered_kwh: Decimal
    baseline_method: str
    baseline_kwh: Decimal | None
    measured_kwh: Decimal | None
    delivered_kwh: Decimal
    paid_kwh: Decimal
    price_eur_mwh: Decimal
    amount_eur: Decimal
    penalty_eur: Decimal
    rule: str
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


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a charge rests on, as names that can be looked up: from the award to the proof of the measurement.

    `measurements`: the log of the signed measurements, as its origin. `log_size`: how many entries it held when the
    charge was settled; a checkpoint of that size proves what was known. `certificates`: files or ids of certificates.
    """

    offer: str = ""
    award: str = ""
    set_point: str = ""
    baseline: str = ""
    measurements: str = ""
    log_size: int = 0
    certificates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Charge:
    """One exact amount between two parties, for one thing in one interval.

    `amount_eur`: what the customer owes the seller; negative, the seller owes the customer. `quantity` in `measure`
    times `price_eur` is the amount, up to the grain of 1e-9 EUR. `joint`: one of several customers' parts of one
    purchase. `corrects`: the id of the charge whose amount this one changes; its own amount is the difference.
    `rule`: id and version of the rule document, as "mfrr@1".
    """

    id: str
    cause: Cause
    seller: str
    customer: str
    session: str
    unit: str
    start: datetime
    minutes: int
    quantity: Decimal
    measure: Measure
    price_eur: Decimal
    amount_eur: Decimal
    rule: str
    remark: str
    evidence: Evidence
    joint: bool = False
    corrects: str = ""

    @property
    def root(self) -> str:
        """The id under which all runs know this charge."""
        return self.corrects or self.id


@dataclass(frozen=True, slots=True)
class Line:
    """A charge as it was booked: its whole cents, and the booking they are part of."""

    charge: Charge
    cents: int
    booking: str


@dataclass(frozen=True, slots=True)
class Total:
    """What a party received and paid for one cause, cents, both never negative."""

    cause: Cause
    received_cents: int
    paid_cents: int


@dataclass(frozen=True, slots=True)
class Account:
    """What one party received and paid in a settlement period, by cause."""

    party: str
    period: str
    totals: tuple[Total, ...]
    lines: int

    @property
    def balance_cents(self) -> int:
        """Received minus paid."""
        return sum(total.received_cents - total.paid_cents for total in self.totals)
