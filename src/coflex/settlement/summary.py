"""What a settled period came to: a line for each award and interval, with its cents, and a statement for each party.

Charges and books are made for two parties and a cause at a time. A summary lays them together again, for people: of
each award what was ordered, delivered and paid, and of each party what it received and bears. It adds nothing and
rounds nothing; settled energy alone is in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext

from coflex.domain.statement import Account, Cause, Charge, SettlementLine, Statement, Total
from coflex.settlement.books import Run, book
from coflex.settlement.charges import EXACT, judged, settle, steps
from coflex.settlement.document import Rule
from coflex.settlement.inputs import ZERO, Inputs

Key = tuple[str, str, str, str]
"""Unit, start, session and award."""


@dataclass(frozen=True, slots=True)
class LineCents:
    """The cents of a settlement line. `amount`: buyer to provider (negative: the reverse), in the booking `booking`.
    `penalty`: provider to buyer. `fee`: to the platform."""

    booking: str
    amount: int
    penalty: int
    fee: int


def settled(inputs: Inputs, rules: Mapping[str, Rule]) -> tuple[tuple[SettlementLine, ...], Run]:
    """The lines and the books of a period, settled for the first time: the same from the same, whoever asks.

    Raises Refused with every fault of the inputs.
    """
    charges = settle(inputs, rules)
    with localcontext(EXACT):
        return settlement_lines(inputs, rules, charges), book(charges, inputs.period)


def settlement_lines(
    inputs: Inputs, rules: Mapping[str, Rule], charges: Iterable[Charge]
) -> tuple[SettlementLine, ...]:
    """One line for each award of each delivery, by start, unit and session, its awards in the order of their prices.

    charges: all that `charges.settle` made of the inputs. Guarantee: ordered, delivered and paid energies of a
    delivery's lines add to the delivery's, and their amounts and penalties to its charges.
    """
    sums: dict[tuple[Key, Cause], Decimal] = defaultdict(Decimal)
    for charge in charges:
        sums[_key(charge), charge.cause] += charge.amount_eur
    lines = []
    for one in sorted(inputs.deliveries, key=lambda one: (one.start, one.unit, one.session)):
        rule = rules[one.rule]
        outcome = judged(one, rule)
        for step in steps(one, rule, outcome):
            key = one.unit, one.start.isoformat(), one.session, step.bought.award
            lines.append(
                SettlementLine(
                    unit=one.unit,
                    start=one.start,
                    session=one.session,
                    award=step.bought.award,
                    buyer=one.buyer,
                    provider=one.provider,
                    direction=one.direction,
                    ordered_kwh=step.ordered,
                    baseline_method=one.baseline_method,
                    baseline_kwh=one.baseline_kwh,
                    measured_kwh=one.measured_kwh,
                    delivered_kwh=step.delivered,
                    paid_kwh=_short(step.paid),
                    price_eur_mwh=step.price,
                    amount_eur=_short(sums[key, Cause.ACTIVATION]),
                    penalty_eur=_short(-sums[key, Cause.PENALTY]),
                    rule=rule.name,
                    remark=outcome.remark,
                )
            )
    return tuple(lines)


def line_cents(lines: Sequence[SettlementLine], run: Run) -> tuple[LineCents, ...]:
    """The cents of each line, in the order of the lines: those of its charges in the run."""
    cents: dict[tuple[Key, Cause], int] = defaultdict(int)
    booking: dict[Key, str] = {}
    for booked in run.lines:
        key = _key(booked.charge)
        cents[key, booked.charge.cause] += booked.cents
        if booked.charge.cause is Cause.ACTIVATION:
            booking[key] = booked.booking
    keys = [(line.unit, line.start.isoformat(), line.session, line.award) for line in lines]
    return tuple(
        LineCents(booking[key], cents[key, Cause.ACTIVATION], -cents[key, Cause.PENALTY], cents[key, Cause.FEE])
        for key in keys
    )


def statements(
    lines: Iterable[SettlementLine], accounts: Iterable[Account], platform: str = "platform"
) -> tuple[Statement, ...]:
    """One statement a party, by name, its money from its account alone.

    Penalties and fees are what the party bears: negative for the one who receives them. The platform's statement
    counts every line.
    """
    mine: dict[str, list[SettlementLine]] = defaultdict(list)
    for line in lines:
        for party in {line.buyer, line.provider, platform}:
            mine[party].append(line)
    held = {account.party: account.totals for account in accounts}
    with localcontext(EXACT):
        return tuple(_statement(party, held.get(party, ()), mine[party]) for party in sorted({*held, *mine}))


def _statement(party: str, totals: Sequence[Total], lines: Sequence[SettlementLine]) -> Statement:
    money = {cause: Total(cause, 0, 0) for cause in Cause} | {total.cause: total for total in totals}
    paid, penalty, fee = (money[cause] for cause in (Cause.ACTIVATION, Cause.PENALTY, Cause.FEE))
    return Statement(
        party=party,
        received_cents=paid.received_cents,
        paid_cents=paid.paid_cents,
        penalty_cents=penalty.paid_cents - penalty.received_cents,
        fee_cents=fee.paid_cents - fee.received_cents,
        lines=len(lines),
        ordered_kwh=sum((line.ordered_kwh for line in lines), ZERO),
        delivered_kwh=sum((line.delivered_kwh for line in lines), ZERO),
    )


def _short(number: Decimal) -> Decimal:
    """The same number without zeros at its end: rounding to a grain leaves them."""
    return Decimal(f"{number.normalize():f}")


def _key(charge: Charge) -> Key:
    return charge.unit, charge.start.isoformat(), charge.session, charge.evidence.award
