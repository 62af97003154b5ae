"""Time: half-open intervals, start-stamped, UTC inside; a market's zone only outside.

An axis is built from instants, never from a count of 96: a delivery day has 92, 96 or 100 quarter-hours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from coflex.domain.errors import CoflexError, OutsideAxis

QUARTER = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Axis:
    """`count` half-open periods of length `step`, the first one starting at `start` (timezone-aware UTC)."""

    start: datetime
    count: int
    step: timedelta = QUARTER

    def __post_init__(self) -> None:
        if self.start.tzinfo is None:
            raise CoflexError(f"The instant {self.start} has no time zone.", "Give one; UTC is kept inside.")
        object.__setattr__(self, "start", self.start.astimezone(UTC))

    @property
    def end(self) -> datetime:
        """The first instant after the axis."""
        return self.start + self.count * self.step

    @property
    def hours(self) -> float:
        """Length of one period in hours: kW times this is kWh."""
        return self.step / timedelta(hours=1)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[datetime]:
        return (self.start + i * self.step for i in range(self.count))

    def __getitem__(self, position: int) -> datetime:
        if not 0 <= position < self.count:
            raise OutsideAxis(f"Position {position} is outside an axis of {self.count} periods.")
        return self.start + position * self.step

    def covers(self, instant: datetime) -> bool:
        """Whether the instant lies in [start, end)."""
        return self.start <= instant < self.end

    def position(self, instant: datetime) -> int:
        """The period that starts at `instant`. Raises OutsideAxis if none does."""
        offset, rest = divmod(instant - self.start, self.step)
        if rest or not 0 <= offset < self.count:
            raise OutsideAxis(f"No period of the axis {self.start.isoformat()} .. starts at {instant.isoformat()}.")
        return offset

    def window(self, begin: datetime, end: datetime) -> Axis:
        """The part of the axis inside [begin, end). Raises OutsideAxis if a bound is not on the axis."""
        first, last = self._boundary(begin), self._boundary(end)
        return Axis(self[first] if first < self.count else self.end, max(0, last - first), self.step)

    def slice_of(self, part: Axis) -> slice:
        """Positions of another axis inside this one."""
        first = self._boundary(part.start)
        return slice(first, first + part.count)

    def _boundary(self, instant: datetime) -> int:
        offset, rest = divmod(instant - self.start, self.step)
        if rest or not 0 <= offset <= self.count:
            raise OutsideAxis(f"{instant.isoformat()} is no boundary of the axis that starts {self.start.isoformat()}.")
        return offset


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """The instant (UTC) at which a local day starts."""
    return datetime.combine(day, time(0), tzinfo=zone).astimezone(UTC)


def delivery_day(day: date, zone: ZoneInfo) -> Axis:
    """The quarter-hours of a local day: 92, 96 or 100 of them."""
    start, end = midnight(day, zone), midnight(day + timedelta(days=1), zone)
    return Axis(start, (end - start) // QUARTER)


def local_label(instant: datetime, zone: ZoneInfo) -> str:
    """Local time with its offset, so that the repeated hour stays two hours: 2016-10-30T02:15+01:00."""
    return instant.astimezone(zone).isoformat(timespec="minutes")


_MOMENT = re.compile(r"^D(?P<days>[+-]\d+)?(?:T(?P<hour>\d\d):(?P<minute>\d\d)|\+(?P<duration>P[A-Z0-9]+))?$")
_DURATION = re.compile(r"^PT(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?$")


def duration(text: str) -> timedelta:
    """An ISO 8601 duration of hours and minutes: PT4H, PT15M, PT1H30M. Raises CoflexError on anything else."""
    match = _DURATION.match(text)
    if not match or text == "PT":
        raise CoflexError(f"'{text}' is no duration.", "Write hours and minutes as PT4H, PT15M or PT1H30M.")
    return timedelta(hours=int(match["hours"] or 0), minutes=int(match["minutes"] or 0))


def moment(text: str, day: date, zone: ZoneInfo) -> datetime:
    """The instant (UTC) that a design's expression names for a delivery day.

    `D`, `D-1`, `D+1`: local midnight of that day. `D-1T08:00`: a local clock time. `D+PT4H`: elapsed time
    after the start of the day, the same count of quarter-hours on a day of 92 or 100.
    Raises CoflexError on anything else.
    """
    match = _MOMENT.match(text)
    if not match:
        raise CoflexError(f"'{text}' is no moment.", "Write D, D-1, D-1T08:00 (local clock) or D+PT4H (elapsed).")
    on = day + timedelta(days=int(match["days"] or 0))
    if match["duration"]:
        return midnight(on, zone) + duration(match["duration"])
    clock = time(int(match["hour"] or 0), int(match["minute"] or 0))
    return datetime.combine(on, clock, tzinfo=zone).astimezone(UTC)
