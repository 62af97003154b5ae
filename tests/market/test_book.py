"""The book: one canonical order, whatever the order of arrival."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.market.book import Place, build
from support.books import DOWN, START, UP, axis, book, offer

OFFERS = [
    offer(3, "a", UP, ("12.50", [100, 0, 50]), ("20.00", [10, 10, 10])),
    offer(1, "b", UP, ("12.50", [70, 70, 70])),
    offer(2, "c", DOWN, ("-4.00", [5, 5, 5])),
    offer(5, "d", UP, ("1.00", [30, 30, 30])),
]


@pytest.mark.spec("MKT-19")
@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.permutations(OFFERS))
def test_any_order_of_arrival_gives_the_same_columns(shuffled: list) -> None:
    first, second = book(OFFERS, 3), book(shuffled, 3)
    assert first.offers == second.offers
    for name in ("offer", "step", "period", "sign", "quantity_mw", "price", "node", "perimeter", "tan_phi"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.spec("MKT-03")
def test_blocks_stand_by_quarter_hour_direction_price_and_receipt() -> None:
    b = book(OFFERS, 3)
    rows = [
        (int(t), int(s), float(p), b.offers[int(o)].receipt)
        for t, s, p, o in zip(b.period, b.sign, b.price, b.offer, strict=True)
    ]
    assert rows == sorted(rows, key=lambda row: (row[0], -row[1], row[2], row[3]))
    assert [row for row in rows if row[0] == 0] == [
        (0, 1, 1.0, 5),
        (0, 1, 12.5, 1),
        (0, 1, 12.5, 3),
        (0, 1, 20.0, 3),
        (0, -1, -4.0, 2),
    ]


@pytest.mark.spec("MKT-03")
def test_empty_quarter_hours_and_those_outside_the_horizon_are_no_blocks() -> None:
    early = offer(1, "a", UP, ("5.00", [1, 2, 0, 4, 5]))
    moved = replace(early, steps=(replace(early.steps[0], start=START - timedelta(minutes=15)),))
    b = build([moved], axis(3), {"a": Place(7, "F1", 0.3)})
    assert b.period.tolist() == [0, 2] and (b.quantity_mw * 1000).round().tolist() == [2, 4]
    assert b.node.tolist() == [7, 7] and b.perimeters == ("F1",) and b.tan_phi.tolist() == [0.3, 0.3]


@pytest.mark.spec("MKT-03")
def test_a_book_without_offers_is_empty() -> None:
    assert len(book([], 4)) == 0
