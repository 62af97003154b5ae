"""What settlement needs beside the orders: periods, terms of products, what the field has to bring (SET-01, SET-02).

Metered quantities, baselines and readiness are computed outside of the machine, where the tables of measurements are.
The protocol is that of set points the other way round: `due` (and `due_ready` for capacity) says what is missing, the
field worker computes it and hands it in by the verb `metered.bring` (a baseline by `verbs.metered.form_of`), and what
was brought is due no more. Whatever is brought twice changes nothing, so a worker that was stopped begins again with
`due`. A correction of readings is brought in the same way, unasked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from math import isfinite, nan
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from coflex.activation.profile import between
from coflex.domain.clearing import Award
from coflex.domain.errors import Finding, Refused
from coflex.domain.product import PricingRule, Product, QuantityKind
from coflex.domain.reading import Quality
from coflex.domain.time import Axis, delivery_day, midnight
from coflex.domain.unit import Scope
from coflex.metering.baselines.document import MethodDocument, allowed_methods, load_method
from coflex.qualification.requirements import usual_procedure
from coflex.register.activations import ActivationOrder, SetPointEntry
from coflex.register.devices import Device
from coflex.register.market import Market, SessionEntry
from coflex.register.prequalification import ProductProcedure
from coflex.register.products import ProductEntry
from coflex.register.resources import GroupEntry
from coflex.register.settlement import BaselineDay, MeteredDay, ReadyDay, SettlementTerms, Terms, day_id
from coflex.service.index import index
from coflex.service.ledger import by_unit
from coflex.service.orders import awards_of, held_for, quarter, recent, spans
from coflex.service.state import State
from coflex.settlement.document import Availability, By, Delivered, Need, Payer, Penalty, PenaltyKind, Rule, Source
from coflex.settlement.invoice import days_of
from coflex.settlement.reading import read_rule

NOMINATED = "nominated"
CATALOGUE = "catalogue-"  # begins the ids of rules that follow from the catalogue
_AGREED = frozenset({"zero", "contracted"})
ZERO, ONE = Decimal(0), Decimal(1)
# So long after its day a quarter-hour that is not wholly measured is asked for again.
ASKED_AGAIN = timedelta(days=45)
# And readiness that is not whole: what comes later than that counts as late, which the field tells of itself.
READY_AGAIN = timedelta(days=1)
_INCOMPLETE = (Quality.MISSING, Quality.ESTIMATED)
_UNKNOWN_NAME = re.compile(r"[^a-z0-9_-]")


# ---------------------------------------------------------------- periods


@dataclass(frozen=True, slots=True)
class Period:
    """The local days from `first` to `last`, as instants [starts, ends)."""

    name: str
    first: date
    last: date
    starts: datetime
    ends: datetime


def zone_of(state: State) -> ZoneInfo:
    """The market's zone."""
    return ZoneInfo(state.get(Market, "market").zone)


def period_of(state: State, name: str) -> Period:
    """A settlement period by its name: a month, "2026-07", or a day, "2026-07-05". Raises Refused."""
    try:
        days = days_of(name)
        if days is None:
            raise ValueError(name)
        (first, last), zone = days, zone_of(state)
        return Period(name, first, last, midnight(first, zone), midnight(last + timedelta(days=1), zone))
    except (ValueError, OverflowError):
        message = "A period is a month or a day; write it as 2026-07 or 2026-07-05."
        raise Refused("The period", [Finding("period", "period", message)]) from None


# ---------------------------------------------------------------- terms of a product


@lru_cache(maxsize=256)
def rule_in(document: str) -> Rule:
    """The rule of a document, read once. Raises Refused with every fault."""
    return read_rule(document, "rule")


@lru_cache(maxsize=64)
def method(name: str) -> MethodDocument:
    """A baseline method that comes with the platform, read once. Raises CoflexError on an unknown id."""
    return load_method(name)


def service_of(state: State, product: Product) -> str:
    """What a product is bought for, as the document of allowed baselines names it."""
    own = state.find(ProductProcedure, product.id)
    return (own.procedure if own is not None else usual_procedure(product)).service.value


def terms_of(state: State, product: Product, day: date) -> Terms:
    """How what was ordered of a product on a local day is settled: by the terms in force, else as its catalogue entry
    says, on the baselines that are allowed for its service."""
    own = state.find(SettlementTerms, product.id)
    held = [one for one in own.terms if one.from_day <= day] if own is not None else []
    return held[-1] if held else _catalogue(product, service_of(state, product))


@lru_cache(maxsize=256)
def _catalogue(product: Product, service: str) -> Terms:
    rule = rule_of_catalogue(product)
    return Terms(date.min, rule.id, rule.model_dump_json(exclude_defaults=True), usual_methods(service, product.id))


def terms_as_sold(
    state: State, now: datetime, product: Product, after: Product | None = None, service: str = ""
) -> SettlementTerms | None:
    """The terms of a product once its catalogue entry or its service changes: what is sold already stays as it was
    sold, days after that go by the change. None where nothing of its settlement changes."""
    try:
        old = _catalogue(product, service_of(state, product))
    except Refused:  # nothing could be settled by it
        return None
    if state.find(Market, "market") is None:  # nothing could be sold
        return None
    new = _catalogue(after or product, service or service_of(state, product))
    if old == new:
        return None
    sold = [entry.day for entry in state.all(SessionEntry) if entry.outcome]
    begins = max([now.astimezone(zone_of(state)).date(), *sold]) + timedelta(days=1)
    own = state.find(SettlementTerms, product.id)
    kept = own.terms if own is not None else ()
    if not kept or kept[0].from_day > old.from_day:
        kept = (old, *kept)
    if [one for one in kept if one.from_day <= begins][-1].rule.startswith(CATALOGUE):
        kept = (*(one for one in kept if one.from_day != begins), _from(begins, new))
    return SettlementTerms(product.id, tuple(sorted(kept, key=lambda one: one.from_day)))


def _from(day: date, terms: Terms) -> Terms:
    """The catalogue's terms from a day on, as a rule of its own: a changed rule has another id."""
    name = f"{terms.rule}-{sha256(terms.document.encode()).hexdigest()[:8]}"
    rule = rule_in(terms.document).model_copy(update={"id": name})
    return replace(terms, from_day=day, rule=name, document=rule.model_dump_json(exclude_defaults=True))


def usual_methods(service: str, product: str) -> tuple[str, ...]:
    """The baseline methods of a product without terms that name any. Those whose level has to be agreed are left out:
    a unit would be paid for what it does anyway."""
    return tuple(one for one in allowed_methods(service, product) if one not in _AGREED) or (NOMINATED,)


def rule_of_catalogue(product: Product) -> Rule:
    """The rule that the catalogue's own terms make: capacity by its readiness, energy of a global product by requested
    and of a local one by metered response, with its tolerance and its penalty; at the award's price, whoever bought
    pays, and no fee. Raises Refused where they make none."""
    try:
        return _rule_of_catalogue(product)
    except ValidationError as fault:
        findings = [
            Finding(".".join(map(str, one["loc"])), "rule", f"{one['msg']}; correct it.") for one in fault.errors()
        ]
        raise Refused(f"The product '{product.id}'", findings) from None


def _rule_of_catalogue(product: Product) -> Rule:
    name = _UNKNOWN_NAME.sub("-", product.id.lower())
    if name != product.id:
        name += f"-{sha256(product.id.encode()).hexdigest()[:8]}"
    share = product.penalty_share
    by = By.REQUESTED if product.scope is Scope.GLOBAL else By.METERED
    held = product.kind is QuantityKind.ACTIVE_CAPACITY
    return Rule(
        id=f"{CATALOGUE}{name}",
        version=1,
        title=f"{product.id}, as the catalogue says",
        source=Source(document="catalogue", section=product.id),
        delivered=Delivered(by=By.AVAILABILITY if held else by, tolerance=product.tolerance),
        availability=Availability(by_readiness=((ZERO, ZERO), (ONE, ONE))) if held else None,
        pricing=PricingRule.PAY_AS_CLEAR,
        penalty=Penalty(kind=PenaltyKind.SHARE, share=share) if share else Penalty(kind=PenaltyKind.NONE),
        payers={need: Payer.BUYER for need in Need if need is not Need.SHARED},
    )


def methods_of(state: State, order: ActivationOrder, day: date) -> tuple[str, ...]:
    """Baseline methods for what an order asks of a unit on a day, the one to take first at the front."""
    entry = state.find(ProductEntry, order.product)
    return terms_of(state, entry.product, day).methods if entry is not None else (NOMINATED,)


# ---------------------------------------------------------------- what was ordered of a unit on a day


def called(state: State, unit: str, day: date) -> tuple[SetPointEntry, ...]:
    """The set points of a unit with anything to do on a local day, by id."""
    zone = zone_of(state)

    def keys(one: SetPointEntry) -> set[str]:
        return {f"{one.unit}|{one_day}" for one_day in _days(one, zone)}

    return index(state, SetPointEntry, "unit and day", keys).at(f"{unit}|{day}")


def event_days(state: State, unit: str) -> frozenset[date]:
    """The local days on which anything was ordered of a unit: none of them is a day like others."""
    zone = zone_of(state)
    told = index(state, SetPointEntry, "unit", lambda one: (one.unit,)).at(unit)
    return frozenset(day for one in told for day in _days(one, zone))


def _days(one: SetPointEntry, zone: ZoneInfo) -> set[date]:
    return {starts.astimezone(zone).date() for starts, _, _ in spans(one.profile)}


def quarters(points: Iterable[SetPointEntry], axis: Axis) -> tuple[datetime, ...]:
    """The quarter-hours of a day in which set points have a unit do anything, in order."""
    inside = (between(one.profile, axis.start, axis.end) for one in points)
    return tuple(sorted({quarter(starts) for one in inside for starts, _, _ in spans(one)}))


# ---------------------------------------------------------------- what the field has to bring


@dataclass(frozen=True, slots=True)
class BaselineAsked:
    """A baseline that is due. `methods`: ids of method documents; bring the first that has enough readings, or, where
    none has, the first one without values. `event`: the quarter-hours sold. `notice`: when the first order on them was
    known. `oldest`: the first local day whose readings may count. `nomination`: kW of each quarter-hour of the day as
    the ledger foresees it, injection positive, NaN where it does not; empty where it foresees nothing."""

    methods: tuple[str, ...]
    event: tuple[datetime, ...]
    notice: datetime
    oldest: date
    nomination: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be brought of a unit for a local day that is over. `points`: every number under which its devices
    ever sent, in order. `quarters`: starts of those whose quantity is not known, or known to be missing or estimated.
    `baseline`: None where it is there, or the ledger has it."""

    unit: str
    day: date
    axis: Axis
    points: tuple[int, ...]
    quarters: tuple[datetime, ...]
    baseline: BaselineAsked | None


def due(state: State, now: datetime, after: tuple[date, str] | None = None, limit: int = 1_000) -> tuple[Due, ...]:
    """Metered quantities and baselines that the field worker is to bring, by day and unit, of days that are over.

    `after`: day and unit of the last item that was seen, to go on behind it. What has no reading yet, or is estimated
    from a part of the quarter-hour, stays due for 45 days, so a worker goes through the list and begins anew; bringing
    what is there already changes nothing.
    """
    wanted = state.attached("wanted of the field", lambda: _Wanted.watching(state))
    found: list[Due] = []
    for day, unit in wanted.in_order():
        if len(found) >= limit or midnight(day + timedelta(days=1), wanted.zone) > now:
            break
        if after is not None and (day, unit) <= after:
            continue
        one = _due(state, unit, day, wanted.zone, now)
        if one is None:
            wanted.places.discard((day, unit))
        else:
            found.append(one)
    return tuple(found)


def owed(state: State, unit: str, day: date) -> Due | None:
    """All that a unit owes of a day of which something was brought, to be computed anew: after a correction of its
    readings. None where nothing was brought."""
    name, points = day_id(unit, day), called(state, unit, day)
    if not points or (state.find(MeteredDay, name) is None and state.find(BaselineDay, name) is None):
        return None
    axis = delivery_day(day, zone_of(state))
    event = quarters(points, axis)
    brought = state.find(BaselineDay, name) is not None
    asked = _baseline_asked(state, unit, day, axis, points, event, anew=True) if brought else None
    return Due(unit, day, axis, _points(state, unit), event, asked)


def based_on(state: State, unit: str, day: date) -> tuple[date, ...]:
    """The days of a unit, this one and later, whose quantities or baselines may rest on its readings of a day."""
    last = day + ASKED_AGAIN
    days = index(state, MeteredDay, "unit", lambda one: (one.unit,)).at(unit)
    bases = index(state, BaselineDay, "unit", lambda one: (one.unit,)).at(unit)
    return tuple(sorted({one.day for one in days if one.day == day} | {b.day for b in bases if day <= b.day <= last}))


def _due(state: State, unit: str, day: date, zone: ZoneInfo, now: datetime) -> Due | None:
    """What a unit lacks of a day; None where it lacks nothing that is still asked for."""
    points, axis = called(state, unit, day), delivery_day(day, zone)
    there = state.find(MeteredDay, day_id(unit, day))
    known = {one.start: one.quality for one in there.quantities} if there is not None else {}
    again = now < axis.end + ASKED_AGAIN
    event = quarters(points, axis)
    lacking = tuple(start for start in event if start not in known or (again and known[start] in _INCOMPLETE))
    asked = _baseline_asked(state, unit, day, axis, points, event) if points else None
    if not lacking and asked is None:
        return None
    return Due(unit, day, axis, _points(state, unit), lacking, asked)


def _points(state: State, unit: str) -> tuple[int, ...]:
    return tuple(sorted(one.point for one in index(state, Device, "unit", lambda one: (one.unit,)).at(unit)))


def _baseline_asked(
    state: State,
    unit: str,
    day: date,
    axis: Axis,
    points: tuple[SetPointEntry, ...],
    event: tuple[datetime, ...],
    anew: bool = False,
) -> BaselineAsked | None:
    """What is due of a baseline: one that all products of the day allow which do not have theirs by nomination, or,
    where they agree on none, the first one's. `anew`: also where one was brought."""
    by_order = [(point, state.get(ActivationOrder, point.order)) for point in points]
    first = min((order for _, order in by_order), key=lambda one: (one.ordered_at, one.id))
    needing: list[tuple[str, ...]] = []
    foreseen: tuple[float | None, ...] = ()
    for point, order in sorted(by_order, key=lambda one: (one[1].ordered_at, one[1].id)):
        methods = methods_of(state, order, day)
        here = nominated(state, unit, state.get(SessionEntry, order.session), axis)
        if methods[0] != NOMINATED or any(here[axis.position(start)] is None for start in quarters((point,), axis)):
            foreseen = foreseen or here
            needing.append(methods)
    if not needing:
        return None
    methods = tuple(one for one in needing[0] if all(one in others for others in needing)) or needing[0]
    brought = state.find(BaselineDay, day_id(unit, day))
    if brought is not None and brought.method in methods and not anew:
        return None
    oldest = day - timedelta(days=max(method(name).days.oldest for name in methods))
    nomination = tuple(nan if one is None else one for one in foreseen)
    known = any(one is not None for one in foreseen)
    return BaselineAsked(methods, event, first.ordered_at, oldest, nomination if known else ())


def nominated(state: State, unit: str, entry: SessionEntry, axis: Axis) -> tuple[float | None, ...]:
    """kW of a unit in each quarter-hour of an axis as the ledger's plan of a session foresees it, injection positive;
    None where it foresees nothing."""
    series = recent(state, f"nomination of {entry.id}", lambda: by_unit(state, entry, "nomination"))
    if series is None or unit not in series.names:
        return (None,) * len(axis)
    row, known = series.row(unit).tolist(), series.axis
    first, each = (axis.start - known.start) // axis.step, known.step // axis.step
    places = ((first + k) // each for k in range(len(axis)))
    return tuple(row[place] if 0 <= place < len(row) and isfinite(row[place]) else None for place in places)


@dataclass(eq=False)
class _Wanted:
    """Days and units of which something may be lacking: what was written of them since they were last found whole."""

    state: State
    zone: ZoneInfo
    places: set[tuple[date, str]] = field(default_factory=set)
    anew: bool = True

    @classmethod
    def watching(cls, state: State) -> _Wanted:
        made = cls(state, zone_of(state))
        state.watch(SetPointEntry, made.told)
        state.watch(MeteredDay, made.brought)
        state.watch(BaselineDay, made.brought)
        state.watch(SettlementTerms, made.other_terms)
        return made

    def in_order(self) -> list[tuple[date, str]]:
        if self.anew:
            self.anew = False
            for one in self.state.all(SetPointEntry):
                self.told(None, one)
        return sorted(self.places)

    def told(self, before: SetPointEntry | None, after: SetPointEntry | None) -> None:
        for one in (before, after):
            if one is not None:
                self.places |= {(day, one.unit) for day in _days(one, self.zone)}

    def brought(self, before: MeteredDay | BaselineDay | None, after: MeteredDay | BaselineDay | None) -> None:
        self.places |= {(one.day, one.unit) for one in (before, after) if one is not None}

    def other_terms(self, before: SettlementTerms | None, after: SettlementTerms | None) -> None:
        self.anew = True


# ---------------------------------------------------------------- capacity held ready


def capacity_of(state: State, entry: SessionEntry) -> Mapping[str, tuple[Award, ...]]:
    """What a session bought for good as active capacity, by the group or unit that holds it ready."""

    def make() -> dict[str, tuple[Award, ...]]:
        found: dict[str, list[Award]] = {}
        for awards in awards_of(state, entry).values():
            product = state.find(ProductEntry, awards[0].product)
            if product is not None and product.product.kind is QuantityKind.ACTIVE_CAPACITY:
                for one in awards:
                    found.setdefault(one.group or one.unit or one.offer, []).append(one)
        return {band: tuple(found[band]) for band in sorted(found)}

    # what a product is bought as never changes, so what is kept hangs on outcomes alone
    return recent(state, f"capacity of {entry.id}", make) if entry.outcome else {}


def sessions_around(state: State, first: date, last: date) -> tuple[SessionEntry, ...]:
    """Sessions that may have bought something for the local days from first to last, by delivery day and id."""
    found = index(state, SessionEntry, "delivery day", lambda one: (one.day.isoformat(),))
    days = (first + timedelta(days=k) for k in range(-1, (last - first).days + 2))
    return tuple(entry for day in days for entry in found.at(day.isoformat()))


def held_ready(state: State, day: date) -> dict[str, dict[datetime, Award]]:
    """Who holds capacity ready on a local day: group or unit -> start -> an award."""
    zone = zone_of(state)
    found: dict[str, dict[datetime, Award]] = {}
    for entry in sessions_around(state, day, day):
        for band, awards in capacity_of(state, entry).items():
            for one in awards:
                if one.start.astimezone(zone).date() == day:
                    found.setdefault(band, {})[one.start] = one
    return dict(sorted(found.items()))


def held_by(state: State, band: str, day: date) -> dict[datetime, tuple[str, ...]]:
    """The units with which a band holds its capacity ready on a local day, by quarter-hour: as the ledger has them,
    whatever became of the group since; of a sale without holdings those of the group as it is, or the unit itself."""
    group = state.find(GroupEntry, band)
    as_it_is = group.group.units if group is not None else (band,)
    found = recent(state, f"holders of {day}", lambda: _holders(state, day)).get(band, {})
    return {start: units or as_it_is for start, units in found.items()}


def _holders(state: State, day: date) -> dict[str, dict[datetime, tuple[str, ...]]]:
    """The units that the ledger holds for the capacity of a local day: band -> start -> units."""
    zone, found = zone_of(state), dict[str, dict[datetime, set[str]]]()
    for entry in sessions_around(state, day, day):
        for band, awards in capacity_of(state, entry).items():
            for one in awards:
                if one.start.astimezone(zone).date() == day:
                    held = held_for(state, entry.day, entry.session, one.offer)
                    units = {unit for unit, at in held.items() if one.start in at}
                    found.setdefault(band, {}).setdefault(one.start, set()).update(units)
    return {
        band: {start: tuple(sorted(units)) for start, units in sorted(of_band.items())}
        for band, of_band in found.items()
    }


@dataclass(frozen=True, slots=True)
class ReadyDue:
    """Readiness that is to be brought of a group or unit for a local day that is over: the share of each of these
    quarter-hours in which its capacity was ready. `units`: those that hold it ready then."""

    band: str
    day: date
    units: tuple[str, ...]
    quarters: tuple[datetime, ...]


def due_ready(
    state: State, now: datetime, after: tuple[date, str] | None = None, limit: int = 1_000
) -> tuple[ReadyDue, ...]:
    """Readiness that the field worker is to bring, by day and band, of days that are over; as `due` does. What is not
    whole stays due for a day, in which readings may still come. All items of a band come together."""
    wanted = state.attached("capacity of the field", lambda: _Capacity.watching(state))
    found: list[ReadyDue] = []
    for day in sorted(wanted.days):
        ends = midnight(day + timedelta(days=1), wanted.zone)
        if ends > now or len(found) >= limit:
            break
        lacking = False
        for band, held in held_ready(state, day).items():
            starts = _not_ready(state, band, day, held, again=now < ends + READY_AGAIN)
            lacking = lacking or bool(starts)
            if starts and len(found) < limit and (after is None or (day, band) > after):
                found += _ready_due(state, band, day, starts)
        if not lacking:
            wanted.days.discard(day)
    return tuple(found)


def ready_days(state: State, day: date) -> tuple[ReadyDay, ...]:
    """What was brought of a day's readiness."""
    return index(state, ReadyDay, "day", lambda one: (one.day.isoformat(),)).at(day.isoformat())


def ready_owed(state: State, unit: str, day: date) -> tuple[ReadyDue, ...]:
    """All readiness that was brought of a day and rests on a unit's readings, to be computed anew."""
    owed = (
        due
        for one in ready_days(state, day)
        for due in _ready_due(state, one.band, day, {each.start for each in one.shares})
    )
    return tuple(one for one in owed if unit in one.units)


def _not_ready(state: State, band: str, day: date, held: Mapping[datetime, Award], again: bool) -> set[datetime]:
    """Quarter-hours whose readiness is not known, or, `again`, not whole."""
    there = state.find(ReadyDay, day_id(band, day))
    known = {one.start for one in there.shares if one.share == 1 or not again} if there is not None else set()
    return set(held) - known


def _ready_due(state: State, band: str, day: date, starts: set[datetime]) -> list[ReadyDue]:
    """The items of a band, one for all quarter-hours that the same units hold."""
    found: dict[tuple[str, ...], list[datetime]] = {}
    for start, units in held_by(state, band, day).items():
        if start in starts:
            found.setdefault(units, []).append(start)
    return [ReadyDue(band, day, units, tuple(mine)) for units, mine in found.items()]


@dataclass(eq=False)
class _Capacity:
    """Local days for which sessions with a result may have bought capacity nobody knows the readiness of."""

    zone: ZoneInfo
    days: set[date] = field(default_factory=set)

    @classmethod
    def watching(cls, state: State) -> _Capacity:
        made = cls(zone_of(state))
        for entry in state.all(SessionEntry):
            made.written(None, entry)
        state.watch(SessionEntry, made.written)
        state.watch(ReadyDay, made.written)
        return made

    def written(self, before: SessionEntry | ReadyDay | None, after: SessionEntry | ReadyDay | None) -> None:
        for one in (before, after):
            if isinstance(one, ReadyDay) or (one is not None and one.outcome):
                self.days |= {one.day + timedelta(days=k) for k in (-1, 0, 1)}


def proof(one: BaselineDay) -> str:
    """The name under which a baseline that was brought is looked up."""
    return f"{one.method}@{one.method_version} {one.record}"
