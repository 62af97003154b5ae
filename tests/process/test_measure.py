"""Measure: readings of every called unit and the four states of the grid, once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from coflex.domain.activation import SetPoint
from coflex.domain.reading import Reading
from coflex.domain.series import Series
from coflex.process.lookups import STATES
from coflex.process.measure import measure
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


class Sluggish:
    """Devices that do a share of what they are told."""

    def __init__(self, share: float) -> None:
        self.share = share

    def respond(self, setpoints: Sequence[SetPoint], baseline: Series) -> Series:
        values = baseline.values.copy()
        for point in setpoints:
            change = point.direction.sign * self.share * point.ordered_kw
            values[baseline.names.index(point.unit), baseline.axis.position(point.start)] += change
        return Series(baseline.names, baseline.axis, values)


@pytest.mark.spec("ACT-03")
def test_orders_count_as_missed_where_less_than_three_quarters_came_and_only_there() -> None:
    with before("measure").transaction() as t:
        points = [point for point in t.all(SetPoint) if point.ordered_kw]
    assert measure(small_day(), before("measure"), Sluggish(1.0)).missed == 0
    store = before("measure")
    told = measure(small_day(), store, Sluggish(0.7))
    with store.transaction() as t:
        missed = {(one["unit"], one["start"]) for one in (t.document("monitoring") or {})["missed"]}
    # Where the nomination was wrong by as much, the unit stands beyond its set point and has missed nothing.
    assert 0 < told.missed == len(missed) <= len(points)
    assert missed <= {(point.unit, point.start.isoformat()) for point in points}


@pytest.mark.parametrize("stage", ["register", "clear", "activate"])
def test_nothing_is_measured_before_set_points_are_sent(stage: str) -> None:
    assert "coflex activate" in refusal("measure", stage).remedy


def test_a_day_is_measured_once() -> None:
    assert "already measured" in refusal("measure", "settle").message
