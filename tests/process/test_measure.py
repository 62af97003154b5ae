"""Measure: readings of every called unit and the four states of the grid, once."""

from __future__ import annotations

import pytest

from coflex.domain.activation import SetPoint
from coflex.domain.reading import Reading
from coflex.process.lookups import STATES
from support.verbs import before, refusal, small_day


def test_every_called_unit_has_a_reading_of_every_quarter_hour_and_no_other_unit_has_any() -> None:
    with before("settle").transaction() as t:
        called = {point.unit for point in t.all(SetPoint)}
        readings = t.all(Reading)
    assert {(r.unit, r.start) for r in readings} == {
        (unit, start) for unit in called for start in small_day().case.axis
    }


@pytest.mark.spec("GRID-03")
def test_each_state_of_the_day_is_kept_with_its_violations_and_the_plan_has_none() -> None:
    with before("settle").transaction() as t:
        for name in STATES:
            assert t.document(f"violations/{name}") is not None
            state = t.series(f"state/{name}/vm")
            assert state is not None
            assert state.axis == small_day().case.axis
        assert (t.document("violations/planned") or {})["violations"] == []


@pytest.mark.spec("ACT-03")
def test_an_order_counts_as_missed_where_the_unit_moved_too_little() -> None:
    with before("settle").transaction() as t:
        missed = (t.document("monitoring") or {})["missed"]
        ordered = {(point.unit, point.start.isoformat()): point.ordered_kw for point in t.all(SetPoint)}
    assert missed
    assert all(
        one["moved_kw"] < 0.75 * ordered[one["unit"], one["start"]] == 0.75 * one["ordered_kw"] for one in missed
    )


@pytest.mark.parametrize("stage", ["register", "clear", "activate"])
def test_nothing_is_measured_before_set_points_are_sent(stage: str) -> None:
    assert "coflex activate" in refusal("measure", stage).remedy


def test_a_day_is_measured_once() -> None:
    assert "already measured" in refusal("measure", "settle").message
