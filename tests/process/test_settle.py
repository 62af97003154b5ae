"""Settle: a line for every award of a set point, baselines with their reasons, books that balance, once."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from coflex.domain.activation import SetPoint
from coflex.domain.statement import Posting, SettlementLine, Statement
from coflex.domain.unit import Technology
from coflex.metering.eligibility import Passed
from coflex.process.day import Day
from coflex.process.lookups import BASELINES, kept_settlement
from coflex.process.settle import settle
from coflex.settlement.books import correct
from coflex.settlement.charges import settle as charge
from coflex.settlement.records import plain
from coflex.settlement.summary import settled
from support.verbs import before, everything, refusal, small_day

LOADS = {Technology.HEAT_PUMP, Technology.EV_CHARGING, Technology.WATER_PUMP, Technology.INDUSTRIAL_LOAD}


@pytest.mark.spec("SET-02", "SET-06")
def test_the_lines_cover_every_order_and_the_books_balance() -> None:
    with before("report").transaction() as t:
        points, lines, postings = t.all(SetPoint), t.all(SettlementLine), t.all(Posting)
        statements = {statement.party for statement in t.all(Statement)}
    ordered: dict[tuple, Decimal] = {}
    for line in lines:
        key = line.unit, line.start
        ordered[key] = ordered.get(key, Decimal(0)) + line.ordered_kwh
    assert ordered == {(p.unit, p.start): Decimal(p.ordered_kw) / 4 for p in points}
    assert sum(posting.cents for posting in postings) == 0
    assert statements >= {line.buyer for line in lines} | {line.provider for line in lines}
    assert {line.rule for line in lines} == {"local_congestion@1", "mfrr@1"}


@pytest.mark.spec("SET-01")
def test_loads_are_measured_against_similar_days_and_the_rest_against_their_nomination() -> None:
    with before("report").transaction() as t:
        lines = t.all(SettlementLine)
    methods = {(small_day().unit_by_id[line.unit].technology in LOADS, line.baseline_method) for line in lines}
    assert methods == {(True, "last_4_alike@1"), (False, "nominated@1")}


@pytest.mark.spec("SET-01")
def test_every_baseline_is_kept_with_its_days_and_why_others_were_passed_over() -> None:
    with before("report").transaction() as t:
        kept = (t.document(BASELINES) or {})["records"]
        called = {point.unit for point in t.all(SetPoint)}
    assert {one["unit"] for one in kept} == called
    history = [one for one in kept if one["method"] == "last_4_alike"]
    assert history
    for one in history:
        # The small case begins on a Saturday 31 days before its Tuesday.
        assert one["days"] == ["2016-06-29", "2016-06-30", "2016-07-01", "2016-07-04"]
        reasons = dict(one["passed"])
        assert reasons.pop("2016-07-02") == reasons.pop("2016-07-03") == Passed.OTHER_TYPE
        assert set(reasons.values()) == {Passed.OTHER_TYPE, Passed.NOT_NEEDED}
        assert len(one["days"]) + len(one["passed"]) == 31
        assert {span["unit"] for span in one["read"]} == {one["unit"]}


@pytest.mark.spec("SET-01")
def test_a_load_without_enough_days_is_measured_against_its_nomination() -> None:
    case, store = small_day().case, before("settle")
    known = case.profiles.axis
    short = case.profiles.window(known.window(case.axis.start - timedelta(days=3), known.end))
    settle(Day(replace(case, profiles=short), small_day().design), store)
    with store.transaction() as t:
        assert {line.baseline_method for line in t.all(SettlementLine)} == {"nominated@1"}


@pytest.mark.spec("SET-06")
def test_what_is_kept_gives_the_same_lines_and_postings_again_and_nothing_to_correct() -> None:
    with before("report").transaction() as t:
        inputs, rules = kept_settlement(t)
        lines, postings = t.all(SettlementLine), t.all(Posting)
    again, run = settled(inputs, rules)
    assert set(again) == set(lines)
    assert set(run.postings) == set(postings)
    assert correct(run.lines, charge(inputs, rules), inputs.period).lines == ()


def test_settled_twice_from_the_same_measurements_a_day_is_the_same() -> None:
    stores = before("settle"), before("settle")
    told = [settle(small_day(), store) for store in stores]
    assert told[0] == told[1]
    assert everything(stores[0]) == everything(stores[1])


def test_what_is_kept_is_plain_json() -> None:
    with before("report").transaction() as t:
        inputs, _ = kept_settlement(t)
        kept = t.document("settlement")
    assert kept is not None and kept["inputs"] == json.loads(json.dumps(plain(inputs)))


def test_a_day_is_settled_only_once_it_is_measured() -> None:
    assert "coflex measure" in refusal("settle", "measure").remedy


@pytest.mark.parametrize("stage", ["register", "clear", "activate"])
def test_a_day_that_was_not_activated_is_not_settled(stage: str) -> None:
    assert "coflex measure" in refusal("settle", stage).remedy


def test_a_day_is_settled_once() -> None:
    assert "already settled" in refusal("settle", "report").message
