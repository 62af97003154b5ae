"""The terms on which a session's product is sold: its settlement rule, and why a rule cannot settle what is sold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal

from coflex.domain.errors import Finding
from coflex.domain.party import Role
from coflex.domain.product import PricingRule, Product
from coflex.domain.unit import Scope
from coflex.market.design import SessionPlan
from coflex.settlement.document import By, Need, Payer, PenaltyKind, Rule
from coflex.settlement.inputs import SEPARATOR
from coflex.settlement.shelf import Rulebook

# What the operating day meters: a change of active power against a baseline.
HELD = (By.METERED, By.REQUESTED)
PAYERS = {Role.DSO: Payer.DSO, Role.TSO: Payer.TSO}


def need_of(plan: SessionPlan) -> Need:
    """What a session's deliveries are called for: its buyer's congestions, or the system operator's balance."""
    if plan.session.buyers[0].role is Role.DSO:
        return Need.DSO_CONGESTION
    return Need.TSO_CONGESTION if plan.scope is Scope.LOCAL else Need.TSO_BALANCING


def unsettled(sold: Iterable[tuple[SessionPlan, Product]], rules: Rulebook) -> Iterator[Finding]:
    """Every reason why the deliveries of sessions cannot be settled by the rules of their products.

    A rule pays the price at which the session sells, knows who pays, and says of tolerance and penalty what the
    product says: neither is charged otherwise than it was sold.
    """
    told: set[Finding] = set()
    for plan, product in sold:
        rule, place = rules.of(product), f"product {product.id}"
        if rule is None:
            known = ", ".join(sorted(rules.rules))
            message = (
                f"There is no settlement rule '{rules.id_of(product)}'; write it into rules/, or name one of {known}."
            )
            found = [Finding(place, "unknown_rule", message)]
        else:
            found = [Finding(place, code, message) for code, message in _misfits(plan, product, rule)]
        yield from (one for one in found if one not in told)
        told |= set(found)


def unnamed(ids: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    """Units and parties (what each is, and its id) of whose ids no charge can be named."""
    for what, name in ids:
        if SEPARATOR in name or "#" in name:
            message = "Its id holds '|' or '#', which separate the parts of a charge's name; rename it."
            yield Finding(f"{what} {name}", "malformed", message)


def _misfits(plan: SessionPlan, product: Product, rule: Rule) -> Iterator[tuple[str, str]]:
    if rule.delivered.by not in HELD:
        yield (
            "not_held",
            f"Its rule {rule.name} settles by {rule.delivered.by.value}; the operating day meters energy alone.",
        )
    if rule.penalty.kind is PenaltyKind.AGREED:
        yield "not_held", f"Its rule {rule.name} takes the penalty from the award, which carries none; fix one."
    sells, pays = PricingRule(plan.session.pricing), rule.pricing
    if _price(sells) != _price(pays):
        message = f"It is sold {sells.value}, and its rule {rule.name} pays {pays.value}; give it a rule that pays so."
        yield "other_pricing", message
    need, role = need_of(plan), plan.session.buyers[0].role
    if rule.payers.get(need) not in (Payer.BUYER, PAYERS.get(role)):
        message = f"Its rule {rule.name} does not let the buyer pay for '{need.value}'; add it to 'payers'."
        yield "no_payer", message
    share = {PenaltyKind.SHARE: rule.penalty.share, PenaltyKind.NONE: Decimal(0)}.get(rule.penalty.kind)
    for name, said, settled in (
        ("tolerance", product.tolerance, rule.delivered.tolerance),
        ("penalty_share", product.penalty_share, share),
    ):
        if settled is not None and said != settled:
            message = (
                f"Its {name} is {said}, its rule {rule.name} has {settled}; correct it, or give it a rule of its own."
            )
            yield "other_terms", message


def _price(pricing: PricingRule) -> str:
    """Which of an award's prices is paid."""
    names = {PricingRule.PAY_AS_BID: "bid", PricingRule.NODAL: "nodal"}
    return names.get(pricing, "clearing")
