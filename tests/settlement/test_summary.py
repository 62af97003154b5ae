"""What a settled period came to: lines and statements that say of money and energy what charges and books say."""

from __future__ import annotations

import doctest
from collections import Counter, defaultdict
from dataclasses import replace
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.errors import Unbalanced
from coflex.domain.quantity import Direction
from coflex.domain.reading import Quality
from coflex.domain.statement import Cause, Posting
from coflex.settlement.books import check_balance
from coflex.settlement.charges import judged
from coflex.settlement.document import Need, Payer
from coflex.settlement.inputs import Bought, Delivery, Inputs
from coflex.settlement.summary import line_cents, settled, statements
from support.settling import RULES, START, D, decimals, delivery, settled_inputs

PAGE = Path(__file__).parents[2] / "docs" / "mathematics" / "settlement.md"
BUYERS = {"dso": (Payer.DSO, Need.DSO_CONGESTION), "tso": (Payer.TSO, Need.TSO_CONGESTION)}
prices = decimals(-500, 500, 2)


@st.composite
def days(draw: st.DrawFn) -> Inputs:
    """Deliveries of energy as an operating day makes them: a unit once in an interval, paid by the buyer."""
    keys = draw(st.sets(st.tuples(st.sampled_from(["u1", "u2", "u3"]), st.integers(0, 3)), max_size=8))
    return settled_inputs(*(draw(deliveries(unit, quarter)) for unit, quarter in sorted(keys)))


@st.composite
def deliveries(draw: st.DrawFn, unit: str, quarter: int) -> Delivery:
    buyer = draw(st.sampled_from(sorted(BUYERS)))
    payer, need = BUYERS[buyer]
    rule = draw(st.sampled_from(["local_congestion"] if buyer == "dso" else ["local_congestion", "mfrr"]))
    bought = tuple(Bought(f"a{i}", draw(decimals(0, 50, 2)), draw(prices)) for i in range(draw(st.integers(1, 3))))
    whole = sum((one.energy_kwh for one in bought), D(0))
    return delivery(
        f"{unit} {quarter}",
        rule,
        unit=unit,
        provider=draw(st.sampled_from(["sp-1", "sp-2"])),
        buyer=buyer,
        session=draw(st.sampled_from(["s1", "s2"])),
        need=need,
        start=START.replace(minute=15 * quarter),
        direction=draw(st.sampled_from(Direction)),
        ordered_kwh=(whole * draw(st.sampled_from([D(1), D(1), D("0.6"), D(0)]))).quantize(D("0.001")),
        bought=bought,
        baseline_kwh=draw(st.none() | decimals(-100, 100, 3)),
        measured_kwh=draw(st.none() | decimals(-100, 100, 3)),
        quality=draw(st.sampled_from(Quality)),
        limited=draw(st.booleans()),
        roles={payer: buyer},
    )


@pytest.mark.spec("SET-02")
def test_the_worked_example_of_the_mathematics_page_comes_out_of_the_code() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted > 5
    assert result.failed == 0


@pytest.mark.spec("SET-05", "SET-06")
@settings(max_examples=60, deadline=None)
@given(days())
def test_statements_carry_the_balance_of_the_books_and_sum_to_zero(inputs: Inputs) -> None:
    lines, run = settled(inputs, RULES)
    found = statements(lines, run.accounts)
    assert {one.party: one.balance_cents for one in found if one.balance_cents} == {
        one.party: one.balance_cents for one in run.accounts if one.balance_cents
    }
    assert sum(one.balance_cents for one in found) == 0
    assert sum(one.paid_cents - one.received_cents for one in found) == 0
    assert sum(one.penalty_cents for one in found) == sum(one.fee_cents for one in found) == 0
    assert [one.party for one in found] == sorted({one.party for one in found})
    assert {one.party: one.lines for one in found}.get("platform", 0) == len(lines)


@pytest.mark.spec("SET-02", "SET-06")
@settings(max_examples=60, deadline=None)
@given(days())
def test_the_lines_of_a_delivery_add_to_it_and_their_cents_to_the_postings(inputs: Inputs) -> None:
    lines, run = settled(inputs, RULES)
    sums: dict[tuple[str, Any], list[Decimal]] = defaultdict(lambda: [D(0)] * 3)
    for line in lines:
        energies = line.ordered_kwh, line.delivered_kwh, line.paid_kwh
        sums[line.unit, line.start] = [a + b for a, b in zip(sums[line.unit, line.start], energies, strict=True)]
    for one in inputs.deliveries:
        outcome = judged(one, RULES[one.rule])
        assert sums[one.unit, one.start] == [one.ordered_kwh, outcome.delivered, outcome.paid]
    posted: Counter[tuple[Cause, str, str]] = Counter()
    for line, cents in zip(lines, line_cents(lines, run), strict=True):
        for cause, account, part in (
            (Cause.ACTIVATION, line.provider, cents.amount),
            (Cause.PENALTY, line.buyer, cents.penalty),
            (Cause.FEE, "platform", cents.fee),
        ):
            posted[cause, account, line.session] += part
        assert abs(cents.amount - 100 * line.amount_eur) < 1
        assert abs(cents.penalty - 100 * line.penalty_eur) < 1
    sellers: Counter[tuple[Cause, str, str]] = Counter()
    for posting in run.postings:
        to = {Cause.FEE: ("platform",), Cause.PENALTY: tuple(BUYERS)}.get(posting.cause, ("sp-1", "sp-2"))
        if posting.account in to:
            sellers[posting.cause, posting.account, posting.session] += posting.cents
    assert {key: cents for key, cents in posted.items() if cents} == {k: v for k, v in sellers.items() if v}


@settings(max_examples=30, deadline=None)
@given(days(), st.randoms(use_true_random=False))
def test_any_order_of_the_deliveries_and_any_arithmetic_around_gives_the_same(inputs: Inputs, luck: Any) -> None:
    shuffled = replace(inputs, deliveries=tuple(luck.sample(inputs.deliveries, len(inputs.deliveries))))
    lines, run = settled(inputs, RULES)
    with localcontext() as context:
        context.prec = 7
        again, same = settled(shuffled, RULES)
        assert (again, same) == (lines, run)
        assert statements(again, same.accounts) == statements(lines, run.accounts)


@pytest.mark.spec("SET-03")
def test_the_cheapest_award_is_delivered_first_and_the_dearest_missed() -> None:
    bought = Bought("dear", D(10), D(50)), Bought("cheap", D(15), D(40))
    lines, run = settled(settled_inputs(delivery(bought=bought, measured_kwh=D(-22))), RULES)
    cheap, dear = lines
    assert (cheap.award, cheap.ordered_kwh, cheap.paid_kwh, cheap.penalty_eur) == ("cheap", 15, 15, 0)
    assert (dear.award, dear.delivered_kwh, dear.amount_eur) == ("dear", 3, D("0.15"))
    assert dear.penalty_eur == D("0.1125")  # 4.5 kWh beyond the tolerance at half of 50 EUR/MWh
    assert cheap.rule == dear.rule == "local_congestion@1"
    assert line_cents(lines, run)[1].booking == "2026-11 | s1 | activation | sp | dso"


@pytest.mark.spec("SET-03")
def test_a_provider_that_bid_to_pay_owes_the_buyer_who_still_bears_the_fee() -> None:
    one = delivery(bought=(Bought("a1", D(25), D(-400)),))
    lines, run = settled(settled_inputs(one), RULES)
    found = {told.party: told for told in statements(lines, run.accounts)}
    assert (found["sp"].paid_cents, found["dso"].received_cents, found["dso"].fee_cents) == (1000, 1000, 20)
    assert {party: told.balance_cents for party, told in found.items()} == {"dso": 980, "platform": 20, "sp": -1000}


def test_an_empty_period_has_no_statement_and_lines_worth_nothing_still_have() -> None:
    lines, run = settled(settled_inputs(), RULES)
    assert (lines, statements(lines, run.accounts)) == ((), ())
    lines, run = settled(settled_inputs(delivery(measured_kwh=None)), RULES)
    assert run.postings == ()
    assert [one.lines for one in statements(lines, run.accounts)] == [1, 1, 1]


def test_postings_that_do_not_add_to_zero_are_named() -> None:
    good = [Posting("a", "dso", -5, Cause.ACTIVATION, "s"), Posting("a", "sp-1", 5, Cause.ACTIVATION, "s")]
    check_balance(good)
    with pytest.raises(Unbalanced, match="'b' is off by 1 cents"):
        check_balance([*good, Posting("b", "sp-1", 1, Cause.ROUNDING, "s")])
