"""Settle: baseline, delivery, price, penalty; lines to the watt-hour, bookings to the cent (SET-01 to SET-06)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import numpy as np

from coflex.domain.activation import Limitation, Replacement, SetPoint
from coflex.domain.clearing import Award, Status
from coflex.domain.errors import NotReady
from coflex.domain.party import Role
from coflex.domain.quantity import Floats
from coflex.domain.reading import Reading
from coflex.domain.statement import Posting, SettlementLine, Statement
from coflex.domain.unit import Technology
from coflex.metering.baselines import Adjust, Pick, SameDay, XofY, align_history, eligible_days, x_of_y
from coflex.metering.delivery import energy_kwh
from coflex.process.day import Day, history_days, told
from coflex.process.ports import Store, Transaction
from coflex.settlement.lines import Metered, Step
from coflex.settlement.lines import settle as settle_point
from coflex.settlement.rules import rule_of
from coflex.settlement.statement import book, check_balance

# Loads are measured against what they used on similar days; everything else against its nominated schedule.
BY_HISTORY = (Technology.HEAT_PUMP, Technology.EV_CHARGING, Technology.WATER_PUMP, Technology.INDUSTRIAL_LOAD)
HIGH_5_OF_10 = XofY(5, 10, Pick.HIGH, SameDay(Adjust.ADDITIVE))
NOMINATED = "nominated schedule"
HISTORY_DAYS = 45


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
    """Settle the day. Raises NotReady before it is measured, Unbalanced if the postings do not add to zero."""
    with store.transaction() as t:
        if t.series("actual") is None:
            raise NotReady("The day is not measured yet.", "Run coflex measure first.")
        if t.document("settlement") is not None:
            raise NotReady("The day is already settled.", "See the report with coflex report.")
        lines = _lines(day, t)
        settlement = book(lines, day.case.settings.fee_share)
        check_balance(settlement.postings)
        t.add([*lines, *settlement.postings, *settlement.statements])
        summary = _summary(lines, settlement.postings, settlement.statements)
        t.put_document("settlement", {"lines": len(lines), "fee_share": str(day.case.settings.fee_share)})
        market = day.party(Role.MARKET_OPERATOR)
        told(t, "statement", day.case.axis.end, market, [s.party for s in settlement.statements], "delivery day")
    return summary


def _lines(day: Day, t: Transaction) -> list[SettlementLine]:
    points = t.all(SetPoint)
    steps = _steps(day, t, points)
    baselines = _baselines(day, t, points)
    readings = {(r.unit, r.start): r for r in t.all(Reading)}
    limited = {(limit.unit, limit.start) for limit in t.all(Limitation)}
    rules = {plan.id: rule_of(day.product(plan)) for plan in day.plans}
    axis = day.case.axis
    lines: list[SettlementLine] = []
    for point in points:
        key = point.unit, point.start
        method, baseline = baselines[point.unit]
        reading = readings[key]
        metered = Metered(
            method,
            energy_kwh(float(baseline[axis.position(point.start)])),
            energy_kwh(reading.power_kw),
            reading.quality,
        )
        provider = day.unit_by_id[point.unit].provider
        lines += settle_point(point, provider, steps[key], metered, rules[point.session], key in limited)
    return lines


def _steps(day: Day, t: Transaction, points: Sequence[SetPoint]) -> dict[tuple[str, datetime], tuple[Step, ...]]:
    """What was bought of each unit at which price. A group's award is laid on its units in the order of their ids,
    the cheapest price first."""
    awards = t.all(Award, status=Status.DEFINITIVE)
    replaced = {(one.unit, one.start): one for one in t.all(Replacement)}
    bought: dict[tuple[str, str, datetime], list[Award]] = {}
    for award in awards:
        bought.setdefault((award.session, award.unit or award.group or "", award.start), []).append(award)
    stock = {key: _cheapest_first(many) for key, many in bought.items()}
    group_of = {(g.scope, unit): g.id for g in day.case.groups for unit in g.units}
    found: dict[tuple[str, datetime], tuple[Step, ...]] = {}
    for point in sorted(points, key=lambda p: (p.start, p.unit)):
        key = point.unit, point.start
        if key in replaced:
            found[key] = (Step(point.awarded_kw, replaced[key].price_eur_mwh),)
            continue
        scope = day.plan(point.session).scope
        for seller in (point.unit, group_of.get((scope, point.unit), "")):
            pile = stock.get((point.session, seller, point.start))
            if pile:
                found[key] = _draw(pile, point.awarded_kw)
                break
    return found


def _cheapest_first(awards: Sequence[Award]) -> list[Step]:
    ranked = sorted(awards, key=lambda a: (a.price_eur_mwh, a.offer, a.step))
    return [Step(award.quantity_kw, award.price_eur_mwh) for award in ranked]


def _draw(pile: list[Step], kw: int) -> tuple[Step, ...]:
    """Take kW off the top of a pile of steps (in place); what has the same price is one step."""
    drawn: dict[Decimal, int] = {}
    while kw:
        top = pile[0]
        share = min(kw, top.awarded_kw)
        drawn[top.price_eur_mwh] = drawn.get(top.price_eur_mwh, 0) + share
        kw -= share
        pile[0:1] = [Step(top.awarded_kw - share, top.price_eur_mwh)] if share < top.awarded_kw else []
    return tuple(Step(share, price) for price, share in drawn.items())


def _baselines(day: Day, t: Transaction, points: Sequence[SetPoint]) -> dict[str, tuple[str, Floats]]:
    """Method and baseline (kW per quarter-hour of the day) of every called unit."""
    nominated = day.firm(t, "nomination")
    called = sorted({point.unit for point in points})
    found = {unit: (NOMINATED, nominated.row(unit)) for unit in called}
    loads = [unit for unit in called if day.unit_by_id[unit].technology in BY_HISTORY]
    axes = history_days(day, HISTORY_DAYS)
    if not loads or not axes:
        return found
    axis, zone = day.case.axis, day.case.zone
    past = day.unit_kw(day.truth(day.case.profiles.axis.window(axes[0].start, axes[-1].end)))
    dates = [one.start.astimezone(zone).date() for one in axes]
    eligible = eligible_days(dates, day.case.settings.day, ())
    actual = t.series("actual")
    assert actual is not None  # written with the readings
    for unit in loads:
        mine = [point for point in points if point.unit == unit]
        event = np.zeros(len(axis), dtype=np.bool_)
        event[[axis.position(point.start) for point in mine]] = True
        notice = (day.plan(mine[0].session).closes - axis.start) // axis.step
        history = align_history(past, unit, axes, axis, zone)
        made = x_of_y(history, eligible, event, actual.row(unit), notice, HIGH_5_OF_10)
        if made.enough:
            found[unit] = (made.method, made.values)
    return found


def _summary(lines: Sequence[SettlementLine], postings: Sequence[Posting], statements: Sequence[Statement]) -> Settled:
    fees = sum(p.cents for p in postings if p.account == "platform")
    return Settled(
        lines=len(lines),
        delivered_mwh=float(sum(line.delivered_kwh for line in lines)) / 1000,
        ordered_mwh=float(sum(line.ordered_kwh for line in lines)) / 1000,
        paid_cents=sum(s.paid_cents for s in statements) + fees,
        received_cents=sum(s.received_cents for s in statements),
        fee_cents=fees,
        penalty_cents=sum(max(0, s.penalty_cents) for s in statements),
    )
