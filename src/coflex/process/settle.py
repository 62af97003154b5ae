"""Settle: baseline, delivery, price, penalty by the products' rules; bookings to the cent (SET-01 to SET-06)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coflex.domain.activation import SetPoint
from coflex.domain.errors import NotReady
from coflex.domain.party import Role
from coflex.domain.statement import SettlementLine, Statement
from coflex.process.baselines import baselines
from coflex.process.day import Day, told
from coflex.process.deliveries import settlement_inputs
from coflex.process.lookups import BASELINES, EVIDENCE, SETTLEMENT
from coflex.process.ports import Store
from coflex.settlement.records import plain
from coflex.settlement.summary import settled, statements


@dataclass(frozen=True, slots=True)
class Settled:
    """Lines settled, and the day's money in cents: paid by buyers = received by providers + fees."""

    lines: int
    delivered_mwh: float
    ordered_mwh: float
    paid_cents: int
    received_cents: int
    fee_cents: int
    penalty_cents: int


def settle(day: Day, store: Store) -> Settled:
    """Settle the day by the rules of its products.

    Kept: the deliveries and rules that everything follows from, the record of each baseline, a line for each award of
    a unit, postings, statements. Raises NotReady before the day is measured, Refused where a product cannot be settled
    by its rule, Unbalanced if the postings do not add to zero.
    """
    with store.transaction() as t:
        if t.series("actual") is None:
            raise NotReady("The day is not measured yet.", "Run coflex measure first.")
        if t.document(SETTLEMENT) is not None:
            raise NotReady("The day is already settled.", "See the report with coflex report.")
        day.check_terms()
        points = t.all(SetPoint)
        made = baselines(day, t, points, log_size=(t.document(EVIDENCE) or {}).get("size", 0))
        inputs = settlement_inputs(day, t, points, made)
        rules = {rule.id: rule for rule in map(day.rule, day.plans)}
        lines, run = settled(inputs, rules)
        told_of = statements(lines, run.accounts, inputs.platform)
        t.add([*lines, *run.postings, *told_of])
        t.put_document(BASELINES, {"records": [plain(record) for _, record in sorted(made.items())]})
        documents = {name: rule.model_dump(mode="json") for name, rule in sorted(rules.items())}
        t.put_document(SETTLEMENT, {"inputs": plain(inputs), "rules": documents})
        market = day.party(Role.MARKET_OPERATOR)
        told(t, "statement", day.case.axis.end, market, [one.party for one in told_of], "delivery day")
    return _summary(lines, told_of)


def _summary(lines: Sequence[SettlementLine], statements: Sequence[Statement]) -> Settled:
    fees = sum(max(0, one.fee_cents) for one in statements)
    return Settled(
        lines=len(lines),
        delivered_mwh=float(sum(line.delivered_kwh for line in lines)) / 1000,
        ordered_mwh=float(sum(line.ordered_kwh for line in lines)) / 1000,
        paid_cents=sum(one.paid_cents for one in statements) + fees,
        received_cents=sum(one.received_cents for one in statements),
        fee_cents=fees,
        penalty_cents=sum(max(0, one.penalty_cents) for one in statements),
    )
