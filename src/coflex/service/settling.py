"""What settlement needs beside the orders: periods, terms of products, what the field has to bring (SET-01, SET-02).

Metered quantities and baselines are computed outside of the machine, where the tables of measurements are. The protocol
is that of set points the other way round: `due` says what is missing, the field worker computes it and hands it in by
the verb `metered.bring`, and what was brought is due no more. Whatever is brought twice changes nothing, so a worker
that was stopped begins again with `due`. A correction of readings is brought in the same way, unasked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from math import isfinite, nan
from zoneinfo import ZoneInfo

from coflex.activation.profile import between
from coflex.domain.errors import Finding, Refused
from coflex.domain.product import PricingRule, Product
from coflex.domain.reading import Quality
from coflex.domain.time import Axis, delivery_day, midnight
from coflex.domain.unit import Scope
from coflex.metering.baselines.document import allowed_methods, load_method
from coflex.qualification.requirements import usual_procedure
from coflex.register.activations import ActivationOrder, SetPointEntry
from coflex.register.devices import Device
from coflex.register.market import Market, SessionEntry
from coflex.register.prequalification import ProductProcedure
from coflex.register.products import ProductEntry
from coflex.register.settlement import BaselineDay, MeteredDay, SettlementTerms, Terms, day_id
from coflex.service.index import index
from coflex.service.ledger import by_unit
from coflex.service.orders import quarter, recent, spans
from coflex.service.state import State
from coflex.settlement.document import By, Delivered, Need, Payer, Penalty, PenaltyKind, Rule, Source
from coflex.settlement.reading import read_rule

NOMINATED = "nominated"
# So long after its day a quarter-hour without a reading is asked for again.
ASKED_AGAIN = timedelta(days=45)
_PERIOD = re.compile(r"(\d{4})-(\d{2})(?:-(\d{2}))?").fullmatch
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
    found = _PERIOD(name)
    try:
        if found is None:
            raise ValueError(name)
        year, month, day = (int(one) if one else 1 for one in found.groups())
        first = date(year, month, day)
        last = first if found[3] else (first.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
        zone = zone_of(state)
        return Period(name, first, last, midnight(first, zone), midnight(last + timedelta(days=1), zone))
    except (ValueError, OverflowError):
        message = "A period is a month or a day; write it as 2026-07 or 2026-07-05."
        raise Refused("The period", [Finding("period", "period", message)]) from None


# ---------------------------------------------------------------- terms of a product


@lru_cache(maxsize=256)
def rule_in(document: str) -> Rule:
    """The rule of a document, read once. Raises Refused with every fault."""
    return read_rule(document, "rule")


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
    return Terms(date.min, rule.id, rule.model_dump_json(exclude_defaults=True), allowed_methods(service, product.id))


def rule_of_catalogue(product: Product) -> Rule:
    """The rule that the catalogue's own terms make: a global product by requested response, a local one by metered
    response, with its tolerance and its penalty; at the award's price, whoever bought pays, and no fee."""
    name = _UNKNOWN_NAME.sub("-", product.id.lower())
    if name != product.id:
        name += f"-{sha256(product.id.encode()).hexdigest()[:8]}"
    share = product.penalty_share
    return Rule(
        id=f"catalogue-{name}",
        version=1,
        title=f"{product.id}, as the catalogue says",
        source=Source(document="catalogue", section=product.id),
        delivered=Delivered(
            by=By.REQUESTED if product.scope is Scope.GLOBAL else By.METERED, tolerance=product.tolerance
        ),
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
    ever sent, in order. `quarters`: starts of those whose quantity is not known, or known to be missing. `baseline`:
    None where it is there, or the ledger has it."""

    unit: str
    day: date
    axis: Axis
    points: tuple[int, ...]
    quarters: tuple[datetime, ...]
    baseline: BaselineAsked | None


def due(state: State, now: datetime, after: tuple[date, str] | None = None, limit: int = 1_000) -> tuple[Due, ...]:
    """Metered quantities and baselines that the field worker is to bring, by day and unit, of days that are over.

    `after`: day and unit of the last item that was seen, to go on behind it. What has no reading yet stays due for 45
    days, so a worker goes through the list and begins anew; bringing what is there already changes nothing.
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


def _due(state: State, unit: str, day: date, zone: ZoneInfo, now: datetime) -> Due | None:
    """What a unit lacks of a day; None where it lacks nothing that is still asked for."""
    points, axis = called(state, unit, day), delivery_day(day, zone)
    there = state.find(MeteredDay, day_id(unit, day))
    known = {one.start: one.quality for one in there.quantities} if there is not None else {}
    again = now < axis.end + ASKED_AGAIN
    event = quarters(points, axis)
    lacking = tuple(start for start in event if start not in known or (again and known[start] is Quality.MISSING))
    asked = _baseline_asked(state, unit, day, axis, points, event) if points else None
    if not lacking and asked is None:
        return None
    numbers = tuple(sorted(one.point for one in index(state, Device, "unit", lambda one: (one.unit,)).at(unit)))
    return Due(unit, day, axis, numbers, lacking, asked)


def _baseline_asked(
    state: State, unit: str, day: date, axis: Axis, points: tuple[SetPointEntry, ...], event: tuple[datetime, ...]
) -> BaselineAsked | None:
    orders = [state.get(ActivationOrder, one.order) for one in points]
    first = min(orders, key=lambda one: (one.ordered_at, one.id))
    methods = methods_of(state, first, day)
    brought = state.find(BaselineDay, day_id(unit, day))
    if brought is not None and brought.method in methods:
        return None
    foreseen = nominated(state, unit, state.get(SessionEntry, first.session), axis)
    if methods[0] == NOMINATED and all(foreseen[axis.position(start)] is not None for start in event):
        return None
    oldest = day - timedelta(days=max(load_method(name).days.oldest for name in methods))
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


def proof(one: BaselineDay) -> str:
    """The name under which a baseline that was brought is looked up."""
    return f"{one.method}@{one.method_version} {one.record}"
