"""Settlement rules: what they pay, and what is refused."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.domain.errors import Refused
from coflex.domain.product import Product, QuantityKind
from coflex.domain.quantity import Direction
from coflex.domain.unit import Scope
from coflex.settlement.penalty import deficiency_kwh, penalty_eur
from coflex.settlement.rules import Response, SettlementRule, rule_of, usef_rule

D = Decimal
energies = st.decimals(0, 10**6, places=3)
# Nothing under half of the order, rising to the whole at 95 %, surplus paid up to 120 %.
SLIDING = SettlementRule(
    Response.METERED, payment=((D("0.5"), D(0)), (D("0.95"), D(1)), (D(1), D(1)), (D("1.2"), D("1.2"))), cap=D("1.2")
)


def product(scope: Scope) -> Product:
    both = (Direction.UP, Direction.DOWN)
    kind = QuantityKind.ACTIVE_ENERGY
    return Product("p", scope, kind, both, 900, 1, 1, 900, D(500), True, False, D("0.1"), D("0.5"))


@pytest.mark.spec("SET-02")
def test_global_products_are_settled_as_requested_and_local_ones_as_metered() -> None:
    assert rule_of(product(Scope.GLOBAL)) == SettlementRule(Response.REQUESTED, D("0.1"), D("0.5"))
    assert rule_of(product(Scope.LOCAL)) == SettlementRule(Response.METERED, D("0.1"), D("0.5"))


@given(energies, energies)
def test_without_a_table_delivery_is_paid_up_to_the_order(ordered: Decimal, delivered: Decimal) -> None:
    assert SettlementRule(Response.METERED).paid_kwh(ordered, delivered) == min(ordered, delivered)


@pytest.mark.parametrize(
    ("delivered", "paid"), [(0, 0), (50, 0), (59, 20), (95, 100), (98, 100), (110, 110), (120, 120), (500, 120)]
)
def test_a_sliding_table_pays_what_its_points_say(delivered: int, paid: int) -> None:
    assert SLIDING.paid_kwh(D(100), D(delivered)) == paid


@given(energies, energies, energies)
def test_more_delivery_never_pays_less(ordered: Decimal, one: Decimal, two: Decimal) -> None:
    assert SLIDING.paid_kwh(ordered, min(one, two)) <= SLIDING.paid_kwh(ordered, max(one, two))


def test_a_table_that_starts_above_nothing_pays_its_first_point_below_it() -> None:
    rule = SettlementRule(Response.METERED, payment=((D("0.2"), D("0.1")), (D(1), D(1))))
    assert rule.paid_kwh(D(100), D(0)) == 10


@given(energies, st.decimals(-(10**6), 10**6, places=3), st.decimals(0, D("0.99"), places=2))
def test_a_deficiency_lies_between_nothing_and_the_order(
    ordered: Decimal, response: Decimal, tolerance: Decimal
) -> None:
    rule = SettlementRule(Response.METERED, tolerance)
    missing = deficiency_kwh(rule, ordered, response)
    assert 0 <= missing <= ordered
    assert (missing == 0) == (max(response, D(0)) >= ordered * (1 - tolerance))


@given(st.decimals(-500, 500, places=2), energies)
def test_a_penalty_is_never_negative_and_blind_to_the_sign_of_the_price(price: Decimal, missing: Decimal) -> None:
    rule = SettlementRule(Response.METERED, penalty_share=D("0.5"))
    assert penalty_eur(rule, price, missing) == penalty_eur(rule, -price, missing) >= 0
    assert penalty_eur(usef_rule(D(11)), price, missing) == 11 * missing / 1000


def test_every_fault_of_a_rule_is_named_at_once() -> None:
    with pytest.raises(Refused) as refused:
        SettlementRule(
            Response.METERED,
            tolerance=D(1),
            penalty_share=D(-1),
            penalty_eur_mwh=D(-1),
            payment=((D(1), D(1)), (D("0.5"), D(-1))),
            cap=D(0),
        )
    codes = sorted(finding.code for finding in refused.value.findings)
    assert codes == ["negative", "negative", "negative", "out_of_range", "out_of_range", "unordered"]
