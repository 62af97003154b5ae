"""The day's deliveries as settlement takes them: what was bought and ordered of a unit, its baseline, what it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from coflex.domain.activation import Limitation, Replacement, SetPoint
from coflex.domain.clearing import Award, Status, award_name
from coflex.domain.product import PricingRule
from coflex.domain.reading import Quality, Reading
from coflex.domain.statement import Evidence
from coflex.domain.time import QUARTER
from coflex.metering.baselines.record import BaselineRecord
from coflex.metering.delivery import QUARTER_HOUR, energy_kwh
from coflex.process.baselines import Baselines
from coflex.process.day import Day
from coflex.process.lookups import EVIDENCE
from coflex.process.ports import Transaction
from coflex.process.terms import PAYERS, need_of
from coflex.settlement.inputs import Bought, Delivery, Inputs

MINUTES = QUARTER.seconds // 60


@dataclass(frozen=True, slots=True)
class _Part:
    """What a unit gives of an award."""

    award: str
    offer: str
    kw: int
    bid_eur_mwh: Decimal
    price_eur_mwh: Decimal


def settlement_inputs(day: Day, t: Transaction, points: Sequence[SetPoint], made: Baselines) -> Inputs:
    """A delivery for each set point. `made`: the baselines of all called units."""
    parts = _parts(day, t, points)
    readings = {(one.unit, one.start): one for one in t.all(Reading)}
    limited = {(one.unit, one.start) for one in t.all(Limitation)}
    log = _Log(t.document(EVIDENCE) or {})
    deliveries = []
    for point in points:
        key = point.unit, point.start
        plan = day.plan(point.session)
        record = made[point.unit, day.product(plan).id]
        one = _delivery(day, point, parts[key], record, readings[key])
        evidence = log.evidence(one, parts[key], record)
        deliveries.append(replace(one, limited=key in limited, evidence=evidence))
    return Inputs(day.case.settings.day.isoformat(), tuple(deliveries))


def _delivery(day: Day, point: SetPoint, parts: Sequence[_Part], record: BaselineRecord, reading: Reading) -> Delivery:
    plan = day.plan(point.session)
    at = day.case.axis.position(point.start)
    return Delivery(
        id=f"{point.unit} {point.start:%Y-%m-%dT%H:%MZ}",
        rule=day.rule(plan).id,
        unit=point.unit,
        provider=day.unit_by_id[point.unit].provider,
        buyer=point.buyer,
        session=point.session,
        need=need_of(plan),
        start=point.start,
        minutes=MINUTES,
        direction=point.direction,
        ordered_kwh=point.ordered_kw * QUARTER_HOUR,
        bought=tuple(_bought(one, PricingRule(plan.session.pricing)) for one in parts),
        baseline_method=f"{record.method}@{record.version}",
        baseline_kwh=energy_kwh(record.values_kw[at]) if record.values_kw else None,
        measured_kwh=None if reading.quality is Quality.MISSING else energy_kwh(reading.power_kw),
        quality=reading.quality,
        roles={PAYERS[plan.session.buyers[0].role]: point.buyer},
    )


def _bought(one: _Part, pricing: PricingRule) -> Bought:
    """A part with its offer's own price, and the one that the session made where that is another."""
    cleared = None if pricing in (PricingRule.PAY_AS_BID, PricingRule.NODAL) else one.price_eur_mwh
    nodal = one.price_eur_mwh if pricing is PricingRule.NODAL else None
    return Bought(one.award, one.kw * QUARTER_HOUR, one.bid_eur_mwh, cleared, nodal)


class _Log:
    """The log of the day's messages, as far as one was kept: it names what deliveries rest on."""

    def __init__(self, kept: Mapping[str, Any]) -> None:
        self._origin, self._size = kept.get("origin", ""), kept.get("size", 0)
        self._orders = {(one["unit"], one["start"]): one["leaf"] for one in kept.get("orders", ())}

    def evidence(self, one: Delivery, parts: Sequence[_Part], record: BaselineRecord) -> Evidence:
        leaf = self._orders.get((one.unit, one.start.isoformat()))
        return Evidence(
            offer=", ".join(sorted({part.offer for part in parts})),
            set_point=one.id if leaf is None else f"message {leaf}",
            baseline=f"{record.unit}, {record.day}, {record.method}@{record.version} {record.fingerprint[:12]}",
            measurements=self._origin,
            log_size=self._size,
        )


# ---------------------------------------------------------------- what was bought of each unit


def _parts(day: Day, t: Transaction, points: Sequence[SetPoint]) -> dict[tuple[str, datetime], tuple[_Part, ...]]:
    """What was bought of each unit at which price. A group's award is laid on its units in the order of their ids,
    the cheapest price first."""
    replaced = {(one.unit, one.start): one for one in t.all(Replacement)}
    stock: dict[tuple[str, str, datetime], list[_Part]] = {}
    for award in sorted(t.all(Award, status=Status.DEFINITIVE), key=_by_price):
        stock.setdefault((award.session, award.unit or award.group or "", award.start), []).append(_part(award))
    group_of = {(g.scope, unit): g.id for g in day.case.groups for unit in g.units}
    found: dict[tuple[str, datetime], tuple[_Part, ...]] = {}
    for point in sorted(points, key=lambda p: (p.start, p.unit)):
        key = point.unit, point.start
        if key in replaced:
            found[key] = (_called(replaced[key], point),)
            continue
        scope = day.plan(point.session).scope
        for seller in (point.unit, group_of.get((scope, point.unit), "")):
            pile = stock.get((point.session, seller, point.start))
            if pile:
                found[key] = _draw(pile, point.awarded_kw)
                break
    return found


def _by_price(award: Award) -> tuple[Decimal, str, int]:
    return award.price_eur_mwh, award.offer, award.step


def _part(award: Award) -> _Part:
    return _Part(award.name, award.offer, award.quantity_kw, award.bid_eur_mwh, award.price_eur_mwh)


def _called(one: Replacement, point: SetPoint) -> _Part:
    """What the system operator called in place of what was lost: it is paid its offer's own price."""
    name = award_name(one.offer, one.step)
    return _Part(name, one.offer, point.awarded_kw, one.price_eur_mwh, one.price_eur_mwh)


def _draw(pile: list[_Part], kw: int) -> tuple[_Part, ...]:
    """Take kW off the top of a pile (in place)."""
    drawn = []
    while kw:
        top = pile[0]
        share = min(kw, top.kw)
        drawn.append(replace(top, kw=share))
        kw -= share
        pile[0:1] = [replace(top, kw=top.kw - share)] if share < top.kw else []
    return tuple(drawn)
