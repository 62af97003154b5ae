"""Baselines: golden numbers, laws, and the days on which the clock changes."""

from __future__ import annotations

import doctest
from datetime import date, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coflex.domain.errors import CoflexError, OutsideAxis, Refused
from coflex.domain.quantity import Floats
from coflex.domain.series import Series
from coflex.domain.time import Axis, delivery_day
from coflex.metering.baselines import (
    Adjust,
    MeterBefore,
    Nominated,
    Pick,
    SameDay,
    XofY,
    align_history,
    meter_before,
    nominated,
    x_of_y,
)
from coflex.metering.eligibility import DayRule, UnitCalendar, judge_days, may_stand

ROME = ZoneInfo("Europe/Rome")
PAGE = Path(__file__).parents[2] / "docs" / "mathematics" / "baselines.md"
QUARTERS, DAYS = 24, 7
EVENT = np.isin(np.arange(QUARTERS), [18, 19, 20])
kilowatts = st.floats(-1e4, 1e4, allow_subnormal=False)
histories = arrays(np.float64, (DAYS, QUARTERS), elements=kilowatts)
todays = arrays(np.float64, QUARTERS, elements=kilowatts)
sizes = st.sampled_from([(1, 1), (1, 5), (3, 5), (5, 7), (7, 7), (2, 6)])
adjustments = st.builds(
    SameDay, kind=st.sampled_from(Adjust), quarters=st.integers(1, 12), gap=st.integers(4, 8), cap=st.floats(0, 0.5)
)

# How long a machine takes is no matter of these laws.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def all_days(history: Floats) -> np.ndarray:
    return np.ones(len(history), dtype=np.bool_)


@pytest.mark.spec("SET-01")
def test_the_worked_example_of_the_mathematics_page_comes_out_of_the_code() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted > 5
    assert result.failed == 0


@pytest.mark.spec("SET-01")
@pytest.mark.parametrize(
    ("pick", "days", "level"),
    [(Pick.HIGH, (2, 3, 5), -120.0), (Pick.MID, (1, 3, 5), -320 / 3), (Pick.LOW, (1, 3, 4), -280 / 3)],
)
def test_high_mid_and_low_pick_the_days_a_person_would(pick: Pick, days: tuple[int, ...], level: float) -> None:
    history = -np.outer([500.0, 90.0, 130.0, 110.0, 80.0, 120.0, 130.0], np.ones(QUARTERS))
    eligible = np.array([False, True, True, True, True, True, False])
    result = x_of_y(history, eligible, EVENT, None, 0, XofY(3, 5, pick))
    assert result.days == days
    assert result.values == pytest.approx(np.full(QUARTERS, level))
    assert result.enough


def test_a_generator_is_ranked_by_what_it_feeds_in_and_ties_go_to_the_more_recent_day() -> None:
    history = np.outer([30.0, 50.0, 40.0, 50.0, 20.0], np.ones(QUARTERS))
    assert x_of_y(history, all_days(history), EVENT, None, 0, XofY(1, 5)).days == (3,)
    assert x_of_y(history, all_days(history), EVENT, None, 0, XofY(1, 5, Pick.LOW)).days == (4,)


@CALM
@given(histories, sizes)
def test_high_is_at_least_mid_is_at_least_low_in_the_units_own_direction(
    history: Floats, size: tuple[int, int]
) -> None:
    levels = {}
    for pick in Pick:
        levels[pick] = x_of_y(history, all_days(history), EVENT, None, 0, XofY(*size, pick)).values[EVENT].mean()
    candidates = history[-size[1] :, EVENT].mean(axis=1).sum()
    own = 1.0 if candidates > 0 else -1.0
    slack = 1e-6
    assert own * levels[Pick.HIGH] >= own * levels[Pick.MID] - slack
    assert own * levels[Pick.MID] >= own * levels[Pick.LOW] - slack


@pytest.mark.spec("SET-01")
@CALM
@given(histories, todays, todays, st.integers(-4, QUARTERS), adjustments)
def test_no_adjustment_sees_what_was_metered_after_notice_or_in_the_hour_before_the_event(
    history: Floats, today: Floats, other: Floats, notice: int, adjustment: SameDay
) -> None:
    method = XofY(3, 5, Pick.HIGH, adjustment)
    blind = min(max(notice, 0), 14)
    changed = np.concatenate([today[:blind], other[blind:]])
    first = x_of_y(history, all_days(history), EVENT, today, notice, method)
    second = x_of_y(history, all_days(history), EVENT, changed, notice, method)
    assert np.array_equal(first.values, second.values)
    assert first.adjustment == second.adjustment
    assert first.known_at <= blind


@CALM
@given(histories, todays, adjustments)
def test_an_adjustment_stays_within_its_cap(history: Floats, today: Floats, adjustment: SameDay) -> None:
    plain = x_of_y(history, all_days(history), EVENT, None, 24, XofY(3, 5)).values
    adjusted = x_of_y(history, all_days(history), EVENT, today, 24, XofY(3, 5, Pick.HIGH, adjustment)).values
    moved = abs(adjusted[EVENT].mean() - plain[EVENT].mean())
    assert moved <= adjustment.cap * abs(plain[EVENT].mean()) + 1e-6


@CALM
@given(histories, todays, st.sampled_from([2.0, 0.5, 8.0, -1.0]), adjustments)
def test_scaled_or_mirrored_power_gives_the_scaled_or_mirrored_baseline(
    history: Floats, today: Floats, factor: float, adjustment: SameDay
) -> None:
    method = XofY(3, 5, Pick.HIGH, adjustment)
    plain = x_of_y(history, all_days(history), EVENT, today, 24, method)
    scaled = x_of_y(factor * history, all_days(history), EVENT, factor * today, 24, method)
    if history[-5:, EVENT].mean(axis=1).sum() != 0:  # a unit without a direction of its own counts as a load
        assert scaled.days == plain.days
        assert scaled.values == pytest.approx(factor * plain.values, rel=1e-9, abs=1e-6)


def test_a_scalar_adjustment_multiplies_and_an_additive_one_adds() -> None:
    history = -np.outer(np.ones(DAYS), np.where(np.arange(QUARTERS) < 16, 50.0, 100.0))
    today = np.full(QUARTERS, -55.0)
    added = x_of_y(history, all_days(history), EVENT, today, 24, XofY(3, 5, Pick.HIGH, SameDay(quarters=4)))
    scaled = x_of_y(
        history, all_days(history), EVENT, today, 24, XofY(3, 5, Pick.HIGH, SameDay(Adjust.SCALAR, quarters=4))
    )
    assert added.values[18] == pytest.approx(-105.0)
    assert scaled.values[18] == pytest.approx(-110.0)
    assert added.method == "high 3 of 5, additive same-day adjustment"


def test_a_window_that_is_not_whole_makes_no_adjustment() -> None:
    history = np.full((DAYS, QUARTERS), -100.0)
    method = XofY(3, 5, Pick.HIGH, SameDay(quarters=12))
    gap = np.full(QUARTERS, -110.0)
    gap[6] = np.nan
    for today, notice in ((gap, 24), (np.full(QUARTERS, -110.0), 8), (np.full(QUARTERS, -110.0), -40)):
        result = x_of_y(history, all_days(history), EVENT, today, notice, method)
        assert result.adjustment is None
        assert np.array_equal(result.values, history[0])


def test_a_ratio_to_nothing_makes_no_adjustment() -> None:
    history = np.zeros((DAYS, QUARTERS))
    method = XofY(3, 5, Pick.HIGH, SameDay(Adjust.SCALAR))
    assert x_of_y(history, all_days(history), EVENT, np.ones(QUARTERS), 24, method).adjustment is None


@CALM
@given(histories, st.integers(0, DAYS))
def test_fewer_than_x_days_give_no_numbers_and_days_with_gaps_do_not_count(history: Floats, broken: int) -> None:
    history[:broken, 3] = np.nan
    result = x_of_y(history, all_days(history), EVENT, None, 0, XofY(4, 6))
    assert result.enough == (DAYS - broken >= 4)
    assert np.isfinite(result.values).all() == result.enough
    assert all(day >= broken for day in result.days)


def test_with_an_odd_day_to_drop_the_middle_gives_the_payer_the_doubt() -> None:
    history = -np.outer([100.0, 110.0, 120.0, 130.0], np.ones(QUARTERS))
    result = x_of_y(history, all_days(history), EVENT, None, 0, XofY(3, 5, Pick.MID))
    assert result.days == (0, 1, 2)


@pytest.mark.spec("SET-01")
def test_meter_before_holds_the_mean_before_the_event_and_stops_at_notice() -> None:
    today = np.arange(QUARTERS, dtype=np.float64)
    assert meter_before(today, EVENT, 24, MeterBefore(4)).values[18] == pytest.approx(15.5)
    early = meter_before(today, EVENT, 10, MeterBefore(4))
    assert early.values[18] == pytest.approx(7.5)
    assert early.known_at == 10
    both = meter_before(today, EVENT, 24, MeterBefore(4, after=2))
    assert both.values[18] == pytest.approx((15.5 + 21.5) / 2)
    assert both.known_at == 23 > 18
    assert both.method == "meter before 4 and after 2"


def test_meter_before_says_so_when_a_window_is_not_whole() -> None:
    today = np.ones(QUARTERS)
    for notice, method in ((2, MeterBefore(4)), (24, MeterBefore(4, after=4)), (-9, MeterBefore(1))):
        result = meter_before(today, EVENT, notice, method)
        assert not result.enough
        assert np.isnan(result.values).all()


@CALM
@given(todays)
def test_a_nomination_is_its_own_baseline_and_known_beforehand(nomination: Floats) -> None:
    result = nominated(nomination)
    assert np.array_equal(result.values, nomination)
    assert (result.enough, result.known_at, result.method) == (True, 0, "nominated")


@pytest.mark.spec("SET-01")
def test_a_provider_whose_nominations_were_wrong_is_not_trusted() -> None:
    nomination, metered = np.full(4, -100.0), np.full(96, -100.0)
    wavering = metered + np.tile([34.0, -34.0], 48)
    assert nominated(nomination, past=(wavering, metered)).enough
    assert not nominated(nomination, past=(metered + np.tile([36.0, -36.0], 48), metered)).enough
    assert not nominated(nomination, past=(metered - 16.0, metered)).enough
    assert nominated(nomination, Nominated(centring_error=0.2), (metered - 16.0, metered)).enough
    assert not nominated(np.array([1.0, np.nan])).enough


def test_impossible_methods_are_refused_with_every_fault() -> None:
    with pytest.raises(Refused) as same_day:
        SameDay(quarters=0, gap=3, cap=1.0)
    assert len(same_day.value.findings) == 3
    with pytest.raises(Refused):
        XofY(6, 5)
    with pytest.raises(Refused):
        XofY(2, 5, Pick.MID)
    with pytest.raises(Refused):
        MeterBefore(0)


def test_shapes_that_do_not_fit_and_empty_events_are_named() -> None:
    history = np.zeros((DAYS, QUARTERS))
    with pytest.raises(CoflexError, match="fit"):
        x_of_y(history, all_days(history), EVENT[:-1], None, 0, XofY(3, 5))
    with pytest.raises(CoflexError, match="event"):
        x_of_y(history, all_days(history), np.zeros(QUARTERS, dtype=np.bool_), None, 0, XofY(3, 5))


def test_working_days_stand_for_working_days_and_weekends_for_weekends() -> None:
    target = date(2016, 5, 12)  # a Thursday
    days = [target + timedelta(days=k) for k in range(-7, 2)]
    called = UnitCalendar(events=frozenset({date(2016, 5, 10)}))
    picked = may_stand(judge_days(days, target, DayRule(), called))
    assert [day.day for day, flag in zip(days, picked, strict=True) if flag] == [5, 6, 9, 11]
    holiday = may_stand(judge_days(days, target, DayRule(), UnitCalendar(holidays=frozenset({target}))))
    assert [day.day for day, flag in zip(days, holiday, strict=True) if flag] == [7, 8]


def clocked(first: date, days: int) -> tuple[Series, list[Axis]]:
    """A series whose value is its quarter's place in its own local day."""
    axes = [delivery_day(first + timedelta(days=k), ROME) for k in range(days)]
    whole = Axis(axes[0].start, sum(len(axis) for axis in axes))
    values = np.concatenate([np.arange(len(axis)) for axis in axes]).astype(np.float64)
    return Series(("unit",), whole, values[None, :]), axes


def test_history_on_ordinary_days_is_laid_side_by_side() -> None:
    series, axes = clocked(date(2016, 5, 9), 3)
    aligned = align_history(series, "unit", axes[:2], axes[2], ROME)
    assert np.array_equal(aligned, np.tile(np.arange(96.0), (2, 1)))


def test_on_a_day_of_100_quarters_the_repeated_hour_takes_the_first_occurrence_twice() -> None:
    series, axes = clocked(date(2016, 10, 29), 2)
    assert len(axes[1]) == 100
    aligned = align_history(series, "unit", axes[:1], axes[1], ROME)[0]
    assert np.array_equal(aligned[8:16], [8, 9, 10, 11, 8, 9, 10, 11])
    assert aligned[-1] == 95
    same = align_history(series, "unit", axes[1:], axes[1], ROME)[0]
    assert np.array_equal(same, np.arange(100.0))


def test_a_past_day_of_100_quarters_gives_its_first_occurrence_to_an_ordinary_day() -> None:
    series, axes = clocked(date(2016, 10, 30), 2)
    aligned = align_history(series, "unit", axes[:1], axes[1], ROME)[0]
    assert np.array_equal(aligned[6:14], [6, 7, 8, 9, 10, 11, 16, 17])


def test_a_past_day_of_92_quarters_holds_the_value_before_its_missing_hour() -> None:
    series, axes = clocked(date(2016, 3, 27), 2)
    assert len(axes[0]) == 92
    aligned = align_history(series, "unit", axes[:1], axes[1], ROME)[0]
    assert np.array_equal(aligned[6:14], [6, 7, 7, 7, 7, 7, 8, 9])


def test_an_ordinary_past_day_loses_the_hour_that_the_event_day_lacks() -> None:
    series, axes = clocked(date(2016, 3, 26), 2)
    aligned = align_history(series, "unit", axes[:1], axes[1], ROME)[0]
    assert np.array_equal(aligned[6:10], [6, 7, 12, 13])


def test_a_day_that_begins_after_midnight_holds_its_first_value_before_it() -> None:
    beirut = ZoneInfo("Asia/Beirut")  # the clock skips the hour after midnight in spring
    axes = [delivery_day(date(2016, 3, 27), beirut), delivery_day(date(2016, 3, 28), beirut)]
    series = Series(("unit",), Axis(axes[0].start, 188), np.arange(188.0)[None, :])
    aligned = align_history(series, "unit", axes[:1], axes[1], beirut)[0]
    assert np.array_equal(aligned[:6], [0, 0, 0, 0, 0, 1])


def test_history_that_the_series_does_not_hold_is_refused() -> None:
    series, axes = clocked(date(2016, 5, 9), 2)
    with pytest.raises(OutsideAxis):
        align_history(series, "unit", [delivery_day(date(2016, 5, 11), ROME)], axes[0], ROME)
