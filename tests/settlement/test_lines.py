"""Settlement lines: published numbers, both responses, negative prices, limits, price steps."""

from __future__ import annotations

import doctest
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.domain.activation import Hop, SetPoint
from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Direction
from coflex.domain.reading import Quality
from coflex.metering.delivery import delivered_kwh
from coflex.settlement.lines import Metered, Step, settle, settle_line
from coflex.settlement.rules import Response, SettlementRule, usef_rule

D = Decimal
PAGE = Path(__file__).parents[2] / "docs" / "mathematics" / "settlement.md"
POINT = SetPoint(
    unit="u1",
    start=datetime(2016, 5, 12, 10, tzinfo=UTC),
    buyer="dso",
    session="local-1",
    direction=Direction.UP,
    awarded_kw=100,
    ordered_kw=100,
    baseline_kw=-160.0,
    power_kw=-60.0,
    acknowledged=Hop.LIGHT_NODE,
)
METERED = SettlementRule(Response.METERED, D("0.1"), D("0.5"))
REQUESTED = SettlementRule(Response.REQUESTED, D("0.1"), D("0.5"))

energies = st.decimals(-(10**4), 10**4, places=3)
prices = st.decimals(-500, 500, places=2)
rules = st.builds(
    SettlementRule,
    response=st.sampled_from(Response),
    tolerance=st.sampled_from([D(0), D("0.05"), D("0.1")]),
    penalty_share=st.sampled_from([D(0), D("0.5"), D(2)]),
    opposite_counts=st.booleans(),
)
directions = st.sampled_from(Direction)


def reading(response: Decimal, direction: Direction = Direction.UP) -> Metered:
    """A unit that answered an order by `response` kWh, against a withdrawal of 40 kWh."""
    return Metered("nominated", D(-40), D(-40) + direction.sign * response)


@pytest.mark.spec("SET-02")
def test_the_worked_example_of_the_mathematics_page_comes_out_of_the_code() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted > 5
    assert result.failed == 0


@pytest.mark.spec("SET-02", "SET-03")
@pytest.mark.parametrize(("allocation", "net"), [(7, 14), (8, 14), (9, -4), (10, -22), (11, -33)])
def test_the_published_numbers_of_the_usef_settlement(allocation: int, net: int) -> None:
    # Their powers in MW over an hour are our energies in MWh over a quarter; consumption is positive there.
    point = replace(POINT, awarded_kw=8000, ordered_kw=8000)
    metered = Metered("d-prognosis", D(-10_000), D(-1000 * allocation))
    line = settle_line(point, "agr", D(7), metered, usef_rule(D(11)))
    assert line.amount_eur - line.penalty_eur == net


@pytest.mark.spec("SET-02", "SET-03")
@pytest.mark.parametrize(
    ("rule", "delivered", "paid", "penalty", "remark"),
    [
        (METERED, "25", "25", "0", "delivered as ordered"),
        (METERED, "30", "25", "0", "delivered 120 % of the order; the surplus is not paid"),
        (METERED, "24", "24", "0",
         "delivered 96 % of the order; 4 % short, inside the tolerance of 10 %, not penalised"),
        (METERED, "22.5", "22.5", "0",
         "delivered 90 % of the order; 10 % short, inside the tolerance of 10 %, not penalised"),
        (METERED, "20", "20", "0.1",
         "delivered 80 % of the order; 20 % short, penalised beyond the tolerance of 10 %"),
        (METERED, "0", "0", "0.9",
         "delivered 0 % of the order; 100 % short, penalised beyond the tolerance of 10 %"),
        (METERED, "-5", "0", "0.9",
         "moved against the order; 100 % short, penalised beyond the tolerance of 10 %"),
        (REQUESTED, "24", "25", "0",
         "delivered 96 % of the order; 4 % short, inside the tolerance of 10 %, paid as ordered"),
        (REQUESTED, "30", "25", "0", "delivered 120 % of the order; paid as ordered"),
        (REQUESTED, "20", "20", "0.1",
         "delivered 80 % of the order; 20 % short, penalised beyond the tolerance of 10 %"),
        (SettlementRule(Response.METERED), "24.99", "24.99", "0",
         "delivered 99.9 % of the order; 0.1 % short, not paid"),
        (SettlementRule(Response.METERED, cap=D("1.2")), "40", "30", "0",
         "delivered 160 % of the order; the surplus is paid up to the cap"),
    ],
)  # fmt: skip
def test_a_line_pays_by_its_rule_and_says_why(
    rule: SettlementRule, delivered: str, paid: str, penalty: str, remark: str
) -> None:
    line = settle_line(POINT, "sp", D(80), reading(D(delivered)), rule)
    assert line.ordered_kwh == 25
    assert line.delivered_kwh == max(D(0), D(delivered))
    assert line.paid_kwh == D(paid)
    assert line.amount_eur == 80 * D(paid) / 1000
    assert line.penalty_eur == D(penalty)
    assert line.remark == remark


@pytest.mark.spec("SET-03")
@given(rules, directions, energies, prices)
def test_a_negative_price_turns_the_payment_round_and_nothing_else(
    rule: SettlementRule, direction: Direction, response: Decimal, price: Decimal
) -> None:
    point = replace(POINT, direction=direction)
    line = settle_line(point, "sp", price, reading(response, direction), rule)
    mirror = settle_line(point, "sp", -price, reading(response, direction), rule)
    assert mirror == replace(line, price_eur_mwh=-price, amount_eur=-line.amount_eur)
    assert line.amount_eur * price >= 0
    assert line.penalty_eur >= 0


@given(rules, directions, energies, energies)
def test_the_place_of_the_baseline_does_not_matter_only_the_difference(
    rule: SettlementRule, direction: Direction, response: Decimal, shift: Decimal
) -> None:
    point = replace(POINT, direction=direction)
    here = reading(response, direction)
    there = Metered("nominated", here.baseline_kwh + shift, here.measured_kwh + shift)
    one, two = (settle_line(point, "sp", D(80), metered, rule) for metered in (here, there))
    assert (one.paid_kwh, one.penalty_eur, one.remark) == (two.paid_kwh, two.penalty_eur, two.remark)


@given(rules, energies, st.integers(2, 9), prices)
def test_an_order_many_times_as_large_pays_and_costs_that_many_times(
    rule: SettlementRule, response: Decimal, times: int, price: Decimal
) -> None:
    large = replace(POINT, awarded_kw=100 * times, ordered_kw=100 * times)
    one = settle_line(POINT, "sp", price, reading(response), rule)
    many = settle_line(large, "sp", price, reading(times * response), rule)
    assert many.amount_eur == times * one.amount_eur
    assert many.penalty_eur == times * one.penalty_eur
    assert many.remark == one.remark


@given(rules, directions, energies, energies)
def test_delivery_is_what_metering_says_it_is(
    rule: SettlementRule, direction: Direction, baseline: Decimal, measured: Decimal
) -> None:
    line = settle_line(replace(POINT, direction=direction), "sp", D(80), Metered("any", baseline, measured), rule)
    assert line.delivered_kwh == delivered_kwh(direction, baseline, measured)


@given(rules, energies)
def test_nobody_is_paid_for_standing_still(rule: SettlementRule, energy: Decimal) -> None:
    line = settle_line(POINT, "sp", D(80), Metered("nominated", energy, energy), rule)
    assert line.delivered_kwh == line.paid_kwh == line.amount_eur == 0


@given(rules, energies)
def test_one_kilowatt_hour_more_never_leaves_the_provider_worse_off(rule: SettlementRule, response: Decimal) -> None:
    less, more = (settle_line(POINT, "sp", D(80), reading(r), rule) for r in (response, response + 1))
    assert more.amount_eur - more.penalty_eur >= less.amount_eur - less.penalty_eur


@pytest.mark.spec("SET-02")
@given(rules, st.integers(0, 100), energies)
def test_what_the_operator_took_back_is_neither_due_nor_penalised(
    rule: SettlementRule, ordered_kw: int, response: Decimal
) -> None:
    cut = replace(POINT, ordered_kw=ordered_kw)
    whole = replace(POINT, awarded_kw=ordered_kw, ordered_kw=ordered_kw)
    limited = settle_line(cut, "sp", D(80), reading(response), rule, limited=True)
    plain = settle_line(whole, "sp", D(80), reading(response), rule)
    prefix = f"limited by the system operator from 100 to {ordered_kw} kW, no penalty for the limited part; "
    assert limited == replace(plain, remark=prefix + plain.remark)


def test_nothing_ordered_is_nothing_owed() -> None:
    line = settle_line(replace(POINT, ordered_kw=0), "sp", D(80), reading(D(7)), METERED)
    assert (line.paid_kwh, line.amount_eur, line.penalty_eur, line.remark) == (0, 0, 0, "nothing ordered")


def test_a_silent_meter_neither_earns_nor_costs() -> None:
    silent = replace(reading(D(0)), quality=Quality.MISSING)
    line = settle_line(POINT, "sp", D(80), silent, REQUESTED)
    assert (line.amount_eur, line.penalty_eur) == (0, 0)
    assert line.remark.startswith("no reading")
    estimated = settle_line(POINT, "sp", D(80), replace(silent, quality=Quality.ESTIMATED), REQUESTED)
    assert estimated.penalty_eur > 0


@pytest.mark.spec("SET-03")
def test_of_two_price_steps_the_cheap_one_is_delivered_and_the_dear_one_missed() -> None:
    steps = (Step(40, D(100)), Step(60, D(50)))
    cheap, dear = settle(POINT, "sp", steps, reading(D(18)), METERED)
    assert (cheap.price_eur_mwh, cheap.ordered_kwh, cheap.delivered_kwh, cheap.paid_kwh) == (50, 15, 15, 15)
    assert (dear.price_eur_mwh, dear.ordered_kwh, dear.delivered_kwh, dear.paid_kwh) == (100, 10, 3, 3)
    assert (cheap.penalty_eur, dear.penalty_eur) == (0, D("0.225"))  # 4.5 kWh beyond the tolerance at 50 EUR/MWh
    assert cheap.remark == dear.remark


@given(
    rules,
    st.lists(st.builds(Step, awarded_kw=st.integers(0, 500), price_eur_mwh=prices), min_size=1, max_size=4),
    st.floats(0, 1),
    energies,
)
def test_the_lines_of_the_steps_add_to_the_order_and_come_in_one_order(
    rule: SettlementRule, steps: list[Step], share: float, response: Decimal
) -> None:
    awarded = sum(step.awarded_kw for step in steps)
    point = replace(POINT, awarded_kw=awarded, ordered_kw=int(share * awarded))
    lines = settle(point, "sp", steps, reading(response), rule)
    single = settle_line(point, "sp", D(80), reading(response), rule)
    assert sum(line.ordered_kwh for line in lines) == single.ordered_kwh == D(point.ordered_kw) / 4
    assert sum(line.delivered_kwh for line in lines) == single.delivered_kwh
    assert sum(line.paid_kwh for line in lines) == single.paid_kwh
    assert lines == settle(point, "sp", steps[::-1], reading(response), rule)


@pytest.mark.parametrize(
    ("ordered_kw", "steps"),
    [
        (100, (Step(99, D(80)),)),
        (101, (Step(100, D(80)),)),
        (-1, (Step(100, D(80)),)),
        (100, (Step(-10, D(80)), Step(110, D(80)))),
        (0, ()),
    ],
)
def test_an_order_that_does_not_fit_its_awards_is_refused(ordered_kw: int, steps: tuple[Step, ...]) -> None:
    with pytest.raises(CoflexError, match="does not fit"):
        settle(replace(POINT, ordered_kw=ordered_kw), "sp", steps, reading(D(20)), METERED)
