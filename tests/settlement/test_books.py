"""Books: money that sums to zero, rounding that has one place, corrections that post differences alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.errors import CoflexError
from coflex.domain.statement import Cause, Charge, Evidence, Line, Measure
from coflex.settlement.books import accounts, balance, book, booking_of, correct, spread
from coflex.settlement.charges import settle
from coflex.settlement.inputs import ROUNDING, Inputs
from support.settling import RULES, START, D, delivery, periods, settled_inputs

amounts = st.decimals(-1000, 1000, places=9)


def charge(name: str, amount: Decimal, seller: str = "sp", customer: str = "dso", joint: bool = False) -> Charge:
    return Charge(
        name, Cause.ACTIVATION, seller, customer, "s1", "u1", START, 15, D(1), Measure.MWH, amount, amount, "mine@1",
        "said", Evidence(), joint,
    )  # fmt: skip


charges = st.lists(
    st.builds(
        charge,
        st.uuids().map(str),
        amounts,
        st.sampled_from(["sp-1", "sp-2"]),
        st.sampled_from(["dso", "tso", "brp"]),
        st.booleans(),
    ),
    max_size=12,
    unique_by=lambda one: one.id,
)


def by_booking(lines: Any) -> dict[str, int]:
    sums: dict[str, int] = defaultdict(int)
    for line in lines:
        sums[line.booking] += line.cents
    return {name: cents for name, cents in sums.items() if cents}


@pytest.mark.spec("SET-06")
@settings(max_examples=50, deadline=None)
@given(periods(most=6))
def test_money_sums_to_zero_and_what_is_paid_arrives_or_is_a_fee(inputs: Inputs) -> None:
    run = book(settle(inputs, RULES), inputs.period)
    assert sum(one.balance_cents for one in run.accounts) == 0
    assert sum(one.cents for one in run.postings) == 0
    for booking in {one.booking for one in run.postings}:
        assert sum(one.cents for one in run.postings if one.booking == booking) == 0
    money = balance(run.accounts)
    assert money.paid == money.received + money.fees + money.rounding
    posted: dict[str, int] = defaultdict(int)
    for one in run.postings:
        posted[one.account] += one.cents
    assert {name: cents for name, cents in posted.items() if cents} == {
        one.party: one.balance_cents for one in run.accounts if one.balance_cents
    }


@pytest.mark.spec("SET-06")
@settings(max_examples=60, deadline=None)
@given(charges)
def test_every_booking_is_its_exact_sum_rounded_once_and_no_line_is_off_by_a_cent(made: list[Charge]) -> None:
    run = book(made, "p")
    exact: dict[str, Decimal] = defaultdict(Decimal)
    for one in made:
        exact[booking_of(one, "p")] += one.amount_eur
    cents = by_booking(line for line in run.lines if line.charge.cause is not Cause.ROUNDING)
    for name, amount in exact.items():
        assert cents.get(name, 0) == int((amount * 100).quantize(D(1), ROUND_HALF_EVEN))
    for line in run.lines:
        assert abs(line.cents - 100 * line.charge.amount_eur) < 1


@pytest.mark.spec("SET-03", "SET-06")
@settings(max_examples=60, deadline=None)
@given(charges)
def test_the_account_of_roundings_makes_a_seller_whole_whatever_the_sharing(made: list[Charge]) -> None:
    run = book(made, "p")
    sellers = {one.seller for one in made if one.joint}
    for seller in sellers:
        exact = sum((one.amount_eur for one in made if one.joint and one.seller == seller), D(0))
        customers = {one.customer for one in made if one.joint and one.seller == seller}
        booked = sum(
            line.cents
            for line in run.lines
            if line.charge.seller == seller and (line.charge.joint or line.charge.cause is Cause.ROUNDING)
        )
        assert booked == int((exact * 100).quantize(D(1), ROUND_HALF_EVEN))
        left = sum(
            line.cents for line in run.lines if line.charge.customer == ROUNDING and line.charge.seller == seller
        )
        assert abs(left) <= (len(customers) + 1) // 2
    if not sellers:
        assert all(line.charge.cause is not Cause.ROUNDING for line in run.lines)


def test_equal_shares_pay_the_same_and_the_cent_that_is_left_has_one_account() -> None:
    half = D("0.505")
    run = book([charge("a", half, customer="dso", joint=True), charge("b", half, customer="tso", joint=True)], "p")
    assert {one.party: one.balance_cents for one in run.accounts} == {"dso": -50, "tso": -50, "sp": 101, ROUNDING: -1}
    assert run.lines[-1].charge.remark == "what rounding each customer's part leaves of sp's activation in s1"


@given(st.integers(-10_000, 10_000), st.lists(amounts, min_size=1, max_size=9))
def test_cents_that_are_laid_on_amounts_add_to_their_sum(cents: int, exact: list[Decimal]) -> None:
    parts = spread(cents, exact)
    assert sum(parts) == cents
    gaps = [part - 100 * amount for part, amount in zip(parts, exact, strict=True)]
    assert max(gaps) - min(gaps) < 2  # everybody is off by the same, up to the rounding of each


@pytest.mark.spec("SET-06")
@settings(max_examples=25, deadline=None)
@given(periods(), st.randoms(use_true_random=False))
def test_any_order_of_the_charges_gives_the_same_run(inputs: Inputs, luck: Any) -> None:
    made = settle(inputs, RULES)
    assert book(luck.sample(made, len(made)), "p") == book(made, "p")


# ---------------------------------------------------------------- corrections


@pytest.mark.spec("SET-06")
@settings(max_examples=25, deadline=None)
@given(periods(most=3), st.lists(periods(most=3), min_size=1, max_size=2), st.randoms(use_true_random=False))
def test_all_runs_together_are_one_run_on_the_last_data(first: Inputs, later: list[Inputs], luck: Any) -> None:
    lines: list[Line] = []
    for inputs in (first, *later):
        made = settle(inputs, RULES)
        run = correct(luck.sample(lines, len(lines)), made, "p")
        assert sum(one.cents for one in run.postings) == 0
        lines += run.lines
        assert correct(lines, made, "p").lines == ()  # the same again posts nothing
    once = book(settle(later[-1], RULES), "p")
    assert by_booking(lines) == by_booking(once.lines)
    exact, expected = Counter[str](), Counter[str]()
    for line in lines:
        exact[line.charge.root] += line.charge.amount_eur  # type: ignore[assignment]
    for line in once.lines:
        expected[line.charge.id] += line.charge.amount_eur  # type: ignore[assignment]
    assert {name: amount for name, amount in exact.items() if amount} == {
        name: amount for name, amount in expected.items() if amount
    }
    cumulated = {one.party: one.balance_cents for one in accounts(lines, "p") if one.balance_cents}
    assert cumulated == {one.party: one.balance_cents for one in once.accounts if one.balance_cents}


def test_a_corrected_meter_posts_the_difference_and_names_what_it_corrects() -> None:
    before = settled_inputs(delivery("d1"), delivery("d2", measured_kwh=D(-20)))
    after = replace(before, deliveries=(delivery("d1"), delivery("d2")))
    first = book(settle(before, RULES), "2026-11")
    later = correct(first.lines, settle(after, RULES), "2026-11")
    assert {line.charge.corrects for line in later.lines} == {
        "s1|d2|a1|activation|sp|dso", "s1|d2|a1|penalty|sp|dso", "s1|d2|a1|fee-share|platform|dso",
    }  # fmt: skip
    paid = next(line for line in later.lines if line.charge.cause is Cause.ACTIVATION)
    assert paid.charge.id == "s1|d2|a1|activation|sp|dso#1"
    assert (paid.cents, paid.charge.amount_eur, paid.charge.quantity) == (40, D("0.4"), D("0.005"))
    assert paid.charge.remark == "1.6 EUR becomes 2 EUR: delivered as ordered"
    gone = next(line for line in later.lines if line.charge.cause is Cause.PENALTY)
    assert (gone.cents, gone.charge.remark) == (10, "-0.1 EUR becomes 0 EUR: no longer owed")


def test_a_corrected_rule_posts_the_difference_too() -> None:
    inputs = settled_inputs(delivery(measured_kwh=D(-20)))
    first = book(settle(inputs, RULES), "2026-11")
    milder = RULES["local_congestion"].model_copy(
        update={"version": 2, "penalty": RULES["local_congestion"].penalty.model_copy(update={"share": D("0.25")})}
    )
    later = correct(first.lines, settle(inputs, {**RULES, "local_congestion": milder}), "2026-11")
    (line,) = later.lines
    assert (line.charge.cause, line.cents, line.charge.rule) == (Cause.PENALTY, 5, "local_congestion@2")


def test_a_correction_that_is_taken_back_leaves_the_first_run() -> None:
    right = settle(settled_inputs(delivery()), RULES)
    wrong = settle(settled_inputs(delivery(measured_kwh=D(-22))), RULES)
    first = book(right, "2026-11")
    second = correct(first.lines, wrong, "2026-11")
    third = correct([*first.lines, *second.lines], right, "2026-11")
    assert by_booking([*second.lines, *third.lines]) == {}
    assert {line.charge.id.rpartition("#")[2] for line in third.lines} <= {"1", "2"}
    assert len({line.charge.id for run in (first, second, third) for line in run.lines}) == sum(
        len(run.lines) for run in (first, second, third)
    )


def test_charges_that_share_an_id_and_lines_of_another_period_are_refused() -> None:
    with pytest.raises(CoflexError, match="id a"):
        book([charge("a", D(1)), charge("a", D(2))], "p")
    with pytest.raises(CoflexError, match="not of the period q"):
        correct(book([charge("a", D(1))], "p").lines, [charge("a", D(1))], "q")


def test_an_empty_period_has_empty_books() -> None:
    run = book([], "p")
    assert (run.lines, run.postings, run.accounts) == ((), (), ())
    assert balance(run.accounts).difference == 0
