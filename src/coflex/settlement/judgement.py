"""The judgement on a delivery: what was delivered, what of it is paid, what is missing beyond the tolerance, and why.

Quantities are kWh (of a reactive product kvarh), unsigned in the direction of the order.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal

from coflex.settlement.penalty import deficiency_kwh, surplus_kwh
from coflex.settlement.rules import Response, SettlementRule

ZERO = Decimal(0)
NO_READING = "no reading: nothing paid, nothing penalised until one arrives"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The judgement on a whole order. `deficient` and `surplus`: what is punished, beyond the tolerance."""

    delivered: Decimal
    paid: Decimal
    deficient: Decimal
    remark: str
    surplus: Decimal = ZERO


def limited_prefix(awarded: Decimal | int, ordered: Decimal | int, unit: str) -> str:
    """What a remark says first when the operator took part of an order back."""
    return f"limited by the system operator from {awarded} to {ordered} {unit}, no penalty for the limited part; "


def judge(rule: SettlementRule, ordered: Decimal, response: Decimal | None, prefix: str = "") -> Outcome:
    """Judge an order by its response.

    response: signed, positive in the direction of the order; None: no reading came, and none could be estimated.
    """
    if response is None:
        return Outcome(ZERO, ZERO, ZERO, prefix + NO_READING)
    if not ordered:
        return Outcome(ZERO, ZERO, ZERO, prefix + "nothing ordered")
    delivered = max(ZERO, response)
    deficient = deficiency_kwh(rule, ordered, response)
    surplus = surplus_kwh(rule, ordered, response)
    as_ordered = rule.response == Response.REQUESTED and not deficient
    paid = ordered if as_ordered else rule.paid_kwh(ordered, delivered)
    return Outcome(delivered, paid, deficient, prefix + _remark(rule, ordered, response, deficient, surplus), surplus)


def _remark(rule: SettlementRule, ordered: Decimal, response: Decimal, deficient: Decimal, surplus: Decimal) -> str:
    """The judgement in words."""
    share = percent(response, ordered)
    said = f"delivered {share} % of the order"
    if response == ordered:
        return "delivered as ordered"
    if response > ordered:
        return f"{said}; {_above(rule, ordered, response, surplus)}"
    if response < 0:
        said = "moved against the order"
    short = f"{100 - max(ZERO, share)} % short"
    if deficient:
        beyond = f" beyond the tolerance of {percent(rule.tolerance, Decimal(1))} %" if rule.tolerance else ""
        charged = "penalised" if rule.penalty_share or rule.penalty_eur_mwh else "not paid"
        return f"{said}; {short}, {charged}{beyond}"
    inside = "paid as ordered" if rule.response == Response.REQUESTED else "not penalised"
    return f"{said}; {short}, inside the tolerance of {percent(rule.tolerance, Decimal(1))} %, {inside}"


def _above(rule: SettlementRule, ordered: Decimal, response: Decimal, surplus: Decimal) -> str:
    """What is said of a delivery beyond the order."""
    if rule.response == Response.REQUESTED:
        said = "paid as ordered"
    elif rule.paid_kwh(ordered, response) > ordered:
        said = "the surplus is paid up to the cap"
    else:
        said = "the surplus is not paid"
    return said + ", and penalised beyond the tolerance" if surplus else said


def percent(part: Decimal, whole: Decimal) -> Decimal:
    """A share in percent with one decimal at most, cut off so that 99.96 never reads as all."""
    share = (100 * part / whole).quantize(Decimal("0.1"), ROUND_DOWN)
    return share.to_integral_value() if share == share.to_integral_value() else share
