"""Settle: a line for every set point and price, books that balance, once."""

from __future__ import annotations

from decimal import Decimal

import pytest

from coflex.domain.activation import SetPoint
from coflex.domain.statement import Posting, SettlementLine, Statement
from support.verbs import before, refusal, small_day


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


@pytest.mark.spec("SET-01")
def test_loads_are_measured_against_similar_days_and_the_rest_against_their_nomination() -> None:
    with before("report").transaction() as t:
        methods = {(small_day().unit_by_id[x.unit].technology, x.baseline_method) for x in t.all(SettlementLine)}
    nominated = {technology for technology, method in methods if method == "nominated schedule"}
    others = {technology for technology, method in methods if method != "nominated schedule"}
    assert others
    assert nominated.isdisjoint(others)


def test_a_day_is_settled_only_once_it_is_measured() -> None:
    assert "coflex measure" in refusal("settle", "measure").remedy


@pytest.mark.parametrize("stage", ["register", "clear", "activate"])
def test_a_day_that_was_not_activated_is_not_settled(stage: str) -> None:
    assert "coflex measure" in refusal("settle", stage).remedy


def test_a_day_is_settled_once() -> None:
    assert "already settled" in refusal("settle", "report").message
