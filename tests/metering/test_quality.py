"""Gaps and impossible readings."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.domain.errors import CoflexError
from coflex.domain.reading import Quality
from coflex.domain.series import Series
from coflex.domain.time import Axis
from coflex.metering.quality import out_of_range, substitute

NAN = float("nan")
readings = st.lists(st.one_of(st.just(NAN), st.floats(-100, 100)), min_size=1, max_size=20)


def test_short_gaps_lie_on_the_line_and_long_ones_on_the_baseline() -> None:
    measured = np.array([NAN, 0.0, NAN, NAN, 3.0, NAN, NAN, NAN, 7.0, NAN, 9.0, NAN])
    result = substitute(measured, np.full(12, 50.0))
    assert result.values == pytest.approx([50, 0, 1, 2, 3, 50, 50, 50, 7, 8, 9, 50])
    marks = {Quality.MEASURED: "m", Quality.ESTIMATED: "e", Quality.MISSING: "-"}
    assert "".join(marks[quality] for quality in result.quality) == "-meem---mem-"


@given(readings)
def test_every_gap_is_filled_marked_and_no_reading_is_touched(values: list[float]) -> None:
    measured = np.array(values)
    baseline = np.full(len(values), 42.0)
    result = substitute(measured, baseline)
    flags = np.array([q.value for q in result.quality])
    known = ~np.isnan(measured)
    assert np.isfinite(result.values).all()
    assert np.array_equal(result.values[known], measured[known])
    assert np.array_equal(flags == Quality.MEASURED, known)
    assert (result.values[flags == Quality.MISSING] == 42.0).all()


@given(readings)
def test_an_estimate_lies_between_the_readings_beside_its_gap(values: list[float]) -> None:
    measured = np.array(values)
    result = substitute(measured, np.zeros(len(values)))
    known = np.flatnonzero(~np.isnan(measured))
    for t, quality in enumerate(result.quality):
        if quality is Quality.ESTIMATED:
            before, after = known[known < t][-1], known[known > t][0]
            assert after - before <= 3
            assert min(measured[[before, after]]) - 1e-9 <= result.values[t] <= max(measured[[before, after]]) + 1e-9


def test_readings_and_baseline_must_share_their_quarters() -> None:
    with pytest.raises(CoflexError, match="axes"):
        substitute(np.zeros(3), np.zeros(4))


def test_each_impossible_reading_is_a_finding_with_its_place() -> None:
    axis = Axis(datetime(2016, 5, 12, tzinfo=UTC), 3)
    series = Series(("a", "b"), axis, np.array([[0.0, 11.0, NAN], [-6.0, 5.0, float("inf")]]))
    findings = out_of_range(series, np.array([-10.0, -5.0]), np.array([10.0, 5.0]))
    assert [finding.place for finding in findings] == [
        "readings: unit a, 2016-05-12T00:15:00+00:00",
        "readings: unit b, 2016-05-12T00:00:00+00:00",
        "readings: unit b, 2016-05-12T00:30:00+00:00",
    ]
    assert findings[0].message == "11 kW is outside -10 to 10 kW; check the meter."
