"""The droop and its proof from the frequency log (ACT-05)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coflex.activation.droop import Droop, FrequencyLog, bounds, droop_power, prove
from coflex.domain.errors import Refused
from coflex.domain.quantity import Floats

BEGIN = datetime(2026, 7, 5, 10, tzinfo=UTC)
DROOP = Droop(1_000_000.0)
steps = arrays(np.float64, 40, elements=st.floats(-0.05, 0.05))
walks = steps.map(lambda one: 50 + np.clip(np.cumsum(one), -0.4, 0.4))


def log(hz: Floats, change: Floats, step: float = 2.0) -> FrequencyLog:
    count = len(hz)
    return FrequencyLog(BEGIN, np.arange(count) * step, hz, 5e5 + change, np.full(count, 5e5))


@pytest.mark.spec("ACT-05")
def test_the_characteristic_by_hand() -> None:
    hz = np.array([50.0, 50.01, 49.99, 49.8, 50.2, 49.7, 50.5, 49.895])
    expected = np.array([0, 0, 0, 1, -1, 1, -1, 0.5]) * 1e6
    assert droop_power(hz, DROOP) == pytest.approx(expected, abs=1e-3)
    assert float(droop_power(49.8, DROOP)) == pytest.approx(1e6)
    assert np.isnan(droop_power(np.array([np.nan]), DROOP)).all()


@pytest.mark.spec("ACT-05")
@settings(deadline=None)
@given(st.floats(49, 51), st.floats(49, 51), st.floats(0, 50))
def test_it_is_odd_falls_with_the_frequency_and_stays_in_the_reserve(a: float, b: float, dead: float) -> None:
    droop = replace(DROOP, dead_band_mhz=dead)
    low, high = sorted((a, b))
    assert droop_power(low, droop) >= droop_power(high, droop)
    assert abs(float(droop_power(a, droop))) <= droop.reserve_w
    assert float(droop_power(100 - a, droop)) == pytest.approx(-float(droop_power(a, droop)), abs=1e-3)


@pytest.mark.spec("ACT-05")
@settings(max_examples=25, deadline=None)
@given(walks, arrays(np.float64, 16, elements=st.floats(0, 1)))
def test_whoever_follows_within_the_time_complies_whatever_its_dynamics(hz: Floats, weights: Floats) -> None:
    """Any mean of what was asked for in the last 30 s, on samples of 2 s, is inside the bounds."""
    share = (weights + 1e-9) / (weights + 1e-9).sum()
    asked = np.concatenate([np.zeros(15), droop_power(hz, DROOP)])
    change = np.array([share @ asked[i : i + 16] for i in range(len(hz))])
    found = prove(log(hz, change), DROOP, tolerance=0.0)
    assert found.judged == len(hz) - 15 and found.compliant == found.judged
    assert found.worst_w <= 1e-6 * DROOP.reserve_w


@pytest.mark.spec("ACT-05")
@settings(max_examples=25, deadline=None)
@given(walks)
def test_the_bounds_are_the_least_and_the_most_of_the_window(hz: Floats) -> None:
    asked, around = droop_power(hz, DROOP), bounds(log(hz, hz * 0), DROOP)
    for i in range(15, len(hz)):
        assert around.low_w[i] == asked[i - 15 : i + 1].min() and around.high_w[i] == asked[i - 15 : i + 1].max()
    assert not around.known[:15].any() and around.known[15:].all()


@pytest.mark.spec("ACT-05")
def test_a_unit_that_gives_half_or_stops_early_is_found_out() -> None:
    hz = np.concatenate([np.full(30, 50.0), np.full(120, 49.8), np.full(30, 50.0)])
    right = prove(log(hz, droop_power(hz, DROOP)), DROOP)
    assert right.compliant_share == 1.0 and right.holds() and right.gain == pytest.approx(1.0)
    assert right.full_s == right.full_held_s == (120 - 15) * 2
    half = prove(log(hz, droop_power(hz, DROOP) / 2), DROOP)
    assert half.gain == pytest.approx(0.5) and not half.holds() and half.worst_w == pytest.approx(5e5)
    assert half.up_given_wh == pytest.approx(half.up_due_wh / 2) and half.full_held_s == 0
    tired = droop_power(hz, DROOP)
    tired[100:150] = 0
    found = prove(log(hz, tired), DROOP)
    assert found.longest_s == 100 and found.worst_at == BEGIN.replace(minute=3, second=20)
    wrong_way = prove(log(hz, -droop_power(hz, DROOP)), DROOP)
    assert wrong_way.gain == pytest.approx(-1.0) and not wrong_way.holds()


@pytest.mark.spec("ACT-05")
def test_what_is_missing_is_left_out_and_too_much_of_it_is_no_proof() -> None:
    hz = np.full(200, 49.9)
    change = droop_power(hz, DROOP)
    change[50:60] = np.nan
    found = prove(log(hz, change), DROOP)
    assert found.left_out == 10 and found.compliant == found.judged == 175
    unknown = hz.copy()
    unknown[100] = np.nan
    assert prove(log(unknown, droop_power(hz, DROOP)), DROOP).left_out == 16
    holed = log(hz, droop_power(hz, DROOP))
    jumped = replace(holed, at_s=np.where(np.arange(200) < 100, holed.at_s, holed.at_s + 60))
    assert prove(jumped, DROOP).left_out == 15
    nothing = prove(log(hz, np.full(200, np.nan)), DROOP)
    assert nothing.compliant_share is None and not nothing.holds() and nothing.judged_share == 0.0
    assert prove(log(np.zeros(0), np.zeros(0)), DROOP).judged == 0


def test_a_log_with_faults_is_refused_with_all_of_them() -> None:
    bad = FrequencyLog(BEGIN, np.array([0.0, 2.0, 2.0]), np.full(3, 50.0), np.zeros(3), np.zeros(2))
    with pytest.raises(Refused) as caught:
        prove(bad, Droop(0.0, full_mhz=10.0, dead_band_mhz=10.0, full_activation_s=0.0), tolerance=1.0)
    assert {one.code for one in caught.value.findings} == {
        "lengths", "order", "reserve", "dead_band", "time", "tolerance",
    }  # fmt: skip
