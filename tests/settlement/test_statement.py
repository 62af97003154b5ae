"""Books: balanced to the cent, whatever happened and in whatever order it is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.errors import CoflexError, Unbalanced
from coflex.domain.quantity import Direction
from coflex.domain.statement import Cause, Posting, SettlementLine
from coflex.settlement.statement import book, check_balance

D = Decimal
NOTHING = D(0)
NOON = datetime(2016, 5, 12, 12, tzinfo=UTC)
BUYERS, PROVIDERS = ("dso", "tso"), ("sp-1", "sp-2", "sp-3")
euros = st.decimals(-1000, 1000, places=6)


def line(amount: Decimal, penalty: Decimal = NOTHING, buyer: str = "dso", provider: str = "sp-1") -> SettlementLine:
    return SettlementLine(
        unit="u1",
        start=NOON,
        session="local-1",
        buyer=buyer,
        provider=provider,
        direction=Direction.UP,
        ordered_kwh=D(25),
        baseline_method="nominated",
        baseline_kwh=D(-40),
        measured_kwh=D(-20),
        delivered_kwh=D(20),
        paid_kwh=D(20),
        price_eur_mwh=D(80),
        amount_eur=amount,
        penalty_eur=penalty,
        remark="",
    )


lines_of_a_day = st.lists(
    st.builds(
        replace,
        st.builds(line, euros, st.decimals(0, 100, places=6), st.sampled_from(BUYERS), st.sampled_from(PROVIDERS)),
        session=st.sampled_from(["local-1", "global-1"]),
        unit=st.sampled_from(["u1", "u2"]),
        start=st.integers(0, 3).map(lambda k: NOON + k * timedelta(minutes=15)),
    ),
    max_size=25,
)
fees = st.decimals(0, 1, places=4)


def cents(amount: Decimal) -> int:
    return int((100 * amount).quantize(D(1), ROUND_HALF_EVEN))


@pytest.mark.spec("SET-06")
@given(lines_of_a_day, fees)
@settings(max_examples=200)
def test_buyers_pay_what_providers_receive_and_the_platform_keeps_to_the_cent(
    lines: list[SettlementLine], fee: Decimal
) -> None:
    books = book(lines, fee)
    balance = {statement.party: statement.balance_cents for statement in books.statements}
    paid = -sum(balance.get(buyer, 0) for buyer in BUYERS)
    received = sum(balance.get(provider, 0) for provider in PROVIDERS)
    assert paid == received + balance.get("platform", 0)
    of_activation = [s.paid_cents - s.received_cents for s in books.statements]
    assert sum(of_activation) == 0
    assert balance.get("platform", 0) >= 0


@pytest.mark.spec("SET-06")
@given(lines_of_a_day, fees)
def test_the_cents_of_the_lines_add_to_the_postings_of_their_booking(lines: list[SettlementLine], fee: Decimal) -> None:
    books = book(lines, fee)
    assert len(books.line_cents) == len(lines)
    from_lines: Counter[tuple[str, str, Cause]] = Counter()
    for settled, part in zip(lines, books.line_cents, strict=True):
        from_lines[part.booking, settled.provider, Cause.ACTIVATION] += part.amount
        from_lines[part.booking, settled.buyer, Cause.ACTIVATION] -= part.amount
        from_lines[part.booking, settled.provider, Cause.PENALTY] -= part.penalty
        from_lines[part.booking, settled.buyer, Cause.PENALTY] += part.penalty
        from_lines[part.booking, settled.buyer, Cause.FEE] -= part.fee
        from_lines[part.booking, "platform", Cause.FEE] += part.fee
    posted = {(p.booking, p.account, p.cause): p.cents for p in books.postings}
    assert posted == {key: value for key, value in from_lines.items() if value}


@given(lines_of_a_day, fees)
def test_a_booking_is_its_exact_sum_rounded_once_and_no_line_is_off_by_a_cent(
    lines: list[SettlementLine], fee: Decimal
) -> None:
    books = book(lines, fee)
    for posting in books.postings:
        if posting.cause is Cause.ACTIVATION and posting.account in PROVIDERS:
            parts = [s.amount_eur for s, c in zip(lines, books.line_cents, strict=True) if c.booking == posting.booking]
            assert posting.cents == cents(sum(parts, D(0)))
    for settled, part in zip(lines, books.line_cents, strict=True):
        assert abs(part.amount - 100 * settled.amount_eur) < 1
        assert abs(part.penalty - 100 * settled.penalty_eur) < 1
        assert abs(part.fee - 100 * fee * abs(settled.amount_eur)) < 1


@given(lines_of_a_day, fees, st.randoms(use_true_random=False))
def test_lines_told_in_another_order_give_the_same_books(lines: list[SettlementLine], fee: Decimal, luck) -> None:  # type: ignore[no-untyped-def]
    shuffled = luck.sample(lines, len(lines))
    here, there = book(lines, fee), book(shuffled, fee)
    assert here.postings == there.postings
    assert here.statements == there.statements
    assert Counter(zip(lines, here.line_cents, strict=True)) == Counter(zip(shuffled, there.line_cents, strict=True))


@pytest.mark.spec("SET-03")
def test_the_buyer_pays_the_provider_and_the_fee_and_is_paid_the_penalty() -> None:
    books = book([line(D("10.004")), line(D("5.004"), D("1.5"))], D("0.02"))
    assert [(p.account, p.cents, p.cause) for p in books.postings] == [
        ("dso", -1501, Cause.ACTIVATION),
        ("sp-1", 1501, Cause.ACTIVATION),
        ("sp-1", -150, Cause.PENALTY),
        ("dso", 150, Cause.PENALTY),
        ("dso", -30, Cause.FEE),
        ("platform", 30, Cause.FEE),
    ]
    dso, platform, provider = books.statements
    assert (dso.paid_cents, dso.received_cents, dso.penalty_cents, dso.fee_cents) == (1501, 0, -150, 30)
    assert (provider.received_cents, provider.penalty_cents, provider.balance_cents) == (1501, 150, 1351)
    assert (platform.fee_cents, platform.balance_cents, platform.lines) == (-30, 30, 2)
    assert (dso.lines, dso.ordered_kwh, dso.delivered_kwh) == (2, 50, 40)


@pytest.mark.spec("SET-03")
def test_a_provider_that_bid_to_pay_owes_the_buyer_who_still_bears_the_fee() -> None:
    books = book([line(D("-10"))], D("0.02"))
    balance = {statement.party: statement.balance_cents for statement in books.statements}
    assert balance == {"dso": 980, "platform": 20, "sp-1": -1000}


@pytest.mark.spec("SET-03")
def test_each_activation_is_paid_by_the_operator_that_caused_it() -> None:
    books = book([line(D(3), buyer="dso"), line(D(7), buyer="tso")], D(0))
    assert {s.party: s.paid_cents for s in books.statements} == {"dso": 300, "tso": 700, "sp-1": 0, "platform": 0}


def test_an_empty_day_has_empty_books_and_lines_worth_nothing_still_a_statement() -> None:
    assert book([], D(0)).statements == ()
    books = book([line(D(0))], D("0.02"))
    assert books.postings == ()
    assert [statement.lines for statement in books.statements] == [1, 1, 1]


def test_postings_that_do_not_add_to_zero_are_named() -> None:
    good = [Posting("a", "dso", -5, Cause.ACTIVATION, "s"), Posting("a", "sp-1", 5, Cause.ACTIVATION, "s")]
    check_balance(good)
    with pytest.raises(Unbalanced, match="'b' is off by 1 cents"):
        check_balance([*good, Posting("b", "sp-1", 1, Cause.ROUNDING, "s")])


@pytest.mark.parametrize("share", [D("-0.01"), D("1.01")])
def test_a_fee_that_is_no_share_is_refused(share: Decimal) -> None:
    with pytest.raises(CoflexError, match="no share"):
        book([line(D(1))], share)
