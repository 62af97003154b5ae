"""Settlement: what was metered, by which rules it is paid, runs, statements, invoices, disputes (SET-01 to SET-06).

Energies in kWh, exact decimals, signed with injection positive; money in whole cents. Nothing is written over: a
correction is another version of its record, and another run that posts the difference.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import TypeVar

import msgspec

from coflex.domain.reading import Quality
from coflex.domain.statement import Charge, Line, Total
from coflex.register.packing import canonical, deflated, inflated
from coflex.settlement.dispute import State as DisputeState
from coflex.settlement.document import Payer
from coflex.settlement.inputs import Inputs, Purchase
from coflex.settlement.invoice import Details, Invoice, Kind, Position, Tax

T = TypeVar("T")


# ---------------------------------------------------------------- what was metered


@dataclass(frozen=True, slots=True)
class Quantity:
    """What a unit moved in the quarter-hour from `start`; `kwh` None where nothing is known of it.

    `leaf`: place in the log of measurements of the last message that counts, None where none does. `log_size`: how many
    entries the log held when it was computed. `version`: 1, and one more with every correction.
    """

    start: datetime
    kwh: Decimal | None
    quality: Quality
    leaf: int | None
    log_size: int
    version: int = 1


@dataclass(frozen=True, slots=True)
class MeteredDay:
    """The metered quantities of a unit in the quarter-hours of a local day in which something was ordered of it.

    `id` as "UNIT-1@2026-07-05". `owners`, `providers`: those of the unit's set points of the day. `log`: origin of the
    log that proves the readings. `quantities`: in the order of time, one a quarter-hour at most.
    """

    id: str
    unit: str
    day: date
    owners: tuple[str, ...]
    providers: tuple[str, ...]
    log: str
    quantities: tuple[Quantity, ...]

    def at(self, start: datetime) -> Quantity | None:
        return next((one for one in self.quantities if one.start == start), None)


@dataclass(frozen=True, slots=True)
class BaselineDay:
    """The baseline of a unit on a local day, `id` as of its metered quantities.

    `method`, `method_version`, `fingerprint`: its document. `record`: SHA-256, hexadecimal, of the record that proves
    it (`metering.baselines.record`). `kwh`: of each quarter-hour from `start` on; empty where there were not enough
    readings, and `note` says so. `log_size`: its readings are those of the log's first so many entries.
    """

    id: str
    unit: str
    day: date
    owners: tuple[str, ...]
    providers: tuple[str, ...]
    method: str
    method_version: int
    fingerprint: str
    record: str
    start: datetime
    kwh: tuple[Decimal, ...]
    log_size: int
    note: str = ""
    version: int = 1


@dataclass(frozen=True, slots=True)
class Readiness:
    """The share of the quarter-hour from `start` in which capacity was ready, 0 to 1; `log_size`, `version` as of a
    `Quantity`."""

    start: datetime
    share: Decimal
    log_size: int
    version: int = 1


@dataclass(frozen=True, slots=True)
class ReadyDay:
    """How ready a group or unit, the `band`, held its capacity on a delivery day; `id` as "GROUP-1@2026-07-05". `log`:
    origin of the log that proves it."""

    id: str
    band: str
    day: date
    provider: str
    log: str
    shares: tuple[Readiness, ...]

    def at(self, start: datetime) -> Readiness | None:
        return next((one for one in self.shares if one.start == start), None)


def day_id(unit: str, day: date) -> str:
    """Id of what was metered of a unit on a local day, of its baseline, and of how ready a band was."""
    return f"{unit}@{day.isoformat()}"


# ---------------------------------------------------------------- by which rules, and who is billed


@dataclass(frozen=True, slots=True)
class Terms:
    """How a product is settled from a delivery day on: the document of its rule, and the baseline methods to try, the
    first one first."""

    from_day: date
    rule: str
    document: str
    methods: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SettlementTerms:
    """The terms of a product, `id` of both, in the order of time; before the first ones the catalogue says how."""

    id: str
    terms: tuple[Terms, ...]


@dataclass(frozen=True, slots=True)
class BillingDetails:
    """A party as its invoices name it; `id` of both."""

    id: str
    details: Details


@dataclass(frozen=True, slots=True)
class OwnerContract:
    """What a provider pays on to the owner of a unit, in periods that lie wholly from `from_day` to `until_day` (None:
    no end yet); see `coflex.settlement.inputs.Contract`. The provider offers it, `agreed` since the owner did."""

    id: str
    unit: str
    provider: str
    owner: str
    share: Decimal
    eur_mwh: Decimal
    penalty_share: Decimal
    from_day: date
    until_day: date | None = None
    agreed: datetime | None = None

    def covers(self, first: date, last: date) -> bool:
        """Whether it counts for a period."""
        ends = self.until_day is None or last <= self.until_day
        return self.agreed is not None and self.from_day <= first and ends

    def meets(self, other: OwnerContract) -> bool:
        """Whether some day is in both, of one unit and provider."""
        same = (self.unit, self.provider) == (other.unit, other.provider)
        begins = max(self.from_day, other.from_day)
        return same and all(one.until_day is None or begins <= one.until_day for one in (self, other))


# ---------------------------------------------------------------- who pays together


@dataclass(frozen=True, slots=True)
class Sharer:
    """Who pays a part of a purchase, as what (`dso`, `tso` or `brp`), and what it needed of it, in any unit that is the
    same for all. `agreed`: since when it agrees."""

    role: Payer
    party: str
    need: Decimal
    agreed: datetime | None = None


@dataclass(frozen=True, slots=True)
class CostAlone:
    """What a sharer, or a group of them as "dso+tso", would have paid alone."""

    group: str
    eur: Decimal


@dataclass(frozen=True, slots=True)
class SharedPurchase:
    """What a session bought for a delivery day and several pay together; it counts once all of them agreed. `buyer`:
    for whom the session bought, and who offers to share. `costs`: for rules that share by the Shapley value. `ended`:
    taken back, or declined, before all agreed."""

    id: str
    session: str
    day: date
    buyer: str
    sharers: tuple[Sharer, ...]
    costs: tuple[CostAlone, ...] = ()
    ended: datetime | None = None

    @property
    def agreed(self) -> bool:
        return self.ended is None and all(one.agreed is not None for one in self.sharers)

    @property
    def roles(self) -> dict[Payer, str]:
        """Who plays which part."""
        return {one.role: one.party for one in self.sharers}

    def purchase(self) -> Purchase:
        """As it is settled."""
        needs = {one.role: one.need for one in self.sharers}
        return Purchase(self.id, needs, {one.group: one.eur for one in self.costs})


# ---------------------------------------------------------------- runs


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A set point, an order without any, or capacity that a run did not settle, and why."""

    set_point: str
    reason: str


@dataclass(frozen=True, slots=True)
class SettlementRun:
    """A run over a period; `id` as "2026-07.1": the period and its number there, from 1.

    `period`: a month "2026-07" or a day "2026-07-05", its local days from `first_day` to `last_day`. `inputs`: SHA-256,
    hexadecimal, of the inputs and rules that it kept. `unmetered`: deliveries of which a reading or a baseline is
    missing; nothing is paid for them until it is there. `corrected`: lines that correct earlier ones. Paid = received +
    fees + rounding, in cents. `dispute`: whose decision it posts. `billed`: the date of its invoices.
    """

    id: str
    period: str
    number: int
    first_day: date
    last_day: date
    at: datetime
    by: str
    reason: str
    inputs: str
    deliveries: int
    unmetered: int
    lines: int
    corrected: int
    paid_cents: int
    received_cents: int
    fee_cents: int
    rounding_cents: int
    left_out: tuple[LeftOut, ...] = ()
    dispute: str = ""
    billed: date | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """What a run, a statement or an invoice holds too much of for its record; `id` is that one's, of an invoice with
    "invoice " before it. All of it packed:
    `inputs` and `rules` of a run, `lines` of a run or a statement, `invoice` with every line of an invoice."""

    id: str
    inputs: str = ""
    rules: str = ""
    lines: str = ""
    invoice: str = ""


@dataclass(frozen=True, slots=True)
class StatementEntry:
    """What one party pays and receives by a run; `id` is the run's with the party behind it. `balance_cents`: received
    less paid."""

    id: str
    run: str
    period: str
    party: str
    at: datetime
    totals: tuple[Total, ...]
    balance_cents: int
    lines: int


# ---------------------------------------------------------------- invoices and disputes


@dataclass(frozen=True, slots=True)
class InvoiceEntry:
    """An invoice or credit note, `id` its number; those of a seller follow each other without a gap. Cents as the
    document counts. `corrects`: the invoices that it corrects. All of it is kept under its id."""

    id: str
    run: str
    period: str
    kind: Kind
    seller: str
    customer: str
    issued: date
    due: date
    positions: tuple[Position, ...]
    net_cents: int
    tax: Tax
    tax_cents: int
    gross_cents: int
    corrects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DisputeStep:
    """A state of a dispute, the instant from which it holds, the party that brought it about, and why."""

    state: DisputeState
    at: datetime
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class InputChange:
    """An input that a decision changes; see `coflex.settlement.dispute.Change`. `value` None: it is not known."""

    field: str
    value: str | None
    source: str


@dataclass(frozen=True, slots=True)
class DisputeEntry:
    """A contested line of a period. `line`: the id under which all runs know its charge. `old`, `new`: what the
    two parties of the line settle of its delivery before and after the decision; `posted`: the run that posts the
    difference."""

    id: str
    period: str
    line: str
    party: str
    seller: str
    customer: str
    state: DisputeState
    steps: tuple[DisputeStep, ...]
    changes: tuple[InputChange, ...] = ()
    old: tuple[Charge, ...] = ()
    new: tuple[Charge, ...] = ()
    posted: str = ""


# ---------------------------------------------------------------- packed


def packed(value: Inputs | Invoice | Iterable[Line] | dict[str, str]) -> str:
    return deflated(canonical(value))


def unpacked(text: str, kind: type[T]) -> T:
    return msgspec.json.decode(inflated(text), type=kind)


def lines_in(kept: Kept | None) -> tuple[Line, ...]:
    """Lines of a run or a statement, in its order; none where nothing is kept."""
    return unpacked(kept.lines, tuple[Line, ...]) if kept is not None and kept.lines else ()


RECORDS: dict[str, type[object]] = {
    "metered_day": MeteredDay,
    "baseline_day": BaselineDay,
    "ready_day": ReadyDay,
    "settlement_terms": SettlementTerms,
    "billing_details": BillingDetails,
    "owner_contract": OwnerContract,
    "shared_purchase": SharedPurchase,
    "settlement_run": SettlementRun,
    "settlement_kept": Kept,
    "statement": StatementEntry,
    "invoice": InvoiceEntry,
    "dispute": DisputeEntry,
}
