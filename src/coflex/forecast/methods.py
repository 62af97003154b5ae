"""The reference methods of forecasting: persistence and the seasonal naive method.

Both take the value of an earlier *reference day* at the same local clock time, and correct it by the last
deviation seen, which fades with the lead (a first-order autoregression of the deviation):

    f(t) = y(r(t)) + (y(last) - y(r(last))) * exp(-(t - last) / tau)

Persistence: r is the last wholly known local day. Seasonal naive: r is the latest wholly known day of the same
weekday (Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., section 5.2).
For a lead of half a day the correction is nearly nothing, so one formula serves day-ahead, intraday and hour-ahead.

Days meet on the face of the local clock, 96 quarter-hours: the repeated hour of a day of 100 shows its first
occurrence, the missing hour of a day of 92 the value before the gap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from types import MappingProxyType
from zoneinfo import ZoneInfo

import numpy as np

from coflex.domain.errors import CoflexError, Finding, NotReady, refuse
from coflex.domain.quantity import Floats, Ints
from coflex.domain.series import Series
from coflex.domain.time import QUARTER, Axis, midnight

FACE = 96
TAU = timedelta(hours=2)

Reference = Callable[[Ints, int], Ints]


def persistence(day: Ints, known: int) -> Ints:
    """The last wholly known day, for every day asked. Days are proleptic ordinals."""
    return np.full_like(day, known)


def seasonal_naive(day: Ints, known: int) -> Ints:
    """The latest wholly known day of the same weekday, at least a week earlier. Days are proleptic ordinals."""
    weeks: Ints = np.maximum(1, -((known - day) // 7))
    return day - 7 * weeks


METHODS: Mapping[str, Reference] = MappingProxyType({"persistence": persistence, "seasonal_naive": seasonal_naive})


@dataclass(frozen=True, eq=False)
class Frame:
    """What is known at issue and what is asked, laid out by local day and clock quarter-hour.

    `table[i, k, c]`: series i on the k-th known day, clock quarter c; the last of these days is `known` (ordinal).
    `last[i]`: the last observed values, at (`last_day`, `last_clock`). Period t asked: (`day[t]`, `clock[t]`),
    with `decay[t]` of the last deviation left.
    """

    table: Floats
    known: int
    last: Floats
    last_day: int
    last_clock: int
    day: Ints
    clock: Ints
    decay: Floats

    @property
    def first(self) -> int:
        """The earliest day of the table (ordinal)."""
        return self.known - int(self.table.shape[1]) + 1

    def at(self, day: Ints, clock: Ints | int) -> Floats:
        """Known values, shape (series, *broadcast of day and clock). Raises NotReady before the first known day."""
        place = day - self.first
        if place.size and place.min() < 0:
            missing = date.fromordinal(int(day.min()))
            raise NotReady(
                f"The history does not reach back to {missing}, which the method refers to.",
                "Give a longer history or a method that looks less far back.",
            )
        return self.table[:, place, clock]

    def lowest(self, method: str) -> int:
        """The earliest day (ordinal) that the method refers to."""
        refer = reference(method)
        return int(min(refer(self.day, self.known).min(), refer(np.array([self.last_day]), self.known).min()))


def reference(method: str) -> Reference:
    """The rule of a method. Raises CoflexError on an unknown name."""
    if method not in METHODS:
        raise CoflexError(f"There is no forecast method '{method}'.", f"Choose from {', '.join(METHODS)}.")
    return METHODS[method]


def estimate(frame: Frame, method: str) -> Floats:
    """The method's forecast of what the frame asks, shape (series, periods)."""
    refer = reference(method)
    base = frame.at(refer(frame.day, frame.known), frame.clock)
    seen = frame.at(refer(np.array([frame.last_day]), frame.known), frame.last_clock)[:, 0]
    return base + (frame.last - seen)[:, None] * frame.decay


def replay(frame: Frame, method: str, origins: Ints) -> Floats:
    """The forecasts the method would have made `origins[b]` days earlier, shape (series, origins, periods)."""
    refer, back = reference(method), origins[:, None]
    base = frame.at(refer(frame.day, frame.known) - back, frame.clock)
    last = np.array([frame.last_day])
    seen = frame.at(last - back, frame.last_clock) - frame.at(refer(last, frame.known) - back, frame.last_clock)
    return base + seen * frame.decay


def predict(
    history: Series,
    issued: datetime,
    target: Axis,
    zone: ZoneInfo,
    method: str,
    tau: timedelta = TAU,
    floor: float = -np.inf,
) -> Floats:
    """Forecast of each series of `history` over `target` by one method, shape (series, periods).

    Only quarter-hours that ended by `issued` are looked at. `floor`: no value below it (0 for PV or a load's share).
    Raises NotReady when the history is too short, Refused when known values are not finite.
    """
    frame = lay_out(history, issued, target, zone, 0, tau)
    return np.maximum(estimate(frame, method), floor)


def lay_out(
    history: Series, issued: datetime, target: Axis, zone: ZoneInfo, origins: int, tau: timedelta = TAU
) -> Frame:
    """Cut the history at `issued` and lay it out by local day.

    As far as the history reaches back, the table is deep enough for `origins` replays and for those that the
    first of them could learn from.

    Raises CoflexError on axes that are not quarter-hours or a target before `issued`, NotReady when no whole day
    is known, Refused when a value in use is not finite.
    """
    _check(history.axis, issued, target)
    axis = history.axis
    count = max(0, min(len(axis), (issued - axis.start) // axis.step))
    if not count:
        raise NotReady(f"Nothing is known at {issued.isoformat()}.", "Give a history that begins earlier.")
    known = (axis.start + count * QUARTER).astimezone(zone).toordinal() - 1
    clock = [_on_clock(instant, zone) for instant in (axis[count - 1], *target)]
    day, quarter = np.array(clock, dtype=np.int64).T
    gap = int(day[1:].max()) - known
    days = range(max(_first_day(axis, zone), known - 2 * gap - origins - 6), known + 1)
    if not days:
        raise NotReady("The history holds no whole local day before the issue.", "Give a longer history.")
    table = history.values[:, np.array([_face(axis, date.fromordinal(d), zone) for d in days])]
    last = history.values[:, count - 1]
    _check_finite(history, table, last)
    leads = (target.start - axis[count - 1]) / tau + np.arange(len(target)) * (QUARTER / tau)
    return Frame(table, known, last, int(day[0]), int(quarter[0]), day[1:], quarter[1:], np.exp(-leads))


def _check(axis: Axis, issued: datetime, target: Axis) -> None:
    if axis.step != QUARTER or target.step != QUARTER:
        raise CoflexError("A forecast takes quarter-hours.", "Bring history and target to 15 minutes.")
    if not len(target) or target.start < issued:
        raise CoflexError(
            f"The target must hold periods from {issued.isoformat()} on.", "Issue the forecast before its target."
        )


def _check_finite(history: Series, table: Floats, last: Floats) -> None:
    faulty = ~(np.isfinite(table).all(axis=(1, 2)) & np.isfinite(last))
    refuse(
        "History of a forecast",
        (
            Finding(f"series {name}", "not_finite", "A known value is missing or not finite; fill it before.")
            for name, bad in zip(history.names, faulty, strict=True)
            if bad
        ),
    )


def _on_clock(instant: datetime, zone: ZoneInfo) -> tuple[int, int]:
    local = instant.astimezone(zone)
    return local.toordinal(), local.hour * 4 + local.minute // 15


def _first_day(axis: Axis, zone: ZoneInfo) -> int:
    local = axis.start.astimezone(zone).date()
    return local.toordinal() + (midnight(local, zone) < axis.start)


def _face(axis: Axis, day: date, zone: ZoneInfo) -> Ints:
    """Positions on the axis of the 96 clock quarter-hours of a local day."""
    start, end = midnight(day, zone), midnight(day + timedelta(days=1), zone)
    count = (end - start) // QUARTER
    begin: int = axis.slice_of(Axis(start, count)).start
    offsets = list(range(FACE)) if count == FACE else _offsets(start, count, zone)
    return np.array(offsets, dtype=np.int64) + begin


def _offsets(start: datetime, count: int, zone: ZoneInfo) -> list[int]:
    """For each clock quarter-hour, which quarter-hour of a day with a change of the clock it shows."""
    shown: dict[int, int] = {}
    for offset in range(count):
        shown.setdefault(_on_clock(start + offset * QUARTER, zone)[1], offset)
    before = 0
    offsets = []
    for quarter in range(FACE):
        before = shown.get(quarter, before)
        offsets.append(before)
    return offsets
