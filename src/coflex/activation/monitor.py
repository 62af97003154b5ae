"""Monitoring: what is measured against the set point, and when that is an alarm (ACT-03).

An alarm begins when the deviation has been beyond `enter` for `after_s`, and ends when it has been inside `leave` for
as long: two bounds and a time, so that noise around one bound raises no alarm after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum


class Alarm(StrEnum):
    """`short`: less than ordered, `over`: more, in the direction of the order; `silent`: nothing was measured."""

    NONE = "none"
    SHORT = "short"
    OVER = "over"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds as shares of the set change, at least `floor_kw`; `leave` below `enter`. `after_s`: how long a deviation
    lasts before it counts; `silent_s`: after how long without a value a unit is silent."""

    enter: float = 0.10
    leave: float = 0.05
    floor_kw: float = 1.0
    after_s: float = 60.0
    silent_s: float = 30.0

    def enter_kw(self, set_kw: float) -> float:
        return max(self.floor_kw, self.enter * abs(set_kw))

    def leave_kw(self, set_kw: float) -> float:
        return max(self.floor_kw * self.leave / self.enter, self.leave * abs(set_kw))


@dataclass(frozen=True, slots=True)
class Sample:
    """A mean of a measurement that ends at `at`: the change ordered and the change measured, kW, injection positive;
    `change_kw` None: no value."""

    at: datetime
    set_kw: float
    change_kw: float | None


@dataclass(frozen=True, slots=True)
class Watch:
    """The state of one unit. `since`: from when the alarm holds, the instant at which the deviation began. `leaning`:
    what the last samples point to, since `leaning_since`; `heard`: the last value. `deviation_kw`: of the last value,
    in the direction of the order: below zero is short."""

    alarm: Alarm = Alarm.NONE
    since: datetime | None = None
    leaning: Alarm = Alarm.NONE
    leaning_since: datetime | None = None
    heard: datetime | None = None
    deviation_kw: float = 0.0


def deviation_kw(sample: Sample) -> float:
    """By how much more than ordered is given, in the direction of the order; without an order any change is over."""
    assert sample.change_kw is not None
    if sample.set_kw == 0:
        return abs(sample.change_kw)
    way = 1.0 if sample.set_kw > 0 else -1.0
    return way * (sample.change_kw - sample.set_kw)


def follow(watch: Watch, sample: Sample, limits: Limits) -> Watch:
    """The state after a sample. Samples come in the order of time; one that does not is left out."""
    if watch.heard is not None and sample.at <= watch.heard:
        return watch
    if sample.change_kw is None:
        return _silence(watch, sample.at, limits)
    off = deviation_kw(sample)
    heard = replace(watch, heard=sample.at, deviation_kw=off)
    points = _points_to(heard.alarm, off, sample.set_kw, limits)
    if points is not heard.leaning or heard.leaning_since is None:
        heard = replace(heard, leaning=points, leaning_since=sample.at)
    assert heard.leaning_since is not None
    lasted = (sample.at - heard.leaning_since).total_seconds()
    # a value ends a silence at once: the unit is there again
    if points is heard.alarm or (lasted < limits.after_s and heard.alarm is not Alarm.SILENT):
        return heard
    if heard.alarm is Alarm.SILENT and lasted < limits.after_s:
        points = Alarm.NONE
    return replace(heard, alarm=points, since=heard.leaning_since if points is not Alarm.NONE else None)


def _points_to(alarm: Alarm, off: float, set_kw: float, limits: Limits) -> Alarm:
    """What a deviation points to: the alarm stays until it is inside the inner bound."""
    if off < -limits.enter_kw(set_kw) or (alarm is Alarm.SHORT and off < -limits.leave_kw(set_kw)):
        return Alarm.SHORT
    if off > limits.enter_kw(set_kw) or (alarm is Alarm.OVER and off > limits.leave_kw(set_kw)):
        return Alarm.OVER
    return Alarm.NONE


def _silence(watch: Watch, at: datetime, limits: Limits) -> Watch:
    """The state where no value came by an instant."""
    if watch.heard is None:
        return replace(watch, heard=at - timedelta(microseconds=1))
    if watch.alarm is Alarm.SILENT or (at - watch.heard).total_seconds() < limits.silent_s:
        return watch
    return replace(watch, alarm=Alarm.SILENT, since=watch.heard, leaning=Alarm.NONE, leaning_since=None)


def alarms(samples: Sequence[Sample], limits: Limits) -> Iterator[tuple[datetime, Watch]]:
    """The state at each sample at which the alarm changes."""
    watch = Watch()
    for sample in samples:
        after = follow(watch, sample, limits)
        if after.alarm is not watch.alarm:
            yield sample.at, after
        watch = after
