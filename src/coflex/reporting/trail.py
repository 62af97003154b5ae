"""The page's part on one award's whole way: offer, award, set point, acknowledgements, measurement, line, payment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from coflex.domain.activation import SetPoint
from coflex.domain.clearing import Award
from coflex.domain.offer import Offer
from coflex.domain.reading import Quality, Reading
from coflex.domain.statement import SettlementLine
from coflex.domain.time import QUARTER, local_label
from coflex.reporting.form import euros
from coflex.settlement.summary import LineCents


@dataclass(frozen=True, slots=True)
class Followed:
    """A settled award of one unit with all that led to it. `order`, `reading`: numbers of messages in the log;
    `hops`: who acknowledged the set point, and when."""

    offer: Offer
    award: Award
    point: SetPoint
    line: SettlementLine
    cents: LineCents
    reading: Reading
    order_leaf: int
    reading_leaf: int
    hops: tuple[tuple[str, datetime], ...]


def chosen(
    lines: Sequence[SettlementLine], cents: Sequence[LineCents], awards: Iterable[Award], readings: Iterable[Reading]
) -> tuple[SettlementLine, LineCents, Award] | None:
    """The line to follow: paid and unpenalised, measured, of a unit's own award; the dearest of them."""
    own = {(a.session, a.unit, a.start, a.name): a for a in awards if a.unit is not None}
    measured = {(r.unit, r.start) for r in readings if r.quality is Quality.MEASURED}
    able = [
        (line, paid, award)
        for line, paid in zip(lines, cents, strict=True)
        if paid.amount > 0 and not paid.penalty and (line.unit, line.start) in measured
        if (award := own.get((line.session, line.unit, line.start, line.award))) is not None
    ]
    return max(able, key=lambda one: (one[1].amount, one[0].start, one[0].unit), default=None)


def trail_section(followed: Followed, log: Mapping[str, Any], certificate: str, zone: ZoneInfo) -> dict[str, Any]:
    """The steps of the way with time and reference. `certificate`: the file that proves both messages."""
    return {
        "unit": followed.point.unit,
        "provider": followed.line.provider,
        "buyer": followed.line.buyer,
        "start": local_label(followed.point.start, zone),
        "steps": [
            {"step": step, "at": None if at is None else local_label(at, zone), "says": says, "where": where}
            for step, at, says, where in _steps(followed)
        ],
        "log": {name: log[name] for name in ("origin", "size", "key")},
        "certificate": certificate,
    }


def _steps(one: Followed) -> list[tuple[str, datetime | None, str, str]]:
    point, line, award = one.point, one.line, one.award
    way, ends = point.direction.value, point.start + QUARTER
    offered = f"{way}, from {award.bid_eur_mwh} EUR/MWh, by {one.offer.provider}"
    bought = f"{award.quantity_kw} kW {way} at {award.price_eur_mwh} EUR/MWh, by {award.buyer}"
    told = f"hold {point.power_kw:g} kW: {point.ordered_kw} kW {way} of the schedule of {point.baseline_kw:g} kW"
    flowed = f"{line.measured_kwh} kWh measured, baseline {line.baseline_kwh} kWh ({line.baseline_method})"
    settled = f"{line.delivered_kwh} of {line.ordered_kwh} kWh delivered, {line.paid_kwh} kWh paid: {line.remark}"
    paid = f"{euros(one.cents.amount)} EUR from {line.buyer} to {line.provider}, fee {euros(one.cents.fee)} EUR"
    return [
        ("offer", one.offer.received_at, offered, one.offer.id),
        ("award", None, bought, f"{award.session}, step {award.step}"),
        ("set point", point.start, told, f"message {one.order_leaf}"),
        *(("acknowledgement", at, f"taken by the {hop.replace('_', ' ')}", "") for hop, at in one.hops),
        ("measurement", ends, flowed, f"message {one.reading_leaf}"),
        ("settlement line", None, settled, f"{line.session}, {line.unit}, rule {line.rule}"),
        ("payment", None, paid, one.cents.booking),
    ]
