"""Past days laid on the quarters of another day by local clock time: days of 92, 96 and 100 quarter-hours."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import time
from zoneinfo import ZoneInfo

import numpy as np

from coflex.domain.quantity import Floats, Ints
from coflex.domain.series import Series
from coflex.domain.time import Axis

ORDINARY = 96  # quarters of a day on which the clock does not change: all such days show the same times


def align_history(series: Series, name: str, day_axes: Sequence[Axis], target: Axis, zone: ZoneInfo) -> Floats:
    """Past days of one series on the quarters of the target day, by local clock time; shape (days, quarters).

    A clock time that a past day repeats or misses is settled so: the same occurrence where both days have it
    twice; else its first occurrence stands for either; a missing hour holds the preceding value (at the very
    start of a day, the following one). Raises OutsideAxis when the series does not hold a day.
    """
    aligned: Floats = align_rows(series.row(name)[None, :], series.axis, day_axes, target, zone)[0]
    return aligned


def align_rows(values: Floats, axis: Axis, day_axes: Sequence[Axis], target: Axis, zone: ZoneInfo) -> Floats:
    """`align_history` of many series at once: values (series, periods) to (series, days, quarters)."""
    aligned = np.empty((len(values), len(day_axes), len(target)))
    for d, one in enumerate(day_axes):
        held = axis.slice_of(axis.window(one.start, one.end))
        aligned[:, d] = values[:, held][:, positions(one, target, zone)]
    return aligned


def positions(source: Axis, target: Axis, zone: ZoneInfo) -> Ints:
    """For each target quarter, the source quarter that shows the same local clock time."""
    if len(source) == len(target) == ORDINARY:
        return np.arange(ORDINARY)
    exact: dict[tuple[time, int], int] = {}
    for position, instant in enumerate(source):
        local = instant.astimezone(zone)
        exact[local.time(), local.fold] = position
    firsts = sorted((clock, position) for (clock, fold), position in exact.items() if fold == 0)
    clocks = [clock for clock, _ in firsts]

    def position_of(clock: time, fold: int) -> int:
        return exact.get((clock, fold), firsts[max(0, bisect_right(clocks, clock) - 1)][1])

    clock_times = (instant.astimezone(zone) for instant in target)
    return np.array([position_of(local.time(), local.fold) for local in clock_times], dtype=np.int64)
