"""Activate: one set point for each definitive holding, once, after the last session."""

from __future__ import annotations

import pytest

from coflex.domain.activation import Hop, SetPoint
from coflex.domain.clearing import Holding, Status
from coflex.process.ports import Event
from support.verbs import before, refusal


@pytest.mark.spec("ACT-01")
def test_every_definitive_holding_has_its_set_point_confirmed_down_to_the_customer() -> None:
    with before("measure").transaction() as t:
        held = {(h.unit, h.start): h for h in t.all(Holding, status=Status.DEFINITIVE)}
        points = t.all(SetPoint)
    assert points
    assert {(point.unit, point.start) for point in points} == held.keys()
    for point in points:
        holding = held[point.unit, point.start]
        assert (point.buyer, point.direction) == (holding.buyer, holding.direction)
        assert 0 <= point.ordered_kw <= point.awarded_kw == holding.quantity_kw
        assert point.acknowledged is Hop.ENERGY_MANAGEMENT_SYSTEM


@pytest.mark.spec("ACT-01")
def test_every_order_is_confirmed_to_the_operator_that_gave_it_before_it_begins() -> None:
    with before("measure").transaction() as t:
        events, starts = t.all(Event), {point.start for point in t.all(SetPoint)}
    orders = [event for event in events if event.kind == "activation_order"]
    answers = [event for event in events if event.kind == "acknowledgement"]
    assert {(e.at, e.sender) for e in orders} == {(e.at, e.receiver) for e in answers}
    assert all(event.at < min(start for start in starts if start > event.at) for event in orders)


def test_nothing_is_ordered_while_a_session_is_still_to_be_cleared() -> None:
    assert "12 sessions are not cleared yet" in refusal("activate", "plan").message
    assert "coflex clear" in refusal("activate", "clear").remedy


def test_set_points_are_sent_once() -> None:
    assert "already sent" in refusal("activate", "measure").message
