"""Measured against the set point: alarms that begin late enough, end late enough, and know since when (ACT-03)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.activation.monitor import Alarm, Limits, Sample, Watch, alarms, deviation_kw, follow

BEGIN = datetime(2026, 7, 5, 10, tzinfo=UTC)
LIMITS = Limits(enter=0.10, leave=0.05, floor_kw=1.0, after_s=60, silent_s=30)


def samples(changes: list[float | None], set_kw: float = 100.0, step_s: int = 10) -> list[Sample]:
    return [Sample(BEGIN + timedelta(seconds=step_s * k), set_kw, change) for k, change in enumerate(changes)]


@pytest.mark.spec("ACT-03")
def test_a_deviation_is_an_alarm_after_its_time_and_since_it_began() -> None:
    found = list(alarms(samples([100.0] * 3 + [80.0] * 10 + [94.0] * 10 + [97.0] * 10), LIMITS))
    assert [(at, watch.alarm) for at, watch in found] == [
        (BEGIN + timedelta(seconds=90), Alarm.SHORT),
        (BEGIN + timedelta(seconds=290), Alarm.NONE),
    ]
    assert found[0][1].since == BEGIN + timedelta(seconds=30) and found[0][1].deviation_kw == -20.0


@pytest.mark.spec("ACT-03")
def test_over_and_short_are_seen_from_the_order_whichever_way_it_goes() -> None:
    assert deviation_kw(Sample(BEGIN, -100.0, -80.0)) == -20.0
    assert deviation_kw(Sample(BEGIN, -100.0, -130.0)) == 30.0
    assert deviation_kw(Sample(BEGIN, 0.0, -7.0)) == 7.0
    (at, watch), *_ = alarms(samples([-130.0] * 10, -100.0), LIMITS)
    assert watch.alarm is Alarm.OVER and at == BEGIN + timedelta(seconds=60)


@pytest.mark.spec("ACT-03")
@settings(deadline=None)
@given(st.lists(st.floats(90.5, 109.5), max_size=60))
def test_noise_inside_the_outer_bound_raises_no_alarm(changes: list[float]) -> None:
    assert list(alarms(samples(list(changes)), LIMITS)) == []


@pytest.mark.spec("ACT-03")
@settings(deadline=None)
@given(st.lists(st.sampled_from([80.0, 85.0, 92.0, 94.0]), min_size=8, max_size=60))
def test_an_alarm_does_not_flicker_while_the_deviation_is_beyond_the_inner_bound(changes: list[float]) -> None:
    found = [watch.alarm for _, watch in alarms(samples([80.0] * 8 + changes), LIMITS)]
    assert found == [Alarm.SHORT]


@pytest.mark.spec("ACT-03")
def test_a_unit_that_says_nothing_is_silent_and_comes_back() -> None:
    found = list(alarms(samples([100.0, None, None, None, None, 100.0, 100.0]), LIMITS))
    assert [watch.alarm for _, watch in found] == [Alarm.SILENT, Alarm.NONE]
    assert found[0][1].since == BEGIN
    never = list(alarms(samples([None] * 6), LIMITS))
    assert [watch.alarm for _, watch in never] == [Alarm.SILENT]


def test_a_sample_out_of_order_changes_nothing() -> None:
    watch = follow(Watch(), Sample(BEGIN, 100.0, 80.0), LIMITS)
    assert follow(watch, Sample(BEGIN - timedelta(seconds=1), 100.0, 100.0), LIMITS) == watch
