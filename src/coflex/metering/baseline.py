"""Baselines: the power that would have flowed without the activation.

Series are signed, injection positive, in kW, one value a quarter-hour of one day. Mathematics, worked example
and sources: docs/mathematics/baselines.md (comparison of methods: Lind et al. 2023, doi 10.1016/j.jup.2023.101688).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, time
from enum import StrEnum
from zoneinfo import ZoneInfo

import numpy as np

from coflex.domain.errors import CoflexError, Finding, refuse
from coflex.domain.quantity import Bools, Floats
from coflex.domain.series import Series
from coflex.domain.time import Axis

LEAST_GAP = 4  # quarter-hours: an adjustment that sees the last hour before the event can be steered by it


class Pick(StrEnum):
    """Which X of the Y candidate days: the highest, those in the middle, or the lowest."""

    HIGH = "high"
    MID = "mid"
    LOW = "low"


class Adjust(StrEnum):
    """Same-day adjustment: add the mean difference, or scale by the ratio of the means."""

    ADDITIVE = "additive"
    SCALAR = "scalar"


@dataclass(frozen=True, slots=True)
class SameDay:
    """Same-day adjustment over `quarters` that end `gap` quarters before the event, or at notice if that is earlier.

    `cap`: most it may change the baseline, as a share of the mean baseline in the event. Raises Refused.
    """

    kind: Adjust = Adjust.ADDITIVE
    quarters: int = 12
    gap: int = LEAST_GAP
    cap: float = 0.2

    def __post_init__(self) -> None:
        refuse("Same-day adjustment", self._findings())

    def _findings(self) -> Iterator[Finding]:
        if self.quarters < 1:
            yield Finding("same_day: quarters", "too_short", "The window is empty; give one quarter-hour or more.")
        if self.gap < LEAST_GAP:
            yield Finding("same_day: gap", "too_near", f"The window must end {LEAST_GAP} quarters before the event.")
        if not 0 <= self.cap < 1:
            yield Finding("same_day: cap", "out_of_range", f"The cap {self.cap} is no share; give 0 up to below 1.")


@dataclass(frozen=True, slots=True)
class Nominated:
    """The nominated schedule, trusted while past nominations erred by no more than these shares of mean power.

    Defaults: the limits of the French demand response rules (NEBEF) for nominated baselines.
    """

    absolute_error: float = 0.35
    centring_error: float = 0.15

    @property
    def label(self) -> str:
        return "nominated"


@dataclass(frozen=True, slots=True)
class XofY:
    """Mean of `x` of the `y` most recent eligible days. Raises Refused on impossible counts."""

    x: int
    y: int
    pick: Pick = Pick.HIGH
    adjustment: SameDay | None = None

    def __post_init__(self) -> None:
        refuse("X of Y baseline", self._findings())

    def _findings(self) -> Iterator[Finding]:
        if not 1 <= self.x <= self.y:
            yield Finding("x_of_y: x", "out_of_range", f"{self.x} of {self.y} days cannot be; give 1 <= x <= y.")
        if self.pick == Pick.MID and (self.y - self.x) % 2:
            yield Finding("x_of_y: y", "uneven", "Mid drops as many high days as low ones; make y - x even.")

    @property
    def label(self) -> str:
        """The method in the words of the field: 'high 5 of 10, additive same-day adjustment'."""
        adjusted = f", {self.adjustment.kind} same-day adjustment" if self.adjustment else ""
        return f"{self.pick} {self.x} of {self.y}{adjusted}"


@dataclass(frozen=True, slots=True)
class MeterBefore:
    """Mean of the `quarters` before the event; with `after`, averaged with the mean of as many after it."""

    quarters: int = 4
    after: int = 0

    def __post_init__(self) -> None:
        if self.quarters < 1 or self.after < 0:
            place, message = "meter_before", "A window is empty; give quarters >= 1 and after >= 0."
            refuse("Meter-before baseline", [Finding(place, "out_of_range", message)])

    @property
    def label(self) -> str:
        return f"meter before {self.quarters}" + (f" and after {self.after}" if self.after else "")


@dataclass(frozen=True, eq=False)
class BaselineResult:
    """A baseline with its evidence.

    `values[t]` in kW, injection positive; all NaN when not `enough`, so that nobody settles on a guess.
    `days`: rows of the history that were averaged, ascending. `adjustment`: kW added, or factor applied; None when
    none was made. `known_at`: number of quarters of the day that must be metered before it can be computed: the
    baseline is ex ante when that is no later than the event's first quarter, else ex post.
    """

    method: str
    values: Floats
    days: tuple[int, ...]
    adjustment: float | None
    enough: bool
    known_at: int


def nominated(
    nomination: Floats, method: Nominated | None = None, past: tuple[Floats, Floats] | None = None
) -> BaselineResult:
    """The last schedule nominated before gate closure, as it is. Ex ante.

    past: earlier nominations and what was metered, arrays of one shape. Not enough when a value is missing or
    when the past errs beyond the method's limits:

        mean |n - m| / mean |m| <= absolute_error,   |mean (n - m)| / mean |m| <= centring_error
    """
    method = method or Nominated()
    enough = bool(np.isfinite(nomination).all())
    if past is not None:
        errors = past[0] - past[1]
        size = np.abs(past[1]).mean()
        enough &= bool(np.abs(errors).mean() <= method.absolute_error * size)
        enough &= bool(abs(errors.mean()) <= method.centring_error * size)
    values = nomination.astype(np.float64) if enough else np.full(nomination.shape, np.nan)
    return BaselineResult(method.label, values, (), None, enough, 0)


def x_of_y(
    history: Floats, eligible: Bools, event: Bools, today: Floats | None, notice: int, method: XofY
) -> BaselineResult:
    """High, mid or low X of Y with same-day adjustment (equations 1 to 4 of docs/mathematics/baselines.md).

    history[d, t]: kW, injection positive, days ascending, on the event day's quarters (see `align_history`).
    eligible[d]: see `eligible_days`; a day with a missing reading is passed over. event[t]: the quarters sold.
    today[t]: the event day as far as metered (NaN beyond), None before it begins. notice: quarter in which the
    order was known, <= 0 when before the day; nothing from there on is read.

    "High" means much power in the unit's own direction: the one in which the candidate days moved more energy
    during the event, withdrawal when they balance. A load is ranked by withdrawal, a generator by injection.
    Guarantees: high >= mid >= low in that direction over the event; negated input gives the negated baseline.
    Raises CoflexError on shapes that do not fit or an event without a quarter.
    """
    if history.shape != (len(eligible), len(event)) or (today is not None and today.shape != event.shape):
        raise CoflexError("History, eligible days, event and today do not fit.", "Align the history to the day first.")
    first, _ = _bounds(event)
    usable = np.flatnonzero(eligible & np.isfinite(history).all(axis=1))[-method.y :]
    if len(usable) < method.x:
        return BaselineResult(method.label, np.full(event.shape, np.nan), (), None, False, 0)
    days = _picked(history[:, event].mean(axis=1), usable, method)
    base: Floats = history[list(days)].mean(axis=0)
    if method.adjustment is None or today is None:
        return BaselineResult(method.label, base, days, None, True, 0)
    window = _window(method.adjustment, first, notice)
    adjustment = _adjustment(base, today, window, event, method.adjustment)
    if adjustment is None:
        return BaselineResult(method.label, base, days, None, True, max(window.stop, 0))
    adjusted = base + adjustment if method.adjustment.kind == Adjust.ADDITIVE else base * adjustment
    return BaselineResult(method.label, adjusted, days, adjustment, True, window.stop)


def _picked(means: Floats, usable: np.ndarray[tuple[int, ...], np.dtype[np.intp]], method: XofY) -> tuple[int, ...]:
    """The x days of the usable ones, ranked by mean power in the unit's own direction; ties to the more recent."""
    own = 1.0 if means[usable].sum() > 0 else -1.0
    ranked = sorted((int(d) for d in usable), key=lambda d: (-own * means[d], -d))
    spare = len(ranked) - method.x
    # With an odd number to drop (days are short), the extra one goes at the top: the doubt favours the payer.
    skip = {Pick.HIGH: 0, Pick.MID: (spare + 1) // 2, Pick.LOW: spare}[method.pick]
    return tuple(sorted(ranked[skip : skip + method.x]))


def _window(rule: SameDay, first: int, notice: int) -> slice:
    """Quarters [start, stop) that the adjustment reads; start is negative when the day has too few before it."""
    stop = min(first - rule.gap, notice)
    return slice(stop - rule.quarters, stop)


def _adjustment(base: Floats, today: Floats, window: slice, event: Bools, rule: SameDay) -> float | None:
    """kW to add or factor to apply, within the cap; None when the window is not whole or the ratio has no base."""
    if window.start < 0 or not np.isfinite(today[window]).all():
        return None
    metered, expected = float(today[window].mean()), float(base[window].mean())
    if rule.kind == Adjust.ADDITIVE:
        most = rule.cap * abs(float(base[event].mean()))
        return float(np.clip(metered - expected, -most, most))
    if expected == 0:
        return None
    return float(np.clip(np.divide(metered, expected), 1 - rule.cap, 1 + rule.cap))


def meter_before(today: Floats, event: Bools, notice: int, method: MeterBefore) -> BaselineResult:
    """A flat baseline at the mean of the quarters before the event, ending at notice if that is earlier.

    With `method.after` the mean after the event's last quarter is averaged in, which makes it ex post.
    today[t]: kW, injection positive, NaN where not metered. Not enough when a window is not whole.
    Raises CoflexError on an event without a quarter.
    """
    first, last = _bounds(event)
    stop = min(first, notice)
    windows = [slice(stop - method.quarters, stop)]
    if method.after:
        windows.append(slice(last + 1, last + 1 + method.after))
    whole = all(w.start >= 0 and w.stop <= len(today) and np.isfinite(today[w]).all() for w in windows)
    level = float(np.mean([today[w].mean() for w in windows])) if whole else np.nan
    return BaselineResult(method.label, np.full(today.shape, level), (), None, whole, max(windows[-1].stop, 0))


def _bounds(event: Bools) -> tuple[int, int]:
    """First and last quarter of the event."""
    quarters = np.flatnonzero(event)
    if not len(quarters):
        raise CoflexError("The event has no quarter-hour.", "Mark the quarter-hours that were sold.")
    return int(quarters[0]), int(quarters[-1])


def eligible_days(
    days: Sequence[date], target_day: date, excluded: Collection[date], holidays: Collection[date] = ()
) -> Bools:
    """Which days may stand for the target day: earlier, of its day type, not excluded (events, outages).

    Two day types: working days, and Saturdays, Sundays and `holidays`. Shape (days,).
    """

    def working(day: date) -> bool:
        return day.weekday() < 5 and day not in holidays

    kind = working(target_day)
    return np.array([d < target_day and working(d) == kind and d not in excluded for d in days], dtype=np.bool_)


def align_history(series: Series, name: str, day_axes: Sequence[Axis], target: Axis, zone: ZoneInfo) -> Floats:
    """Past days of one series on the quarters of the target day, by local clock time; shape (days, quarters).

    A clock time that a past day repeats or misses is settled so: the same occurrence where both days have it
    twice; else its first occurrence stands for either; a missing hour holds the preceding value (at the very
    start of a day, the following one). Raises OutsideAxis when the series does not hold a day.
    """
    values = series.row(name)
    aligned = np.empty((len(day_axes), len(target)))
    for d, axis in enumerate(day_axes):
        held = values[series.axis.slice_of(series.axis.window(axis.start, axis.end))]
        aligned[d] = held[_positions(axis, target, zone)]
    return aligned


def _positions(source: Axis, target: Axis, zone: ZoneInfo) -> list[int]:
    """For each target quarter, the source quarter that shows the same local clock time."""
    exact: dict[tuple[time, int], int] = {}
    for position, instant in enumerate(source):
        local = instant.astimezone(zone)
        exact[local.time(), local.fold] = position
    firsts = sorted((clock, position) for (clock, fold), position in exact.items() if fold == 0)
    clocks = [clock for clock, _ in firsts]

    def position_of(clock: time, fold: int) -> int:
        return exact.get((clock, fold), firsts[max(0, bisect_right(clocks, clock) - 1)][1])

    clock_times = (instant.astimezone(zone) for instant in target)
    return [position_of(local.time(), local.fold) for local in clock_times]
