"""The page's part on what was ordered, delivered and paid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from coflex.domain.activation import Limitation, Replacement, SetPoint
from coflex.domain.party import Party
from coflex.domain.quantity import CENT, Direction
from coflex.domain.statement import Cause, Posting, SettlementLine, Statement
from coflex.domain.time import Axis, local_label
from coflex.domain.unit import Unit
from coflex.reporting.form import euros, number, summed
from coflex.settlement.summary import LineCents

WORST = 12
# From this many missed orders on a unit counts as failed.
OFTEN = 2


@dataclass(frozen=True, slots=True)
class Missed:
    """An order of which too little came."""

    unit: str
    start: datetime
    ordered_kw: int
    moved_kw: float


def activation_section(
    axis: Axis,
    zone: ZoneInfo,
    operators: Mapping[str, str],
    units: Mapping[str, Unit],
    points: Sequence[SetPoint],
    limits: Sequence[Limitation],
    replaced: Sequence[Replacement],
    missed: Sequence[Missed],
) -> dict[str, Any]:
    """`operators`: buyer by its short name on the page ("tso", "dso")."""
    ordered = summed(((point.buyer, point.direction, axis.position(point.start)), point.ordered_kw) for point in points)
    return {
        "ordered_kw": {
            name: {d.value: [ordered.get((buyer, d, t), 0) for t in range(len(axis))] for d in Direction}
            for name, buyer in operators.items()
        },
        "setpoints": len(points),
        "limitations": [_limitation(one, units, zone) for one in limits],
        "replacements": [_replacement(one, zone) for one in replaced],
        "missed": [
            asdict(one) | {"start": local_label(one.start, zone)}
            for one in sorted(missed, key=lambda one: (one.start, one.unit))
        ],
        "failures": _failures(missed, zone),
    }


def _limitation(one: Limitation, units: Mapping[str, Unit], zone: ZoneInfo) -> dict[str, Any]:
    return asdict(one) | {"start": local_label(one.start, zone), "provider": units[one.unit].provider}


def _replacement(one: Replacement, zone: ZoneInfo) -> dict[str, Any]:
    return {
        "start": local_label(one.start, zone),
        "unit": one.unit,
        "direction": one.direction.value,
        "quantity_kw": one.quantity_kw,
        "offer": one.offer,
        "reason": one.reason,
    }


def _failures(missed: Sequence[Missed], zone: ZoneInfo) -> list[dict[str, Any]]:
    """Units that missed orders more than once, and since when."""
    count = Counter(one.unit for one in missed)
    first: dict[str, datetime] = {}
    for one in missed:
        first[one.unit] = min(one.start, first.get(one.unit, one.start))
    return [
        {"unit": unit, "from": local_label(first[unit], zone), "orders_missed": count[unit]}
        for unit in sorted(count)
        if count[unit] >= OFTEN
    ]


# ---------------------------------------------------------------- money


@dataclass(frozen=True, slots=True)
class Balance:
    """The day's money in cents. `paid`: by buyers, fees included; `received`: by providers; penalties left out."""

    paid: int
    received: int
    fees: int

    @property
    def difference(self) -> int:
        """Zero when every cent that was paid has arrived."""
        return self.paid - self.received - self.fees


def balance(statements: Sequence[Statement]) -> Balance:
    """The day's money from the parties' statements; a fee that is negative is one received."""
    return Balance(
        sum(s.paid_cents + max(0, s.fee_cents) for s in statements),
        sum(s.received_cents for s in statements),
        -sum(min(0, s.fee_cents) for s in statements),
    )


def money_section(
    statements: Sequence[Statement],
    postings: Sequence[Posting],
    lines: Sequence[SettlementLine],
    cents: Sequence[LineCents],
    parties: Mapping[str, Party],
    units: Mapping[str, Unit],
    buyers: Mapping[str, str],
    zone: ZoneInfo,
) -> dict[str, Any]:
    """`cents[i]` belongs to `lines[i]`; `buyers`: buyer of each session, in the order of the sessions."""
    whole = balance(statements)
    return {
        "statements": [_statement(s, parties) for s in statements],
        "by_session": _by_session(postings, buyers),
        "by_provider_technology": _by_technology(lines, cents, units),
        "balance": {
            "paid": euros(whole.paid),
            "received": euros(whole.received),
            "fees": euros(whole.fees),
            "difference": euros(whole.difference),
        },
        "worst_lines": _worst_lines(lines, zone),
    }


def _statement(statement: Statement, parties: Mapping[str, Party]) -> dict[str, Any]:
    """An account that is no party is the platform's own, which keeps the fees."""
    party = parties.get(statement.party)
    return {
        "party": statement.party,
        "name": party.name if party else "Platform fees",
        "role": party.roles[0].value if party else "platform",
        "received": euros(statement.received_cents),
        "paid": euros(statement.paid_cents),
        "penalty": euros(statement.penalty_cents),
        "fee": euros(statement.fee_cents),
        "balance": euros(statement.balance_cents),
        "lines": statement.lines,
        "ordered_mwh": number(float(statement.ordered_kwh) / 1000, 6),
        "delivered_mwh": number(float(statement.delivered_kwh) / 1000, 6),
    }


def _by_session(postings: Sequence[Posting], buyers: Mapping[str, str]) -> list[dict[str, Any]]:
    """What each session's buyer pays its providers, gets back in penalties, and pays the platform."""
    mine = summed(
        ((p.session, p.cause), p.cents) for p in postings if p.session in buyers and p.account == buyers[p.session]
    )
    settled = {session for session, _ in mine}
    return [
        {
            "session": session,
            "buyer": buyer,
            "amount": euros(-mine.get((session, Cause.ACTIVATION), 0)),
            "penalty": euros(mine.get((session, Cause.PENALTY), 0)),
            "fee": euros(-mine.get((session, Cause.FEE), 0)),
        }
        for session, buyer in buyers.items()
        if session in settled
    ]


def _by_technology(
    lines: Sequence[SettlementLine], cents: Sequence[LineCents], units: Mapping[str, Unit]
) -> list[dict[str, Any]]:
    amount = summed((units[line.unit].technology, part.amount) for line, part in zip(lines, cents, strict=True))
    found = []
    for technology in sorted(amount):
        mine = [line for line in lines if units[line.unit].technology is technology]
        found.append(
            {
                "technology": technology.value,
                "amount": euros(amount[technology]),
                "ordered_mwh": number(float(sum(line.ordered_kwh for line in mine)) / 1000, 6),
                "delivered_mwh": number(float(sum(line.delivered_kwh for line in mine)) / 1000, 6),
            }
        )
    return found


def _worst_lines(lines: Sequence[SettlementLine], zone: ZoneInfo) -> list[dict[str, Any]]:
    """The lines with the largest shortfall; none of those that were delivered in full."""
    short = [line for line in lines if line.delivered_kwh < line.ordered_kwh]
    short.sort(key=lambda x: (x.delivered_kwh - x.ordered_kwh, x.start, x.unit, x.session, x.award))
    return [
        {
            "unit": line.unit,
            "start": local_label(line.start, zone),
            "provider": line.provider,
            "ordered_kwh": number(float(line.ordered_kwh), 3),
            "delivered_kwh": number(float(line.delivered_kwh), 3),
            "amount": str(line.amount_eur.quantize(CENT)),
            "penalty": str(line.penalty_eur.quantize(CENT)),
            "baseline": line.baseline_method,
            "remark": line.remark,
        }
        for line in short[:WORST]
    ]
