"""Laws and examples of the reference methods of forecasting."""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coflex.domain.errors import CoflexError, NotReady, Refused
from coflex.domain.series import Series
from coflex.domain.time import QUARTER, Axis, delivery_day, midnight
from coflex.forecast.methods import METHODS, persistence, predict, seasonal_naive

ROME = ZoneInfo("Europe/Rome")
SPRING, AUTUMN = date(2016, 3, 27), date(2016, 10, 30)


def days(first: date, last: date) -> Axis:
    start, end = midnight(first, ROME), midnight(last + timedelta(days=1), ROME)
    return Axis(start, (end - start) // QUARTER)


def around(day: date) -> Axis:
    return days(day - timedelta(days=18), day + timedelta(days=18))


def of_clock(axis: Axis, pattern: np.ndarray, period: int) -> np.ndarray:
    """A series that repeats every `period` local days by the local clock; `pattern[d, c]`."""
    local = [instant.astimezone(ROME) for instant in axis]
    return np.array([pattern[i.toordinal() % period, i.hour * 4 + i.minute // 15] for i in local])


def whole_days_before(issued: datetime) -> date:
    return issued.astimezone(ROME).date() - timedelta(days=1)


patterns = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).uniform(-50, 50, (7, 96)))
change_days = st.sampled_from([SPRING, AUTUMN])
shifts = st.integers(-4, 9)


@pytest.mark.spec("FCST-01")
@settings(max_examples=40, deadline=None)
@given(
    change_days, patterns, st.sampled_from([1, 7]), st.integers(-4, 9), st.integers(0, 95), st.sampled_from([1, 2, 9])
)
def test_a_periodic_series_is_forecast_exactly_by_the_fitting_method_over_days_of_92_96_and_100(
    change: date, pattern: np.ndarray, period: int, shift: int, quarter: int, ahead: int
) -> None:
    axis = around(change)
    history = Series(("load",), axis, of_clock(axis, pattern, period)[None])
    issued = midnight(change + timedelta(days=shift), ROME) + quarter * QUARTER
    target = Axis(issued, ahead * 96)
    method, refer = ("persistence", persistence) if period == 1 else ("seasonal_naive", seasonal_naive)
    asked = np.array([i.astimezone(ROME).toordinal() for i in (issued - QUARTER, *target)])
    # A day without the hour from two to three cannot tell what that hour holds.
    assume(SPRING.toordinal() not in refer(asked, whole_days_before(issued).toordinal()))
    expected = history.window(target).values
    np.testing.assert_allclose(predict(history, issued, target, ROME, method), expected, atol=1e-9)


def plain_forecast(history: Series, issued: datetime, target: Axis, method: str) -> list[float]:
    """The formula once more, one instant at a time, by a dictionary of local clock readings."""
    seen: dict[tuple[date, int, int], float] = {}
    for instant, value in zip(history.axis, history.values[0], strict=True):
        if instant + QUARTER <= issued:
            local = instant.astimezone(ROME)
            seen.setdefault((local.date(), local.hour, local.minute), value)
            last, observed = instant, value

    def base(instant: datetime) -> float:
        local = instant.astimezone(ROME)
        day = whole_days_before(issued)
        while method == "seasonal_naive" and (day.weekday() != local.weekday() or day == local.date()):
            day -= timedelta(days=1)
        minute = local.hour * 60 + local.minute
        while (day, minute // 60, minute % 60) not in seen:
            minute -= 15
        return seen[day, minute // 60, minute % 60]

    deviation = observed - base(last)
    return [base(t) + deviation * math.exp(-((t - last) / timedelta(hours=2))) for t in target]


@settings(max_examples=25, deadline=None)
@given(change_days, st.sampled_from(sorted(METHODS)), st.integers(-3, 9), st.integers(0, 95), st.integers(0, 999))
def test_the_table_of_days_and_a_walk_over_instants_give_the_same_forecast(
    change: date, method: str, shift: int, quarter: int, seed: int
) -> None:
    axis = around(change)
    history = Series(("x",), axis, np.random.default_rng(seed).normal(size=(1, len(axis))))
    issued = midnight(change + timedelta(days=shift), ROME) + quarter * QUARTER
    target = Axis(issued + 3 * QUARTER, 100)
    expected = plain_forecast(history, issued, target, method)
    np.testing.assert_allclose(predict(history, issued, target, ROME, method)[0], expected, atol=1e-12)


def test_the_repeated_hour_shows_its_first_occurrence_and_the_missing_hour_the_value_before_the_gap() -> None:
    for change, hour, shown in ((AUTUMN, 2, range(8, 12)), (SPRING, 2, [7, 7, 7, 7])):
        axis = around(change)
        values = np.zeros(len(axis))
        values[axis.slice_of(delivery_day(change, ROME))] = np.arange(len(delivery_day(change, ROME)))
        issued = midnight(change + timedelta(days=1), ROME)
        day = delivery_day(change + timedelta(days=1), ROME)
        made = predict(Series(("x",), axis, values[None]), issued, day, ROME, "persistence", tau=timedelta(seconds=1))
        np.testing.assert_array_equal(made[0, hour * 4 : hour * 4 + 4], list(shown))


@pytest.mark.spec("FCST-01")
def test_the_last_deviation_fades_with_the_lead_over_two_hours() -> None:
    axis = days(date(2016, 6, 1), date(2016, 6, 3))
    values = np.full((1, len(axis)), 10.0)
    issued = midnight(date(2016, 6, 3), ROME) + timedelta(hours=12)
    values[0, axis.position(issued) - 1] = 14.0
    target = Axis(issued, 8)
    made = predict(Series(("x",), axis, values), issued, target, ROME, "persistence")
    # Two hours after the last observation e^-1 of the 4 kW is left: 1.4715 kW.
    assert made[0, 7] == pytest.approx(11.4715, abs=1e-4)
    assert made[0, 0] == pytest.approx(10 + 4 * math.exp(-0.125))


def test_a_quarter_hour_that_has_not_ended_at_the_issue_is_not_looked_at() -> None:
    axis = days(date(2016, 6, 1), date(2016, 6, 3))
    issued = midnight(date(2016, 6, 3), ROME) + timedelta(hours=12, minutes=7)
    values = np.ones((1, len(axis)))
    values[0, axis.position(issued - timedelta(minutes=7)) :] = np.nan
    target = Axis(issued + timedelta(minutes=8), 4)
    made = predict(Series(("x",), axis, values), issued, target, ROME, "persistence")
    np.testing.assert_array_equal(made, np.ones((1, 4)))


def test_a_floor_keeps_values_at_or_above_it() -> None:
    axis = days(date(2016, 6, 1), date(2016, 6, 3))
    values = np.full((1, len(axis)), 1.0)
    issued = midnight(date(2016, 6, 3), ROME) + timedelta(hours=12)
    values[0, axis.position(issued) - 1] = -5.0
    series = Series(("pv",), axis, values)
    assert predict(series, issued, Axis(issued, 4), ROME, "persistence").min() < 0
    assert predict(series, issued, Axis(issued, 4), ROME, "persistence", floor=0.0).min() == 0.0


def test_bad_input_is_refused_with_its_place() -> None:
    axis = days(date(2016, 6, 1), date(2016, 6, 3))
    issued = midnight(date(2016, 6, 3), ROME)
    day = delivery_day(date(2016, 6, 3), ROME)
    good = Series(("a", "b"), axis, np.ones((2, len(axis))))
    with pytest.raises(CoflexError, match="no forecast method 'oracle'"):
        predict(good, issued, day, ROME, "oracle")
    with pytest.raises(CoflexError, match="must hold periods from"):
        predict(good, issued + QUARTER, day, ROME, "persistence")
    with pytest.raises(CoflexError, match="takes quarter-hours"):
        predict(good, issued, Axis(issued, 24, timedelta(hours=1)), ROME, "persistence")
    with pytest.raises(NotReady, match="does not reach back to 2016-05-27"):
        predict(good, issued, day, ROME, "seasonal_naive")
    with pytest.raises(NotReady, match="no whole local day"):
        predict(good.window(axis.window(axis[4], axis.end)), axis[90], day, ROME, "persistence")
    with pytest.raises(NotReady, match="Nothing is known"):
        predict(good, axis.start, day, ROME, "persistence")
    holes = good.values.copy()
    holes[1, 100] = np.nan
    with pytest.raises(Refused) as refused:
        predict(Series(("a", "b"), axis, holes), issued, day, ROME, "persistence")
    assert [finding.place for finding in refused.value.findings] == ["series b"]
