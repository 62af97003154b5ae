"""Penalties: by how much an order was missed beyond the tolerance, and what that costs the provider."""

from __future__ import annotations

from decimal import Decimal

from coflex.settlement.rules import SettlementRule


def deficiency_kwh(rule: SettlementRule, ordered_kwh: Decimal, response_kwh: Decimal) -> Decimal:
    """Shortfall beyond the tolerance, never below zero.

    response_kwh: signed, positive in the direction of the order; below zero it counts as nothing delivered, unless
    the rule says that a move against the order adds to the shortfall.
    """
    counted = response_kwh if rule.opposite_counts else max(Decimal(0), response_kwh)
    return max(Decimal(0), ordered_kwh * (1 - rule.tolerance) - counted)


def surplus_kwh(rule: SettlementRule, ordered_kwh: Decimal, response_kwh: Decimal) -> Decimal:
    """Delivery beyond the order and the tolerance, where the rule punishes it; zero otherwise."""
    if not rule.two_sided:
        return Decimal(0)
    return max(Decimal(0), response_kwh - ordered_kwh * (1 + rule.tolerance))


def penalty_eur(rule: SettlementRule, price_eur_mwh: Decimal, deficient_kwh: Decimal) -> Decimal:
    """What the provider owes for a deficiency, exact and never negative, whatever the sign of the price."""
    rate = rule.penalty_share * abs(price_eur_mwh) if rule.penalty_eur_mwh is None else rule.penalty_eur_mwh
    return rate * deficient_kwh / 1000
