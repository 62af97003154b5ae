"""Which past days may stand for the event day, with a reason for every day that may not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

import numpy as np

from coflex.domain.errors import Finding, refuse
from coflex.domain.quantity import Bools

OLDEST = 3_660


class Passed(StrEnum):
    """Why a day was passed over. When several hold, the first of this list is told."""

    NOT_EARLIER = "not before the event day"
    TOO_OLD = "too old"
    NOT_YET = "before the unit existed"
    EVENT = "event"
    HOLIDAY = "holiday"
    OTHER_TYPE = "other day type"
    OUTAGE = "outage"
    MISSING = "missing reading"
    NOT_NEEDED = "enough later days"
    NOT_PICKED = "ranked out"


class Like(StrEnum):
    """Day types. Two: working days; Saturdays, Sundays and holidays. Three: Saturdays by themselves. Weekday: each by
    itself, holidays with Sundays. Any: all days stand for each other."""

    TWO = "two"
    THREE = "three"
    WEEKDAY = "weekday"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class DayRule:
    """Days of the same type (`like`), no older than `oldest` days. Raises Refused."""

    like: Like = Like.TWO
    oldest: int = 45

    def __post_init__(self) -> None:
        if not 1 <= self.oldest <= OLDEST:
            message = f"Days of {self.oldest} days ago cannot be asked for; give 1 to {OLDEST}."
            refuse("Eligible days", [Finding("days: oldest", "out_of_range", message)])


@dataclass(frozen=True, slots=True)
class UnitCalendar:
    """What happened to a unit and in its land: local days of earlier events (activations, tests, limits), of outages
    and holidays, and the day from which the unit existed."""

    events: frozenset[date] = frozenset()
    outages: frozenset[date] = frozenset()
    holidays: frozenset[date] = frozenset()
    since: date | None = None


NO_CALENDAR = UnitCalendar()


def day_type(day: date, like: Like, holidays: Collection[date] = ()) -> int:
    """The number of a day's type; days of one number stand for each other."""
    weekday = 6 if day in holidays else day.weekday()
    return {
        Like.TWO: int(weekday >= 5),
        Like.THREE: max(0, weekday - 4),
        Like.WEEKDAY: weekday,
        Like.ANY: 0,
    }[like]


def judge_days(
    days: Sequence[date], target: date, rule: DayRule, calendar: UnitCalendar, whole: Bools | None = None
) -> tuple[Passed | None, ...]:
    """For each day why it cannot stand for the target day, None where it can.

    whole[d]: every reading of the day is there; all are when it is not given. A holiday is told as such where it is
    of another type than the target day.
    """
    metered = np.ones(len(days), dtype=np.bool_) if whole is None else whole
    wanted = day_type(target, rule.like, calendar.holidays)

    def verdict(day: date, complete: bool) -> Passed | None:
        holiday = day in calendar.holidays
        other = day_type(day, rule.like, calendar.holidays) != wanted
        reasons = {
            Passed.NOT_EARLIER: day >= target,
            Passed.TOO_OLD: target - day > timedelta(days=rule.oldest),
            Passed.NOT_YET: calendar.since is not None and day < calendar.since,
            Passed.EVENT: day in calendar.events,
            Passed.HOLIDAY: other and holiday,
            Passed.OTHER_TYPE: other,
            Passed.OUTAGE: day in calendar.outages,
            Passed.MISSING: not complete,
        }
        return next((reason for reason, holds in reasons.items() if holds), None)

    return tuple(verdict(day, bool(complete)) for day, complete in zip(days, metered, strict=True))


def may_stand(verdicts: Sequence[Passed | None]) -> Bools:
    """The days without a reason against them, shape (days,)."""
    return np.array([verdict is None for verdict in verdicts], dtype=np.bool_)


def reasons(
    days: Sequence[date],
    verdicts: Sequence[Passed | None],
    used: Collection[int],
    considered: Collection[int],
    whole: Bools,
) -> Mapping[date, Passed]:
    """Why each day that a baseline did not use was not used: the verdict; else that it was not looked at, lacks a
    reading, or was ranked out.

    used, considered: positions of days, as a `BaselineResult` tells them. whole[d]: as in `judge_days`; it is asked of
    days that were looked at alone, so that a reading of any other day changes nothing here either.
    """

    def why(at: int) -> Passed:
        if at not in considered:
            return Passed.NOT_NEEDED
        return Passed.NOT_PICKED if whole[at] else Passed.MISSING

    return {
        day: verdict or why(at) for at, (day, verdict) in enumerate(zip(days, verdicts, strict=True)) if at not in used
    }
