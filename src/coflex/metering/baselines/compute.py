"""A baseline from readings to record: days judged, history laid on the event day, method applied, all of it kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Bools, Floats
from coflex.domain.series import Series
from coflex.domain.time import Axis, delivery_day
from coflex.metering.alignment import align_rows
from coflex.metering.baselines.control import ControlGroup
from coflex.metering.baselines.document import MethodDocument
from coflex.metering.baselines.method import baseline
from coflex.metering.baselines.record import BaselineRecord, Circumstances, record_of
from coflex.metering.baselines.result import Given, Peers, Weather
from coflex.metering.eligibility import NO_CALENDAR, Like, UnitCalendar, day_type, judge_days, may_stand, reasons


@dataclass(frozen=True, eq=False)
class Asked:
    """A baseline that is asked for: the unit, the event [start, end) inside one local day, when its order was known.

    nomination: kW of the quarters of the local day. contracted_kw: signed, injection positive. peers: units that may
    stand for this one, `affected` those of them that were called or limited that day. log_size: of the readings.
    """

    unit: str
    start: datetime
    end: datetime
    notice: datetime
    calendar: UnitCalendar = NO_CALENDAR
    nomination: Floats | None = None
    nominated_before: tuple[Floats, Floats] | None = None
    contracted_kw: float | None = None
    peers: tuple[str, ...] = ()
    affected: frozenset[str] = frozenset()
    log_size: int = 0


def compute(
    readings: Series, zone: ZoneInfo, asked: Asked, document: MethodDocument, temperature: Floats | None = None
) -> BaselineRecord:
    """The record of a unit's baseline on the local day of an event.

    readings: kW, injection positive, NaN where not metered, on quarter-hours; those of the event day may end anywhere.
    temperature: degrees Celsius on the same axis. Past days are those that the readings hold whole, as far back as
    the method's document looks. Raises CoflexError on an event that is no part of one local day, or an unknown unit.
    """
    day = asked.start.astimezone(zone).date()
    axis = delivery_day(day, zone)
    event = _event(axis, asked)
    days, axes = _past(readings.axis, day, document.days.oldest, zone)
    verdicts = judge_days(days, day, document.days, asked.calendar)
    history = align_rows(readings.row(asked.unit)[None], readings.axis, axes, axis, zone)[0]
    holidays = asked.calendar.holidays
    working = np.array([day_type(one, Like.TWO, holidays) == 0 for one in days], dtype=np.bool_)
    notice = (asked.notice - axis.start) // axis.step  # the quarter it falls in is not read
    given = Given(
        event,
        max(0, notice),
        history,
        may_stand(verdicts),
        _of_day(readings.row(asked.unit), readings.axis, axis),
        asked.nomination,
        asked.nominated_before,
        asked.contracted_kw,
        _peers(readings, axes, axis, zone, asked) if asked.peers else None,
        _weather(temperature, readings.axis, axes, axis, zone),
        working,
        day_type(day, Like.TWO, holidays) == 0,
    )
    result = baseline(given, document.method)
    # A gap keeps a day out inside the method, so that a corrected reading finds the record; here it is only told.
    passed = reasons(days, verdicts, result.days, result.considered, np.isfinite(history).all(axis=1))
    first = int(np.flatnonzero(event)[0])
    peers = _told(asked) if isinstance(document.method, ControlGroup) else ()
    made = Circumstances(asked.unit, axis, days, axes, passed, asked.log_size, day, first, peers)
    return record_of(result, document, made)


def _event(axis: Axis, asked: Asked) -> Bools:
    starts = np.array([asked.start <= instant < asked.end for instant in axis], dtype=np.bool_)
    if not starts.any() or asked.end > axis.end or asked.start < axis.start:
        raise CoflexError("The event is no part of one local day.", "Give start and end inside a day, start first.")
    return starts


def _past(axis: Axis, day: date, oldest: int, zone: ZoneInfo) -> tuple[tuple[date, ...], tuple[Axis, ...]]:
    """The local days before one that an axis holds whole, ascending."""
    days = [day - timedelta(days=back) for back in range(oldest, 0, -1)]
    pairs = [(one, delivery_day(one, zone)) for one in days]
    held = [(one, its) for one, its in pairs if its.start >= axis.start and its.end <= axis.end]
    return tuple(one for one, _ in held), tuple(its for _, its in held)


def _of_day(row: Floats, axis: Axis, day: Axis) -> Floats:
    """The values of a day as far as an axis holds them, NaN beyond."""
    values = np.full(len(day), np.nan)
    begin, stop = max(axis.start, day.start), min(axis.end, day.end)
    if begin < stop:
        values[day.slice_of(day.window(begin, stop))] = row[axis.slice_of(axis.window(begin, stop))]
    return values


def _peers(readings: Series, axes: Sequence[Axis], axis: Axis, zone: ZoneInfo, asked: Asked) -> Peers:
    names = [name for name in asked.peers if name != asked.unit]
    rows = readings.rows(names) if names else np.empty((0, len(readings.axis)))
    today = np.array([_of_day(row, readings.axis, axis) for row in rows]).reshape(len(names), len(axis))
    unaffected = np.array([name not in asked.affected for name in names], dtype=np.bool_)
    return Peers(align_rows(rows, readings.axis, axes, axis, zone), today, unaffected)


def _told(asked: Asked) -> tuple[str, ...]:
    """The peers whose readings may have a say."""
    return tuple(name for name in asked.peers if name != asked.unit and name not in asked.affected)


def _weather(temperature: Floats | None, axis: Axis, axes: Sequence[Axis], day: Axis, zone: ZoneInfo) -> Weather | None:
    if temperature is None:
        return None
    past = align_rows(temperature[None, :], axis, axes, day, zone)[0]
    return Weather(past, _of_day(temperature, axis, day))
