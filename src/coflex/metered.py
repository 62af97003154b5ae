"""What the field owes to settlement: metered quarter-hours and baselines of units that were called (SET-01, SET-02).

`coflex.service.settling.due` says what is lacking. It is computed here from the tables of the tenant's log, on a thread
and day by day, so that 4-second readings of many units and weeks fit into memory, and brought by `metered.bring`. What
no reading is there for is brought as missing, and looked for again once an hour, as is what was estimated from a part
of it. Each baseline's record is kept beside the log under its digest, for whoever computes it anew. A correction that
comes in later is brought in the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import BinaryIO, TypeVar
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from numpy.typing import NDArray

from coflex.adapters.measurements.files import put
from coflex.adapters.measurements.tables import columns_of
from coflex.adapters.web.api.desk import Desk
from coflex.domain.errors import Refused
from coflex.domain.quantity import Floats, Ints
from coflex.domain.reading import Quality
from coflex.domain.series import Series
from coflex.domain.time import QUARTER, Axis, delivery_day
from coflex.evidence.message import Quantity
from coflex.ingest import Running
from coflex.metering.baselines.compute import Asked, compute
from coflex.metering.baselines.document import load_method
from coflex.metering.baselines.record import BaselineRecord
from coflex.metering.delivery import to_watt_hour
from coflex.metering.eligibility import UnitCalendar
from coflex.metering.quarters import QUALITIES, quarter_hours
from coflex.register.packing import canonical
from coflex.register.settlement import BaselineDay, MeteredDay, ReadyDay, day_id
from coflex.service.field import points_of, unit_at
from coflex.service.machine import encode
from coflex.service.ports import Command
from coflex.service.settling import (
    Due,
    ReadyDue,
    based_on,
    due,
    due_ready,
    event_days,
    owed,
    ready_days,
    ready_owed,
    zone_of,
)
from coflex.service.state import State
from coflex.service.verbs.metered import BaselineForm, Bring, QuantityForm, ReadyForm, form_of

T = TypeVar("T")
BASELINES = "baselines"
MOST_AT_ONCE, PAGE = 200, 1_000
AGAIN_S = 3_600.0
ACTOR = "field"
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MS = timedelta(milliseconds=1)
_TEN_THOUSANDTH = Decimal("0.0001")
_MISSING = QUALITIES.index(Quality.MISSING)
# Readings of an hour may begin before the day that they reach into.
_BEFORE = timedelta(hours=1)


@dataclass(frozen=True, eq=False)
class Energies:
    """Quarter-hours of points on a local day: kWh (injection positive, NaN where missing), index into QUALITIES, the
    last message that counts (-1: none), and the share of the time that was measured. Shape (points, quarters)."""

    kwh: Floats
    quality: NDArray[np.uint8]
    leaf: Ints
    covered: Floats

    @classmethod
    def none(cls, points: int, quarters: int) -> Energies:
        """Nothing is known."""
        shape = points, quarters
        missing = np.full(shape, _MISSING, np.uint8)
        return cls(np.full(shape, np.nan), missing, np.full(shape, -1, np.int64), np.zeros(shape))

    def of(self, rows: Sequence[int]) -> Energies:
        """Those of a unit with these rows as its points: of each quarter the best, of equal ones the later point's.
        Shape (1, quarters)."""
        found = Energies.none(1, self.kwh.shape[1])
        for row in rows:
            one = slice(row, row + 1)
            found._take(Energies(self.kwh[one], self.quality[one], self.leaf[one], self.covered[one]))
        return found

    def _take(self, other: Energies) -> None:
        """Take over what is as good or better."""
        better = (other.quality <= self.quality) & (other.quality != _MISSING)
        self.kwh[better], self.quality[better] = other.kwh[better], other.quality[better]
        self.leaf[better] = other.leaf[better]
        np.maximum(self.covered, other.covered, out=self.covered)


def energies_of(running: Running, points: Sequence[int], axis: Axis, size: int) -> Energies:
    """What points (ascending) told of a day, as of a log of `size`: energies where they sent them, else of power."""
    numbers, start = np.array(points, dtype=np.int64), (axis.start - _EPOCH) // _MS
    found = Energies.none(len(points), len(axis))
    for quantity in (Quantity.ACTIVE_POWER_W, Quantity.ACTIVE_ENERGY_WH):
        table = running.intake.tables.read(quantity, axis.start - _BEFORE, axis.end, points, size)
        quarters = quarter_hours(columns_of(table), size, quantity is Quantity.ACTIVE_ENERGY_WH)
        other = Energies.none(len(points), len(axis))
        other.kwh[:], other.quality[:] = quarters.grid(numbers, start, len(axis))
        column = (quarters.start - start) // (QUARTER // _MS)
        here = (column >= 0) & (column < len(axis))
        place = np.searchsorted(numbers, quarters.point[here]), column[here]
        other.leaf[place], other.covered[place] = quarters.leaf[here], quarters.covered[here]
        found._take(other)
    return found


@dataclass(eq=False)
class Bringer:
    """Brings what is due of one tenant. On the running loop."""

    tenant: str
    desk: Desk
    running: Running
    _next: dict[tuple[date, str], float] = field(default_factory=dict)
    """When to look for what had no readings again, by the loop's clock."""
    _next_ready: dict[tuple[date, str], float] = field(default_factory=dict)
    """The same of bands that were not wholly ready."""
    _touched: dict[tuple[date, str], float] = field(default_factory=dict)
    """Days of units that may be others since readings were corrected, and when to look at them, by the same clock."""

    async def turn(self) -> int:
        """Bring what is due, and what is another since it was brought, as much as is done at once; how many units and
        days were looked at, MOST_AT_ONCE or more where some are left. What cannot be computed is told, keeps nothing
        else back, and is looked for again; what is not taken is told. Raises CoflexError."""
        state, now, clock = self.desk.state(self.tenant), self.desk.now(self.tenant), asyncio.get_running_loop().time()
        wanted = self._wanted(state, now)
        touched = sorted(key for key, at in self._touched.items() if at <= clock)
        again = touched[: MOST_AT_ONCE - len(wanted)]
        owing = [one for day, unit in again if (one := owed(state, unit, day)) is not None]
        held = {*self._lacking(state, now), *(one for day, unit in again for one in ready_owed(state, unit, day))}
        ready = [(one, tuple(points_of(state, unit) for unit in one.units)) for one in sorted(held, key=_place)]
        failed = set[tuple[date, str]]()
        if wanted or owing or ready:
            await self.desk.settled()
            zone, size = zone_of(state), self.running.size()
            units = [one.unit for one in (*wanted, *owing) if one.baseline is not None]
            events = {unit: event_days(state, unit) for unit in units}
            forms = await asyncio.to_thread(self._forms, [*wanted, *owing], ready, zone, events, size)
            await self._submit([one for one in forms if one is not None])
            asked = [
                *((one.day, (one.unit,)) for one in (*wanted, *owing)),
                *((one.day, one.units) for one, _ in ready),
            ]
            failed = {(d, u) for (d, units), form in zip(asked, forms, strict=True) if form is None for u in units}
        for key in again:
            if key in failed:
                self._touched[key] = clock + AGAIN_S
            else:
                del self._touched[key]
        left = MOST_AT_ONCE if len(again) < len(touched) else 0
        return left + len(wanted) + len(owing) + len(ready)

    async def _submit(self, forms: Sequence[Bring]) -> None:
        """Bring what is news of forms, in one command; where that is refused, half by half down to the one at fault."""
        if not forms:
            return
        news = _news(self.desk.state(self.tenant), _joined(forms))
        if not (news.metered or news.baselines or news.ready):
            return
        try:
            await self.desk.submit(Command(self.tenant, "metered.bring", "", "", "", ACTOR, encode(news)))
        except Refused as fault:
            if len(forms) == 1:
                self.running.failed(fault)
                return
            middle = len(forms) // 2
            await self._submit(forms[:middle])
            await self._submit(forms[middle:])

    def corrected(self, spans: Iterable[tuple[int, int, int]]) -> None:
        """Readings of points in [begin, end), ms, came late or are others now."""
        state = self.desk.state(self.tenant)
        zone = zone_of(state)
        for point, begin, end in spans:
            unit = unit_at(state, point)
            if unit is not None:
                first, last = (_local(ms, zone) for ms in (begin, end - 1))
                for day in _range(first, last):
                    self._touched |= {(based, unit): 0.0 for based in based_on(state, unit, day)}
                    if ready_days(state, day):
                        self._touched[day, unit] = 0.0

    def look_again(self) -> None:
        """Let the next turn look for everything that is due, also for what had no readings a moment ago."""
        self._next.clear()
        self._next_ready.clear()

    def _wanted(self, state: State, now: datetime) -> list[Due]:
        return _fresh(partial(due, state, now), self._next, lambda one: (one.day, one.unit))

    def _lacking(self, state: State, now: datetime) -> list[ReadyDue]:
        return _fresh(partial(due_ready, state, now), self._next_ready, lambda one: (one.day, one.band))

    # ---------------------------------------------------------------- on a thread

    def _forms(
        self,
        wanted: Sequence[Due],
        ready: Sequence[tuple[ReadyDue, tuple[tuple[int, ...], ...]]],
        zone: ZoneInfo,
        events: Mapping[str, frozenset[date]],
        size: int,
    ) -> list[Bring | None]:
        """What `metered.bring` takes, item by item. `ready`: with the points of each unit."""
        points = {point for one in wanted for point in one.points} | {p for _, units in ready for u in units for p in u}
        days = _Days(self.running, zone, sorted(points), size)
        days.read({day for one in wanted for day in _days(one)} | {one.day for one, _ in ready})
        return [
            *(self._made(partial(self._of_unit, one, days, events.get(one.unit, frozenset()))) for one in wanted),
            *(self._made(partial(self._of_band, one, units, days)) for one, units in ready),
        ]

    def _made(self, make: Callable[[], Bring]) -> Bring | None:
        """An item's form; None where it cannot be made, which is told."""
        try:
            return make()
        except Exception as fault:  # a fault of one item stops no other one
            self.running.failed(fault)
            return None

    def _of_unit(self, one: Due, days: _Days, events: frozenset[date]) -> Bring:
        baselines = () if one.baseline is None else (self._baseline(one, days, events),)
        return Bring(self.running.origin, days.size, tuple(days.quantities(one)), baselines)

    def _of_band(self, one: ReadyDue, units: Sequence[Sequence[int]], days: _Days) -> Bring:
        return Bring(self.running.origin, days.size, ready=tuple(days.ready(one, units)))

    def _baseline(self, one: Due, days: _Days, events: frozenset[date]) -> BaselineForm:
        """The first method with enough readings, else the first one without values."""
        assert one.baseline is not None
        asked = one.baseline
        series = days.series(one, asked.oldest)
        wanted = Asked(
            one.unit,
            min(asked.event),
            max(asked.event) + QUARTER,
            asked.notice,
            UnitCalendar(events=events - {one.day}),
            np.array(asked.nomination) if asked.nomination else None,
            log_size=days.size,
        )
        records = [compute(series, days.zone, wanted, load_method(name)) for name in asked.methods]
        made = next((record for record in records if _whole(record)), records[0])
        return self._kept(made)

    def _kept(self, made: BaselineRecord) -> BaselineForm:
        """A record as it is brought, itself kept beside the log."""
        if not _whole(made):
            made = replace(made, values_kw=(), note=made.note or "There are not enough readings.")
        form = form_of(made)
        folder = self.running.intake.log.folder / BASELINES
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{form.record}.json"
        if not path.exists():
            put(path, partial(_write, canonical(made)), 0o600)
        return form


@dataclass(eq=False)
class _Days:
    """The quarter-hours of points on local days, as of a log of `size`."""

    running: Running
    zone: ZoneInfo
    points: Sequence[int]
    size: int
    _read: dict[date, Energies] = field(default_factory=dict)

    def read(self, days: Iterable[date]) -> None:
        for day in sorted(days):
            self._read[day] = energies_of(self.running, self.points, delivery_day(day, self.zone), self.size)

    def _of(self, one: Due, day: date) -> Energies:
        return self._read[day].of([self.points.index(point) for point in one.points])

    def quantities(self, one: Due) -> list[QuantityForm]:
        """The quarter-hours of a day that are due."""
        found, rows = self._of(one, one.day), []
        for start in one.quarters:
            at = one.axis.position(start)
            quality, leaf = QUALITIES[int(found.quality[0, at])], int(found.leaf[0, at])
            kwh = None if quality is Quality.MISSING else _exact(float(found.kwh[0, at]))
            rows.append(QuantityForm(one.unit, start, quality, kwh, leaf if leaf >= 0 else None))
        return rows

    def ready(self, one: ReadyDue, units: Sequence[Sequence[int]]) -> list[ReadyForm]:
        """Of each quarter-hour the mean over the units of the share of its time in which their devices measured: a unit
        that tells nothing is taken as not ready, as is a group without units."""
        axis, read = delivery_day(one.day, self.zone), self._read[one.day]
        rows = [[self.points.index(point) for point in points] for points in units]
        covered = [np.minimum(read.covered[mine].max(axis=0, initial=0.0), 1.0) for mine in rows]
        mean = np.mean(covered, axis=0) if covered else np.zeros(len(axis))
        return [
            ReadyForm(one.band, start, Decimal(repr(float(mean[axis.position(start)]))).quantize(_TEN_THOUSANDTH))
            for start in one.quarters
        ]

    def series(self, one: Due, oldest: date) -> Series:
        """Mean power in kW of a unit from a day to the end of the due one."""
        days = _range(oldest, one.day)
        kw = np.concatenate([self._of(one, day).kwh[0] for day in days]) / (QUARTER / timedelta(hours=1))
        return Series((one.unit,), Axis(delivery_day(oldest, self.zone).start, len(kw)), kw[None])


def _fresh(
    look: Callable[[tuple[date, str] | None, int], Sequence[T]],
    later: dict[tuple[date, str], float],
    place: Callable[[T], tuple[date, str]],
) -> list[T]:
    """What is due and was not looked for in the last hour, as much as is done at once. `later`: when to look for each
    again, by the loop's clock (in place)."""
    clock, after, found = asyncio.get_running_loop().time(), None, list[T]()
    while len(found) < MOST_AT_ONCE and (page := look(after, PAGE)):
        found += [one for one in page if later.get(place(one), 0.0) <= clock]
        after = place(page[-1])
    found = found[:MOST_AT_ONCE]
    for key in [key for key, at in later.items() if at <= clock]:
        del later[key]
    later |= {place(one): clock + AGAIN_S for one in found}
    return found


def _place(one: ReadyDue) -> tuple[date, str, tuple[datetime, ...]]:
    return one.day, one.band, one.quarters


def _joined(forms: Sequence[Bring]) -> Bring:
    """Forms on one state of one log as one."""
    metered, baselines = (row for one in forms for row in one.metered), (row for one in forms for row in one.baselines)
    ready = (row for one in forms for row in one.ready)
    return msgspec.structs.replace(forms[0], metered=tuple(metered), baselines=tuple(baselines), ready=tuple(ready))


def _news(state: State, form: Bring) -> Bring:
    """What of a form is not in the state already."""
    zone = zone_of(state)

    def is_new(one: QuantityForm) -> bool:
        day = state.find(MeteredDay, day_id(one.unit, one.start.astimezone(zone).date()))
        there = day.at(one.start) if day is not None else None
        return there is None or (there.kwh, there.quality) != (one.kwh, one.quality)

    def is_other(one: BaselineForm) -> bool:
        there = state.find(BaselineDay, day_id(one.unit, one.day))
        return there is None or (there.method, there.fingerprint, there.kwh) != (one.method, one.fingerprint, one.kwh)

    def is_changed(one: ReadyForm) -> bool:
        day = state.find(ReadyDay, day_id(one.band, one.start.astimezone(zone).date()))
        there = day.at(one.start) if day is not None else None
        return there is None or there.share != one.share

    metered, baselines = tuple(filter(is_new, form.metered)), tuple(filter(is_other, form.baselines))
    ready = tuple(filter(is_changed, form.ready))
    return msgspec.structs.replace(form, metered=metered, baselines=baselines, ready=ready)


def _local(ms: int, zone: ZoneInfo) -> date:
    return (_EPOCH + ms * _MS).astimezone(zone).date()


def _days(one: Due) -> list[date]:
    """The local days whose readings a due item needs."""
    return _range(one.day if one.baseline is None else one.baseline.oldest, one.day)


def _range(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def _whole(record: BaselineRecord) -> bool:
    """Whether a record has a number for every quarter-hour."""
    return bool(record.values_kw) and bool(np.isfinite(record.values_kw).all())


def _exact(kwh: float) -> Decimal:
    return to_watt_hour(Decimal(repr(kwh)))


def _write(body: bytes, file: BinaryIO) -> None:
    file.write(body)
