"""Metered days of many units side by side, and a method's baselines for all of them on one day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Bools, Floats
from coflex.domain.series import Series
from coflex.domain.time import delivery_day
from coflex.metering.alignment import positions
from coflex.metering.baselines.agreed import Zero
from coflex.metering.baselines.columns import day_averages
from coflex.metering.baselines.days import AllDays, Rolling, XofY
from coflex.metering.baselines.meter import Between, MeterBefore
from coflex.metering.baselines.method import Method, baseline
from coflex.metering.baselines.result import Given, Peers, Weather
from coflex.metering.eligibility import NO_CALENDAR, DayRule, Like, UnitCalendar, day_type, judge_days, may_stand


@dataclass(frozen=True, eq=False)
class History:
    """`kw[i, d, t]`: mean power of unit i on local day d in quarter-hour t, kW, injection positive, NaN where not
    metered; every day is laid on the clock of an ordinary day of 96. kinds[i]: what the unit is, for tables.

    temperature[d, t]: outdoor temperature in degrees Celsius, where there is one. `calendar`: holidays, and events and
    outages that all units share.
    """

    units: tuple[str, ...]
    kinds: tuple[str, ...]
    days: tuple[date, ...]
    kw: Floats
    calendar: UnitCalendar = NO_CALENDAR
    temperature: Floats | None = None

    def own(self) -> Floats:
        """+1 for units that inject in sum, -1 for those that withdraw or balance; shape (units,)."""
        return np.where(np.nansum(self.kw, axis=(1, 2)) > 0, 1.0, -1.0)

    def portfolios(self) -> History:
        """Units of one kind added up, as one unit a kind; each is first brought to a mean size of 1 kW, so that the
        largest does not drown the others. Units that never move are left out. A reading missing of one is missing of
        all."""
        size = np.nanmean(np.abs(self.kw), axis=(1, 2))
        names = tuple(sorted({kind for kind, one in zip(self.kinds, size, strict=True) if one > 0}))
        scaled = self.kw / np.where(size > 0, size, 1.0)[:, None, None]
        rows = [[i for i, kind in enumerate(self.kinds) if kind == name and size[i] > 0] for name in names]
        added = np.array([scaled[row].sum(axis=0) for row in rows]).reshape(len(names), *self.kw.shape[1:])
        return replace(self, units=names, kinds=names, kw=added)


def history_of(
    readings: Series,
    kinds: Mapping[str, str],
    zone: ZoneInfo,
    calendar: UnitCalendar | None = None,
    temperature: Floats | None = None,
) -> History:
    """The whole local days of readings in kW, injection positive, with the kind of each unit (else "unit").

    temperature: degrees Celsius on the readings' axis. Raises CoflexError when they hold no whole day.
    """
    axis = readings.axis
    first = axis.start.astimezone(zone).date()
    days = [first + timedelta(days=k) for k in range((axis.end - axis.start).days + 2)]
    axes = [(day, delivery_day(day, zone)) for day in days]
    inside = [(day, one) for day, one in axes if one.start >= axis.start and one.end <= axis.end]
    if not inside:
        raise CoflexError("The readings hold no whole local day.", "Give readings from midnight to midnight.")
    plain = next((one for _, one in axes if len(one) == 96), delivery_day(date(2016, 1, 1), zone))
    rows = readings.values if temperature is None else np.vstack([readings.values, temperature])
    kw = np.empty((len(rows), len(inside), 96))
    for d, (_, one) in enumerate(inside):
        held = rows[:, axis.slice_of(one)]
        kw[:, d] = held if len(one) == 96 else held[:, positions(one, plain, zone)]
    count = len(readings.names)
    return History(
        readings.names,
        tuple(kinds.get(name, "unit") for name in readings.names),
        tuple(day for day, _ in inside),
        kw[:count],
        calendar or NO_CALENDAR,
        None if temperature is None else kw[count],
    )


@dataclass(frozen=True, eq=False)
class Placed:
    """An event on a day of a history: `day` its position, event[t] its quarters, notice the quarter of its order."""

    day: int
    event: Bools
    notice: int


def baselines_of(history: History, placed: Placed, method: Method, rule: DayRule, only: int | None = None) -> Floats:
    """The baselines of every unit (or of one) on the day of an event, shape (units, quarters); NaN where there is none.

    Nothing that is metered from notice on is read, but what a method that is known ex post reads by its nature.
    Nominated and contracted baselines are NaN: a history does not hold them. The peers of a unit are those of its kind.
    """
    history, placed = recent(history, placed, rule)
    eligible, today = _eligible(history, placed, rule), history.kw[:, placed.day]
    if isinstance(method, XofY | AllDays | Rolling):
        past = history.kw[:, : placed.day].transpose(1, 0, 2)
        return day_averages(past, eligible, placed.event, today, placed.notice, method).values
    if isinstance(method, Zero):
        return np.zeros_like(today)
    if isinstance(method, MeterBefore):
        return _meters(today, placed, method)
    rows = range(len(history.units)) if only is None else (only,)
    return np.array([baseline(_given(history, placed, eligible, i), method).values for i in rows])


def recent(history: History, placed: Placed, rule: DayRule) -> tuple[History, Placed]:
    """The days that a rule can reach and the day of the event, as a history of their own."""
    first = max(0, placed.day - rule.oldest)
    days = slice(first, placed.day + 1)
    weather = None if history.temperature is None else history.temperature[days]
    cut = replace(history, days=history.days[days], kw=history.kw[:, days], temperature=weather)
    return cut, replace(placed, day=placed.day - first)


def _eligible(history: History, placed: Placed, rule: DayRule) -> Bools:
    before = history.days[: placed.day]
    return may_stand(judge_days(before, history.days[placed.day], rule, history.calendar))


def _meters(today: Floats, placed: Placed, method: MeterBefore) -> Floats:
    """`meter.meter_before` of every unit."""
    windows = method.windows(placed.event, placed.notice)
    if any(start < 0 or stop > today.shape[1] for start, stop in windows):
        return np.full_like(today, np.nan)
    levels = np.array([today[:, start:stop].mean(axis=1) for start, stop in windows])
    if method.between == Between.MEAN:
        return np.repeat(levels.mean(axis=0)[:, None], today.shape[1], axis=1)
    first, second = ((start + stop - 1) / 2 for start, stop in windows)
    share = np.clip((np.arange(today.shape[1]) - first) / (second - first), 0.0, 1.0)
    line: Floats = levels[0][:, None] + (levels[1] - levels[0])[:, None] * share
    return line


def _given(history: History, placed: Placed, eligible: Bools, unit: int) -> Given:
    """What the method is given for one unit; its peers are the units of its kind."""
    d, holidays = placed.day, history.calendar.holidays
    alike = [i for i, kind in enumerate(history.kinds) if kind == history.kinds[unit] and i != unit]
    working = np.array([day_type(day, Like.TWO, holidays) == 0 for day in history.days[: d + 1]], dtype=np.bool_)
    weather = history.temperature
    return Given(
        placed.event,
        placed.notice,
        history.kw[unit, :d],
        eligible,
        history.kw[unit, d],
        peers=Peers(history.kw[alike, :d], history.kw[alike, d], np.ones(len(alike), dtype=np.bool_)),
        weather=None if weather is None else Weather(weather[:d], weather[d]),
        working=working[:d],
        works_today=bool(working[d]),
    )
