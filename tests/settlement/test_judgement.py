"""The judgement on a delivery: what is paid, what is missing, and what is said of it; and the terms it goes by."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.domain.errors import Refused
from coflex.settlement.judgement import NO_READING, judge
from coflex.settlement.penalty import deficiency_kwh, penalty_eur
from coflex.settlement.rules import Response, SettlementRule

D = Decimal
METERED = SettlementRule(Response.METERED, D("0.1"), D("0.5"))
REQUESTED = SettlementRule(Response.REQUESTED, D("0.1"), D("0.5"))
# Nothing under half of the order, rising to the whole at 95 %, surplus paid up to 120 %.
SLIDING = SettlementRule(
    Response.METERED, payment=((D("0.5"), D(0)), (D("0.95"), D(1)), (D(1), D(1)), (D("1.2"), D("1.2"))), cap=D("1.2")
)
energies = st.decimals(0, 10**6, places=3)
responses = st.decimals(-(10**6), 10**6, places=3)
rules = st.builds(
    SettlementRule,
    response=st.sampled_from(Response),
    tolerance=st.sampled_from([D(0), D("0.05"), D("0.1")]),
    penalty_share=st.sampled_from([D(0), D("0.5"), D(2)]),
    opposite_counts=st.booleans(),
)


@pytest.mark.spec("SET-02", "SET-03")
@pytest.mark.parametrize(
    ("rule", "response", "paid", "missing", "remark"),
    [
        (METERED, "25", "25", "0", "delivered as ordered"),
        (METERED, "30", "25", "0", "delivered 120 % of the order; the surplus is not paid"),
        (METERED, "24", "24", "0",
         "delivered 96 % of the order; 4 % short, inside the tolerance of 10 %, not penalised"),
        (METERED, "22.5", "22.5", "0",
         "delivered 90 % of the order; 10 % short, inside the tolerance of 10 %, not penalised"),
        (METERED, "20", "20", "2.5",
         "delivered 80 % of the order; 20 % short, penalised beyond the tolerance of 10 %"),
        (METERED, "0", "0", "22.5",
         "delivered 0 % of the order; 100 % short, penalised beyond the tolerance of 10 %"),
        (METERED, "-5", "0", "22.5",
         "moved against the order; 100 % short, penalised beyond the tolerance of 10 %"),
        (REQUESTED, "24", "25", "0",
         "delivered 96 % of the order; 4 % short, inside the tolerance of 10 %, paid as ordered"),
        (REQUESTED, "30", "25", "0", "delivered 120 % of the order; paid as ordered"),
        (REQUESTED, "20", "20", "2.5",
         "delivered 80 % of the order; 20 % short, penalised beyond the tolerance of 10 %"),
        (SettlementRule(Response.METERED), "24.99", "24.99", "0.01",
         "delivered 99.9 % of the order; 0.1 % short, not paid"),
        (SettlementRule(Response.METERED, cap=D("1.2")), "40", "30", "0",
         "delivered 160 % of the order; the surplus is paid up to the cap"),
    ],
)  # fmt: skip
def test_an_order_of_25_kwh_is_judged_by_its_terms_and_the_reason_told(
    rule: SettlementRule, response: str, paid: str, missing: str, remark: str
) -> None:
    found = judge(rule, D(25), D(response))
    assert (found.paid, found.deficient, found.remark) == (D(paid), D(missing), remark)
    assert found.delivered == max(D(0), D(response))


@given(rules, energies)
def test_nobody_is_paid_for_standing_still_and_nothing_is_said_without_a_reading(
    rule: SettlementRule, ordered: Decimal
) -> None:
    still = judge(rule, ordered, D(0))
    assert still.delivered == still.paid == 0
    unread = judge(rule, ordered, None)
    assert (unread.paid, unread.deficient, unread.remark) == (0, 0, NO_READING)


@given(rules, energies, responses, st.integers(2, 9))
def test_an_order_many_times_as_large_is_judged_alike(
    rule: SettlementRule, ordered: Decimal, response: Decimal, times: int
) -> None:
    one, many = judge(rule, ordered, response), judge(rule, times * ordered, times * response)
    assert (many.paid, many.deficient, many.remark) == (times * one.paid, times * one.deficient, one.remark)


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


@given(energies, responses, st.decimals(0, D("0.99"), places=2))
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
    fixed = SettlementRule(Response.METERED, penalty_eur_mwh=D(11))
    assert penalty_eur(fixed, price, missing) == 11 * missing / 1000


def test_every_fault_of_the_terms_is_named_at_once() -> None:
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
