"""Disputes: one line settled anew from named new inputs, old and new kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from coflex.domain.errors import CoflexError, Conflict, Forbidden, NotFound, Refused
from coflex.domain.statement import Cause, Line
from coflex.settlement.books import book, correct
from coflex.settlement.charges import settle
from coflex.settlement.dispute import Change, Dispute, State, change, decide, difference, open_dispute, withdraw
from coflex.settlement.document import Need, Payer
from coflex.settlement.inputs import Bought, Purchase
from coflex.settlement.records import read, write
from support.settling import RULES, START, D, delivery, settled_inputs

INPUTS = settled_inputs(delivery("d1", measured_kwh=D(-20)), delivery("d2"))
CHARGES = settle(INPUTS, RULES)
RUN = book(CHARGES, INPUTS.period)
NEW_METER = Change("measured_kwh", D(-15), "protocol 12")


def line(cause: Cause = Cause.ACTIVATION) -> Line:
    return next(one for one in RUN.lines if one.charge.cause is cause and "|d1|" in one.charge.id)


def opened() -> Dispute:
    return open_dispute("x1", line(), "sp", START, "the meter was swapped")


def decided(changes: tuple[Change, ...], contested: Dispute | None = None, later: int = 1) -> Any:
    at = START + timedelta(days=later)
    return decide(contested or opened(), INPUTS, RULES, changes, at, "mo", "protocol of the swap")


@pytest.mark.spec("SET-05")
def test_a_dispute_that_is_right_keeps_both_settlements_and_posts_the_difference() -> None:
    dispute, after = decided((NEW_METER,))
    assert dispute.state is State.CHANGED
    assert [(step.state, step.at, step.by) for step in dispute.steps] == [
        (State.OPENED, START, "sp"), (State.CHANGED, START + timedelta(days=1), "mo"),
    ]  # fmt: skip
    assert dispute.changes == (NEW_METER,)
    assert {one.cause: one.amount_eur for one in dispute.old} == {
        Cause.ACTIVATION: D("1.6"), Cause.PENALTY: D("-0.1"), Cause.FEE: D("0.032"),
    }  # fmt: skip
    assert {one.cause: one.amount_eur for one in dispute.new} == {Cause.ACTIVATION: D(2), Cause.FEE: D("0.04")}
    posted = difference(dispute, RUN.lines, CHARGES, INPUTS.period)
    assert {one.charge.cause: one.cents for one in posted.lines} == {
        Cause.ACTIVATION: 40, Cause.PENALTY: 10, Cause.FEE: 1,
    }  # fmt: skip
    assert all("|d1|" in one.charge.corrects for one in posted.lines)
    assert posted == correct(RUN.lines, settle(after, RULES), INPUTS.period)
    assert after.deliveries[1] == INPUTS.deliveries[1]
    assert {one.evidence.certificates for one in dispute.new} == {("protocol 12",)}


@pytest.mark.spec("SET-05")
@pytest.mark.parametrize("changes", [(), (Change("baseline_method", "nominated", "letter"),)])
def test_without_a_change_that_counts_the_line_is_upheld_and_nothing_is_posted(changes: tuple[Change, ...]) -> None:
    dispute, after = decided(changes)
    assert dispute.state is State.UPHELD
    assert after == INPUTS
    assert [one.amount_eur for one in dispute.old] == [one.amount_eur for one in dispute.new]
    with pytest.raises(Conflict, match="upheld"):
        difference(dispute, RUN.lines, CHARGES, INPUTS.period)


def test_a_dispute_survives_being_written_and_read() -> None:
    dispute, _ = decided((NEW_METER,))
    assert read(Dispute, write(dispute), "x") == dispute


def test_who_has_no_part_in_a_line_does_not_dispute_it() -> None:
    with pytest.raises(Forbidden, match="between sp and dso"):
        open_dispute("x1", line(), "tso", START, "no")
    with pytest.raises(CoflexError, match="reason"):
        open_dispute("x1", line(), "dso", START, " ")
    with pytest.raises(CoflexError, match="time zone"):
        open_dispute("x1", line(), "dso", datetime(2026, 11, 2), "why")  # noqa: DTZ001  what is refused


def test_what_rounding_left_is_not_contested_since_it_follows_from_other_lines() -> None:
    shared = delivery(need=Need.SHARED, purchase="half", bought=(Bought("a1", D(25), bid_eur_mwh=D("80.4")),))
    half = Purchase("half", needs={Payer.DSO: D(1), Payer.TSO: D(1)})
    lines = book(settle(settled_inputs(shared, purchases=(half,)), RULES), INPUTS.period).lines
    rounding = next(one for one in lines if one.charge.cause is Cause.ROUNDING)
    with pytest.raises(Conflict, match="what rounding left"):
        open_dispute("x1", rounding, rounding.charge.seller, START, "a cent")


def test_a_decided_dispute_stays_so() -> None:
    withdrawn = withdraw(opened(), START, "found it")
    assert withdrawn.state is State.WITHDRAWN
    with pytest.raises(Conflict, match="withdrawn already"):
        decided((NEW_METER,), withdrawn)
    with pytest.raises(CoflexError, match="before"):
        decided((NEW_METER,), later=-1)


def test_a_line_of_another_period_is_not_found() -> None:
    with pytest.raises(NotFound):
        decided((NEW_METER,), replace(opened(), line="s1|d9|a1|activation|sp|dso"))


def test_a_price_of_an_award_and_a_reading_may_be_what_was_wrong() -> None:
    one = change(delivery(), [Change("a1.bid_eur_mwh", "81.5", "offer"), Change("limited", "true", "order")])
    assert (one.bought[0].bid_eur_mwh, one.limited) == (D("81.5"), True)
    assert change(delivery(), [Change("measured_kwh", None, "the reading was another unit's")]).measured_kwh is None
    assert change(delivery(), [Change("quality", "estimated", "x")]).quality.value == "estimated"


@pytest.mark.parametrize(
    ("field", "value", "source", "code"),
    [
        ("provider", "sp-2", "x", "not_offered"),
        ("a9.bid_eur_mwh", "1", "x", "not_offered"),
        ("a1.award", "a2", "x", "not_offered"),
        ("measured_kwh", "much", "x", "malformed"),
        ("measured_kwh", "NaN", "x", "malformed"),
        ("ordered_kwh", None, "x", "malformed"),
        ("quality", "fine", "x", "malformed"),
        ("limited", "perhaps", "x", "malformed"),
        ("baseline_method", None, "x", "malformed"),
        ("baseline_method", D(1), "x", "malformed"),
        ("measured_kwh", "1", " ", "no_source"),
    ],
)
def test_changes_that_cannot_be_made_are_refused(field: str, value: Any, source: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        change(delivery(), [Change(field, value, source)])
    assert {one.code for one in refused.value.findings} == {code}
