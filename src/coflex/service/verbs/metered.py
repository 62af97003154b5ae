"""Metered quantities, baselines and readiness, brought from the field for settlement (SET-01, SET-02).

What `coflex.service.settling` says to be due comes in here, by the platform's own `field`. The same again changes
nothing; what a larger log says otherwise supersedes, and every version stays in the journal. A quantity of a
quarter-hour in which nothing was ordered of its unit is not taken: the platform keeps what settlement needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from hashlib import sha256
from string import hexdigits
from typing import Annotated

import msgspec

from coflex.domain.errors import CoflexError, Finding, refuse
from coflex.domain.party import Role
from coflex.domain.reading import Quality
from coflex.domain.time import delivery_day
from coflex.metering.baselines.record import BaselineRecord
from coflex.metering.delivery import WATT_HOUR, energies_kwh
from coflex.register.activations import ActivationOrder, SetPointEntry
from coflex.register.packing import canonical
from coflex.register.settlement import BaselineDay, MeteredDay, Quantity, Readiness, ReadyDay, day_id
from coflex.service.machine import Context, Outcome, Verb
from coflex.service.orders import Draft
from coflex.service.relations import operators
from coflex.service.settling import called, held_ready, method, methods_of, quarters, zone_of
from coflex.service.state import State
from coflex.service.verbs.order_forms import Instant, text_faults, utc
from coflex.service.verbs.resource_forms import Form

MOST_AT_ONCE = 10_000
MOST_KWH, SHARE = Decimal(10**9), Decimal("1e-6")
# Days of these years are whole in every zone of the calendar.
FIRST_YEAR, LAST_YEAR = 1970, 9_000
Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Place = tuple[str, date]


class QuantityForm(Form, frozen=True):
    """What a unit moved in the quarter-hour from `start`: kWh to 0.001, injection positive; None with the quality
    "missing" alone. `leaf`: place in the log of the last message that counts."""

    unit: str
    start: Instant
    quality: Quality
    kwh: Decimal | None = None
    leaf: Size | None = None


class BaselineForm(Form, frozen=True):
    """The baseline of a unit on a local day; see `BaselineDay`. `kwh`: of every quarter-hour of the day, to 0.001; none
    where there were not enough readings."""

    unit: str
    day: date
    method: str
    method_version: int
    fingerprint: str
    record: str
    kwh: Annotated[tuple[Decimal, ...], msgspec.Meta(max_length=100)] = ()
    note: str = ""


class ReadyForm(Form, frozen=True):
    """The share, 0 to 1, of the quarter-hour from `start` in which a group or unit had its capacity ready."""

    band: str
    start: Instant
    share: Decimal


def form_of(made: BaselineRecord) -> BaselineForm:
    """What is brought of a baseline that was computed: its kWh, and SHA-256 of the record in canonical JSON."""
    return BaselineForm(
        unit=made.unit,
        day=made.day,
        method=made.method,
        method_version=made.version,
        fingerprint=made.fingerprint,
        record=sha256(canonical(made)).hexdigest(),
        kwh=energies_kwh(made.values_kw),
        note=made.note,
    )


class Bring(Form, frozen=True):
    """What was computed from the first `log_size` entries of a log of measurements; `log`: its origin."""

    log: str
    log_size: Size
    metered: Annotated[tuple[QuantityForm, ...], msgspec.Meta(max_length=MOST_AT_ONCE)] = ()
    baselines: Annotated[tuple[BaselineForm, ...], msgspec.Meta(max_length=MOST_AT_ONCE)] = ()
    ready: Annotated[tuple[ReadyForm, ...], msgspec.Meta(max_length=MOST_AT_ONCE)] = ()


class Brought(msgspec.Struct, frozen=True):
    """How many were taken, how many were there already; which come from a smaller log than what is there, and which
    nobody needs, by unit and start or day."""

    taken: int
    same: int
    stale: tuple[str, ...]
    unknown: tuple[str, ...]


def _bring(state: State, context: Context, form: Bring) -> Outcome:
    """Take what settlement needs. Raises Refused with every fault of the form."""
    refuse("What was brought", _faults(state, form))
    draft, count = Draft(state, context), _Count()
    days: dict[Place, list[QuantityForm]] = {}
    zone = zone_of(state)
    for one in form.metered:
        days.setdefault((one.unit, one.start.astimezone(zone).date()), []).append(one)
    for (unit, day), mine in sorted(days.items()):
        _metered(draft, count, form, unit, day, mine)
    for base in sorted(form.baselines, key=lambda one: (one.day, one.unit)):
        _baseline(draft, count, form, base)
    bands: dict[Place, list[ReadyForm]] = {}
    for share in form.ready:
        bands.setdefault((share.band, share.start.astimezone(zone).date()), []).append(share)
    for (band, day), given in sorted(bands.items()):
        _ready(draft, count, form, band, day, given)
    told = Brought(count.taken, count.same, tuple(sorted(count.stale)), tuple(sorted(count.unknown)))
    return draft.outcome(told)


class _Count:
    """What became of the items of a command."""

    def __init__(self) -> None:
        self.taken = self.same = 0
        self.stale: list[str] = []
        self.unknown: list[str] = []


def _metered(draft: Draft, count: _Count, form: Bring, unit: str, day: date, mine: Iterable[QuantityForm]) -> None:
    """The quantities of a unit on a day, into the draft."""
    state, points = draft.state, called(draft.state, unit, day)
    needed = set(quarters(points, delivery_day(day, zone_of(state))))
    before = state.find(MeteredDay, day_id(unit, day))
    known = {one.start: one for one in before.quantities} if before is not None else {}
    after = dict(known)
    for one in mine:
        start = utc(one.start, "start")
        there, name = known.get(start), f"{unit}@{start.isoformat()}"
        if start not in needed:
            count.unknown.append(name)
        elif there is not None and (there.kwh, there.quality) == (one.kwh, one.quality):
            count.same += 1
        elif there is not None and form.log_size < there.log_size:
            count.stale.append(name)
        else:
            version = there.version + 1 if there is not None else 1
            kwh = None if one.kwh is None else one.kwh.quantize(WATT_HOUR)
            after[start] = Quantity(start, kwh, one.quality, one.leaf, form.log_size, version)
            count.taken += 1
    if after != known:
        quantities = tuple(after[start] for start in sorted(after))
        entry = MeteredDay(day_id(unit, day), unit, day, _owners(points), _providers(points), form.log, quantities)
        draft.put(entry)
        _tell(draft, "metered.brought", entry, corrected=any(after[start] != known[start] for start in known))


def _baseline(draft: Draft, count: _Count, form: Bring, one: BaselineForm) -> None:
    """The baseline of a unit on a day, into the draft."""
    state, points = draft.state, called(draft.state, one.unit, one.day)
    orders = [state.get(ActivationOrder, point.order) for point in points]
    before, name = state.find(BaselineDay, day_id(one.unit, one.day)), day_id(one.unit, one.day)
    if not any(one.method in methods_of(state, order, one.day) for order in orders):
        count.unknown.append(name)
        return
    axis = delivery_day(one.day, zone_of(state))
    after = BaselineDay(
        name, one.unit, one.day, _owners(points), _providers(points), one.method, one.method_version, one.fingerprint,
        one.record, axis.start, tuple(kwh.quantize(WATT_HOUR) for kwh in one.kwh), form.log_size, one.note,
    )  # fmt: skip
    if before is not None and replace(after, version=before.version, log_size=before.log_size) == before:
        count.same += 1
    elif before is not None and form.log_size < before.log_size:
        count.stale.append(name)
    else:
        count.taken += 1
        draft.put(replace(after, version=before.version + 1 if before is not None else 1))
        _tell(draft, "baseline.brought", after, corrected=before is not None)


def _ready(draft: Draft, count: _Count, form: Bring, band: str, day: date, mine: Iterable[ReadyForm]) -> None:
    """How ready a band was on a day, into the draft."""
    held = held_ready(draft.state, day).get(band, {})
    before = draft.state.find(ReadyDay, day_id(band, day))
    known = {one.start: one for one in before.shares} if before is not None else {}
    after = dict(known)
    for one in mine:
        start = utc(one.start, "start")
        there, name = known.get(start), f"{band}@{start.isoformat()}"
        if start not in held:
            count.unknown.append(name)
        elif there is not None and there.share == one.share:
            count.same += 1
        elif there is not None and form.log_size < there.log_size:
            count.stale.append(name)
        else:
            version = there.version + 1 if there is not None else 1
            after[start] = Readiness(start, one.share.quantize(SHARE), form.log_size, version)
            count.taken += 1
    if after != known:
        provider = next(iter(held.values())).provider
        shares = tuple(after[start] for start in sorted(after))
        entry = ReadyDay(day_id(band, day), band, day, provider, form.log, shares)
        draft.put(entry)
        corrected = any(after[start] != known[start] for start in known)
        audience = (provider, *(operators(draft.state, Role.MARKET_OPERATOR) if corrected else ()))
        draft.tell("readiness.brought", entry.id, audience, band=band, day=day, corrected=corrected)


def _owners(points: Iterable[SetPointEntry]) -> tuple[str, ...]:
    return tuple(sorted({one.owner for one in points}))


def _providers(points: Iterable[SetPointEntry]) -> tuple[str, ...]:
    return tuple(sorted({one.provider for one in points}))


def _tell(draft: Draft, kind: str, entry: MeteredDay | BaselineDay, corrected: bool) -> None:
    """Owners and providers; of a correction the market operators too, who may have settled it."""
    audience = (*entry.owners, *entry.providers)
    if corrected:
        audience += operators(draft.state, Role.MARKET_OPERATOR)
    draft.tell(kind, entry.id, audience, unit=entry.unit, day=entry.day, corrected=corrected)


# ---------------------------------------------------------------- faults


def _faults(state: State, form: Bring) -> Iterator[Finding]:
    yield from text_faults("log", form.log)
    seen: set[tuple[str, datetime]] = set()
    for i, one in enumerate(form.metered):
        place = f"metered[{i}]"
        if not FIRST_YEAR <= one.start.year <= LAST_YEAR:
            yield Finding(f"{place}.start", "out_of_calendar", "No meter was read then; correct it.")
        if (one.unit, one.start) in seen:
            yield Finding(place, "repeated", "The quarter-hour stands there twice; keep one.")
        seen.add((one.unit, one.start))
        if (one.kwh is None) is not (one.quality is Quality.MISSING):
            yield Finding(f"{place}.kwh", "quality", "What is missing has no kWh, everything else has; correct one.")
        yield from _number(f"{place}.kwh", one.kwh)
        if one.leaf is not None and one.leaf >= form.log_size:
            yield Finding(f"{place}.leaf", "leaf", f"The log has {form.log_size} entries; name one of them.")
    yield from _ready_faults(form)
    days: set[Place] = set()
    for i, base in enumerate(form.baselines):
        if (base.unit, base.day) in days:
            yield Finding(f"baselines[{i}]", "repeated", "The day stands there twice; keep one.")
        days.add((base.unit, base.day))
        yield from _baseline_faults(state, f"baselines[{i}]", base)


def _ready_faults(form: Bring) -> Iterator[Finding]:
    seen: set[tuple[str, datetime]] = set()
    for i, one in enumerate(form.ready):
        if (one.band, one.start) in seen:
            yield Finding(f"ready[{i}]", "repeated", "The quarter-hour stands there twice; keep one.")
        seen.add((one.band, one.start))
        if not FIRST_YEAR <= one.start.year <= LAST_YEAR:
            yield Finding(f"ready[{i}].start", "out_of_calendar", "No meter was read then; correct it.")
        if not (one.share.is_finite() and 0 <= one.share <= 1 and one.share == one.share.quantize(SHARE)):
            yield Finding(f"ready[{i}].share", "out_of_range", "A share lies between 0 and 1, to six decimals.")


def _baseline_faults(state: State, place: str, one: BaselineForm) -> Iterator[Finding]:
    if (one.method_version, one.fingerprint) != _version(one.method):
        message = f"The platform has not this document of '{one.method}'; compute by the one that comes with it."
        yield Finding(f"{place}.method", "method", message)
    if len(one.record) != 64 or set(one.record) - set(hexdigits.lower()):
        yield Finding(f"{place}.record", "digest", "It is no SHA-256; give 64 hexadecimal digits in lower case.")
    if not FIRST_YEAR <= one.day.year <= LAST_YEAR:
        yield Finding(f"{place}.day", "out_of_calendar", "No meter was read then; correct it.")
        return
    count = len(delivery_day(one.day, zone_of(state)))
    if one.kwh and len(one.kwh) != count:
        yield Finding(f"{place}.kwh", "count", f"The day has {count} quarter-hours; give a value for each, or none.")
    for kwh in one.kwh:
        yield from _number(f"{place}.kwh", kwh)
    yield from text_faults(f"{place}.note", one.note)


def _version(name: str) -> tuple[int, str] | None:
    """Version and fingerprint of a method's document; None where there is no such method."""
    try:
        document = method(name)
    except CoflexError:
        return None
    return document.version, document.fingerprint


def _number(place: str, kwh: Decimal | None) -> Iterator[Finding]:
    if kwh is None:
        return
    if not kwh.is_finite() or abs(kwh) > MOST_KWH:
        yield Finding(place, "number", f"{kwh} is no energy; give kWh.")
    elif kwh != kwh.quantize(WATT_HOUR):
        yield Finding(place, "grain", f"{kwh} kWh is finer than 0.001; round it, once.")


VERBS = (Verb("metered.bring", Bring, _bring),)
