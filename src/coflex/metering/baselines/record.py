"""What is kept of a baseline so that anyone can compute it again, and which ones a corrected reading touches.

Intervals are half-open, UTC. A reading that no record read changes none: `touched` names exactly the records whose
method looked at it, so that correcting one meter never re-opens the settlement of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from coflex.domain.errors import CoflexError
from coflex.domain.time import Axis
from coflex.metering.baselines.document import MethodDocument
from coflex.metering.baselines.result import BaselineResult
from coflex.metering.eligibility import Passed


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Readings of a unit in [start, end)."""

    unit: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class BaselineRecord:
    """A baseline and all that it depends on.

    method, version, fingerprint: the document. days: those averaged; passed: every other day and why. adjustment: kW
    added or factor applied, None when none was made. known_at: from when it could be computed; ex_ante: that was no
    later than the event began. log_size: readings are those of the log's first so many leaves. read: every reading
    that had a say. values_kw: signed, injection positive, from `start` on; empty when there were not enough readings.
    """

    unit: str
    day: date
    start: datetime
    method: str
    version: int
    fingerprint: str
    label: str
    days: tuple[date, ...]
    passed: tuple[tuple[date, Passed], ...]
    adjustment: float | None
    known_at: datetime
    ex_ante: bool
    note: str
    log_size: int
    read: tuple[Span, ...]
    values_kw: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Circumstances:
    """On which readings a result was made: the unit, its event day, the past days in the order of the history's rows,
    the units of the peers in theirs, why days were passed over, the size of the log. The event's first quarter."""

    unit: str
    axis: Axis
    days: Sequence[date]
    day_axes: Sequence[Axis]
    passed: Mapping[date, Passed]
    log_size: int
    day: date
    first: int
    peers: Sequence[str] = ()


def record_of(result: BaselineResult, document: MethodDocument, made: Circumstances) -> BaselineRecord:
    """The record of a result. Raises CoflexError when the days do not fit the rows that the result names."""
    if len(made.days) != len(made.day_axes) or max((*result.considered, -1)) >= len(made.days):
        raise CoflexError("The days do not fit the history's rows.", "Give the days that the history was aligned from.")
    return BaselineRecord(
        unit=made.unit,
        day=made.day,
        start=made.axis.start,
        method=document.id,
        version=document.version,
        fingerprint=document.fingerprint,
        label=result.method,
        days=tuple(made.days[d] for d in result.days),
        passed=tuple(sorted((day, why) for day, why in made.passed.items())),
        adjustment=result.adjustment,
        known_at=made.axis.start + result.known_at * made.axis.step,
        ex_ante=result.known_at <= made.first,
        note=result.note,
        log_size=made.log_size,
        read=tuple(sorted(_spans(result, made))),
        values_kw=tuple(float(value) for value in result.values) if result.enough else (),
    )


def _spans(result: BaselineResult, made: Circumstances) -> Iterator[Span]:
    days = [made.day_axes[d] for d in result.considered]
    for axis in days:
        yield Span(made.unit, axis.start, axis.end)
    for start, stop in result.read_today:
        if start < stop:
            yield Span(made.unit, made.axis.start + start * made.axis.step, made.axis.start + stop * made.axis.step)
    # Any peer may have been the one most alike, so the readings of all of them had a say.
    for peer in made.peers:
        for axis in days:
            yield Span(peer, axis.start, axis.end)
        yield Span(peer, made.axis.start, made.axis.start + result.known_at * made.axis.step)


def touched(records: Iterable[BaselineRecord], corrected: Iterable[Span]) -> tuple[BaselineRecord, ...]:
    """The records, in their order, that read any of the corrected readings; all others stay as they are, to the bit."""
    by_unit: dict[str, list[Span]] = {}
    for span in corrected:
        by_unit.setdefault(span.unit, []).append(span)

    def reads(record: BaselineRecord) -> bool:
        return any(
            mine.start < other.end and other.start < mine.end
            for mine in record.read
            for other in by_unit.get(mine.unit, ())
        )

    return tuple(record for record in records if reads(record))


@dataclass(frozen=True, slots=True)
class Difference:
    """A quarter-hour whose baseline a correction moved, kW; None where a value is not there."""

    start: datetime
    before_kw: float | None
    after_kw: float | None


def differences(before: BaselineRecord, after: BaselineRecord, step: timedelta) -> tuple[Difference, ...]:
    """Where two records of one unit and day differ: what a correction run has to post, and nothing else.

    Raises CoflexError when they are of different units or days.
    """
    if (before.unit, before.start) != (after.unit, after.start):
        raise CoflexError("The records are of different units or days.", "Compare records of the same.")
    count = max(len(before.values_kw), len(after.values_kw))
    pairs = [
        tuple(one.values_kw[t] if t < len(one.values_kw) else None for one in (before, after)) for t in range(count)
    ]
    return tuple(Difference(before.start + t * step, old, new) for t, (old, new) in enumerate(pairs) if old != new)
