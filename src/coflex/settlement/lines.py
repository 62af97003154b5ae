"""Settlement lines: one award, one unit, one quarter-hour; exact, with the reason in words.

The delivery of a unit is judged once against its whole order; the outcome is then laid on the price steps that
were bought of it: the cheapest are ordered, delivered and paid first, the dearest are the ones that were missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from coflex.domain.activation import SetPoint
from coflex.domain.errors import CoflexError
from coflex.domain.reading import Quality
from coflex.domain.statement import SettlementLine
from coflex.settlement.allocation import fill
from coflex.settlement.judgement import Outcome, judge, limited_prefix
from coflex.settlement.penalty import penalty_eur
from coflex.settlement.rules import SettlementRule

QUARTER_HOUR = Decimal("0.25")


@dataclass(frozen=True, slots=True)
class Step:
    """The unit's part of one award: what was bought at one price, whole kW."""

    awarded_kw: int
    price_eur_mwh: Decimal


@dataclass(frozen=True, slots=True)
class Metered:
    """Baseline and measurement of the unit in the quarter-hour: kWh, signed, injection positive, to 0.001 kWh.

    `quality` missing: no reading came, and none could be estimated; nothing is paid and nothing penalised.
    """

    baseline_method: str
    baseline_kwh: Decimal
    measured_kwh: Decimal
    quality: Quality = Quality.MEASURED


def settle_line(
    point: SetPoint,
    provider: str,
    price_eur_mwh: Decimal,
    metered: Metered,
    rule: SettlementRule,
    limited: bool = False,
) -> SettlementLine:
    """`settle` for a set point that was bought at one price."""
    return settle(point, provider, (Step(point.awarded_kw, price_eur_mwh),), metered, rule, limited)[0]


def settle(
    point: SetPoint,
    provider: str,
    steps: Sequence[Step],
    metered: Metered,
    rule: SettlementRule,
    limited: bool = False,
) -> tuple[SettlementLine, ...]:
    """Settle a unit's set point over the price steps bought of it: one line a step, by ascending price.

        amount  = price x paid / 1000          (negative where the price is: the provider owes the buyer)
        penalty = penalty price x deficiency / 1000

    Only what stood as ordered is due; `limited`: the operator took the rest back, and the remark says so.
    Guarantees: the lines' ordered, delivered and paid energies add to those of the set point; all exact.
    Raises CoflexError when the steps do not add to the award or the order exceeds it.
    """
    _check_fit(point, steps)
    bought = sorted(steps, key=lambda step: (step.price_eur_mwh, step.awarded_kw))
    ordered_kw = fill(Decimal(point.ordered_kw), [Decimal(step.awarded_kw) for step in bought])
    ordered = [power * QUARTER_HOUR for power in ordered_kw]
    outcome = _judge(point, metered, rule, limited)
    delivered = fill(outcome.delivered, ordered)
    paid = fill(outcome.paid, ordered)
    deficient = fill(outcome.deficient + outcome.surplus, ordered[::-1])[::-1]
    return tuple(
        SettlementLine(
            unit=point.unit,
            start=point.start,
            session=point.session,
            buyer=point.buyer,
            provider=provider,
            direction=point.direction,
            ordered_kwh=ordered[i],
            baseline_method=metered.baseline_method,
            baseline_kwh=metered.baseline_kwh,
            measured_kwh=metered.measured_kwh,
            delivered_kwh=delivered[i],
            paid_kwh=paid[i],
            price_eur_mwh=step.price_eur_mwh,
            amount_eur=step.price_eur_mwh * paid[i] / 1000,
            penalty_eur=penalty_eur(rule, step.price_eur_mwh, deficient[i]),
            remark=outcome.remark,
        )
        for i, step in enumerate(bought)
    )


def _check_fit(point: SetPoint, steps: Sequence[Step]) -> None:
    """Raise CoflexError when the steps are not the award, or the order is more than it."""
    awards = [step.awarded_kw for step in steps]
    if not awards or min(awards) < 0 or sum(awards) != point.awarded_kw or not 0 <= point.ordered_kw <= sum(awards):
        raise CoflexError(
            f"The order of {point.unit} at {point.start.isoformat()} does not fit its awards.",
            "The steps must add to the award, and the order must lie between zero and the award.",
        )


def _judge(point: SetPoint, metered: Metered, rule: SettlementRule, limited: bool) -> Outcome:
    """What of the whole order was delivered, is paid and is missing beyond the tolerance, and why."""
    prefix = limited_prefix(point.awarded_kw, point.ordered_kw, "kW") if limited else ""
    response = None
    if metered.quality is not Quality.MISSING:
        response = point.direction.sign * (metered.measured_kwh - metered.baseline_kwh)
    return judge(rule, point.ordered_kw * QUARTER_HOUR, response, prefix)
