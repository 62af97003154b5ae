"""Laws and examples of the rolling backtest and of the choice it makes."""

from __future__ import annotations

import time
from datetime import date, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.errors import CoflexError, NotReady
from coflex.domain.series import Series
from coflex.domain.time import QUARTER, Axis, delivery_day, midnight, moment
from coflex.forecast import METHODS, forecast
from coflex.forecast.backtest import backtest

ROME = ZoneInfo("Europe/Rome")
DAY = date(2016, 10, 30)
AXIS = Axis(midnight(date(2016, 8, 20), ROME), 80 * 96)
LOCAL = [instant.astimezone(ROME) for instant in AXIS]
ORDINAL = np.array([local.toordinal() for local in LOCAL])
CLOCK = np.array([local.hour * 4 + local.minute // 15 for local in LOCAL])
NO_MEMORY = timedelta(seconds=1)


def noise(seed: int, count: int = 3) -> Series:
    values = np.random.default_rng(seed).normal(size=(count, len(AXIS))).cumsum(axis=1) / 5
    return Series(tuple(f"s{i}" for i in range(count)), AXIS, values)


def issue_and_target(lead: str, day: date = DAY) -> tuple:
    if lead == "day-ahead":
        return moment("D-1T08:00", day, ROME), delivery_day(day, ROME)
    issued = midnight(day, ROME) + timedelta(hours=12)
    if lead == "intraday":
        return issued, delivery_day(day, ROME).window(issued + timedelta(hours=1), midnight(date(2016, 10, 31), ROME))
    return issued, Axis(issued + 4 * QUARTER, 4)


leads = st.sampled_from(["day-ahead", "intraday", "hour-ahead"])


@pytest.mark.spec("FCST-01", "FCST-02")
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), leads, st.sampled_from([np.nan, np.inf, 1e9]))
def test_values_from_the_issue_on_do_not_matter(seed: int, lead: str, later: float) -> None:
    history = noise(seed)
    issued, target = issue_and_target(lead)
    changed = history.values.copy()
    changed[:, AXIS.position(issued) :] = later
    other = Series(history.names, AXIS, changed)
    first, second = (forecast(series, issued, target, ROME) for series in (history, other))
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(first.quantiles, second.quantiles)
    assert first.methods == second.methods
    scores = [backtest(series, issued, ROME, 5, "persistence", target=target) for series in (history, other)]
    np.testing.assert_array_equal(scores[0].mae, scores[1].mae)
    np.testing.assert_array_equal(scores[0].pinball, scores[1].pinball)


@pytest.mark.spec("FCST-01")
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), leads, st.lists(st.floats(0.01, 0.99), min_size=1, max_size=6, unique=True).map(sorted))
def test_quantiles_do_not_fall_with_the_level_and_respect_the_floor(seed: int, lead: str, levels: list) -> None:
    issued, target = issue_and_target(lead)
    made = forecast(noise(seed), issued, target, ROME, levels=levels, floor=0.0)
    assert made.quantiles.shape == (len(levels), 3, len(target))
    assert (np.diff(made.quantiles, axis=0) >= 0).all()
    assert made.quantiles.min() >= 0
    assert made.values.min() >= 0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 999), st.permutations([0, 1, 2]))
def test_the_forecast_of_a_series_does_not_depend_on_the_others_nor_on_their_order(seed: int, order: list) -> None:
    history = noise(seed)
    issued, target = issue_and_target("day-ahead")
    whole = forecast(history, issued, target, ROME)
    shuffled = forecast(
        Series(tuple(history.names[i] for i in order), AXIS, history.values[order]), issued, target, ROME
    )
    np.testing.assert_array_equal(shuffled.values, whole.values[order])
    np.testing.assert_array_equal(shuffled.quantiles, whole.quantiles[:, order])


@pytest.mark.spec("FCST-02")
def test_each_series_gets_the_method_that_fits_it() -> None:
    weekly = np.random.default_rng(1).uniform(0, 9, (7, 96))[ORDINAL % 7, CLOCK]
    drifting = ORDINAL * 1.0
    history = Series(("weekly", "drifting"), AXIS, np.stack([weekly, drifting]))
    issued, target = issue_and_target("day-ahead", date(2016, 10, 27))
    made = forecast(history, issued, target, ROME)
    assert made.methods == ("seasonal_naive", "persistence")
    truth = history.window(target).values[0]
    np.testing.assert_allclose(made.values[0], truth, atol=1e-12)
    np.testing.assert_allclose(made.quantiles[:, 0], np.tile(truth, (3, 1)), atol=1e-12)


@pytest.mark.spec("FCST-02")
def test_a_series_that_rises_one_a_day_is_missed_by_the_days_the_method_looks_back() -> None:
    history = Series(("rising",), AXIS, ORDINAL[None] * 1.0)
    issued, target = issue_and_target("day-ahead")
    # At eight o'clock of the day before, the last whole day lies two days before delivery; the same weekday seven.
    for method, missed in (("persistence", 2), ("seasonal_naive", 7)):
        score = backtest(history, issued, ROME, 10, method, tau=NO_MEMORY)
        assert (score.days, score.mae[0], score.rmse[0]) == (10, pytest.approx(missed), pytest.approx(missed))
        np.testing.assert_allclose(score.pinball, 0.0, atol=1e-9)
    made = forecast(history, issued, target, ROME, tau=NO_MEMORY)
    np.testing.assert_allclose(made.quantiles, DAY.toordinal())
    np.testing.assert_allclose(made.values, DAY.toordinal() - 2)


@pytest.mark.spec("FCST-02")
def test_the_quantiles_scored_on_a_replay_come_from_replays_wholly_known_before_it() -> None:
    history = Series(("bent",), AXIS, (ORDINAL[None] - ORDINAL[0]) ** 2.0)
    issued, _ = issue_and_target("day-ahead")
    score = backtest(history, issued, ROME, 1, "persistence", tau=NO_MEMORY)
    # The error of day n is n^2 - (n - 2)^2 = 4n - 4; the latest one known at the issue for n is that of n - 2, 8 less.
    np.testing.assert_allclose(score.pinball[:, 0], [0.1 * 8, 0.5 * 8, 0.9 * 8])


@pytest.mark.spec("FCST-02")
def test_of_independent_noise_the_outer_quantiles_hold_four_in_five_and_the_losses_are_those_of_theory() -> None:
    values = np.random.default_rng(3).normal(size=(40, len(AXIS)))
    history = Series(tuple(f"s{i}" for i in range(40)), AXIS, values)
    issued, target = issue_and_target("day-ahead", date(2016, 10, 27))
    made = forecast(history, issued, target, ROME, methods=("persistence",))
    truth = history.window(target).values
    inside = (made.quantiles[0] <= truth) & (truth <= made.quantiles[2])
    assert inside.mean() == pytest.approx(0.8, abs=0.03)
    score = backtest(history, issued, ROME, 14, "persistence", tau=NO_MEMORY)
    # The difference of two standard normal values has deviation sqrt(2) and mean absolute value 2 / sqrt(pi).
    assert score.rmse.mean() == pytest.approx(np.sqrt(2), rel=0.02)
    assert score.mae.mean() == pytest.approx(2 / np.sqrt(np.pi), rel=0.02)
    # Pinball loss of a normal quantile at 0.9 is deviation times the density there: sqrt(2) * 0.17550.
    assert score.pinball[2].mean() == pytest.approx(np.sqrt(2) * 0.1755, rel=0.04)


def test_a_short_history_is_replayed_as_far_as_it_goes_and_refused_when_nothing_is_left() -> None:
    issued, target = issue_and_target("day-ahead")
    whole = noise(4)

    def since(days: int) -> Series:
        return whole.window(AXIS.window(midnight(DAY - timedelta(days=days), ROME), AXIS.end))

    assert backtest(since(9), issued, ROME, 14, "persistence").days == 4
    assert set(forecast(since(5), issued, target, ROME, methods=("persistence",)).methods) == {"persistence"}
    with pytest.raises(NotReady, match="not one day can be replayed"):
        forecast(since(5), issued, target, ROME)
    with pytest.raises(NotReady, match="learn its quantiles"):
        backtest(since(5), issued, ROME, 14, "persistence")


@pytest.mark.parametrize("levels", [(), (0.5, 0.1), (0.0, 0.5), (0.5, 1.0), (0.5, 0.5)])
def test_levels_that_do_not_rise_inside_zero_and_one_are_refused(levels: tuple) -> None:
    issued, target = issue_and_target("day-ahead")
    with pytest.raises(CoflexError, match="must rise inside"):
        forecast(noise(0), issued, target, ROME, levels=levels)


def test_forty_series_of_a_day_are_forecast_in_less_than_150_milliseconds() -> None:
    history = noise(5, 40)
    issued, target = issue_and_target("day-ahead")
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        assert len(forecast(history, issued, target, ROME).methods) == 40
        taken.append(time.perf_counter() - begun)
    assert min(taken) < 0.15
    assert len(METHODS) == 2
