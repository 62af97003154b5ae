"""Orders on what was bought: who can give what, and how a change of an order reaches its units (ACT-01, 04, 06).

Only units that the ledger holds for the offer are called, and units that their provider reserved as backups: nobody
else may buy either of them for that time, so nothing is sold and called, or called twice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar, cast

from coflex.activation.profile import Profile, between, constant, kw_at, kwh, minus, plus, profile
from coflex.activation.split import Able, split
from coflex.domain.activation import Acknowledgement, Hop, Piece, Verdict
from coflex.domain.clearing import Award, Holding, Status
from coflex.domain.errors import Conflict, NotFound
from coflex.domain.light import DynamicLight
from coflex.domain.quantity import Direction
from coflex.domain.time import QUARTER
from coflex.domain.unit import Unit
from coflex.register.activations import (
    ActivationOrder,
    Backup,
    OrderKind,
    OrderState,
    SetPointEntry,
    SetPointState,
)
from coflex.register.consents import Availability, Consent, ConsentScope, covered
from coflex.register.market import SessionEntry
from coflex.register.outcomes import SessionOutcome
from coflex.register.products import ProductEntry
from coflex.register.records import KIND_OF, Record
from coflex.register.resources import PointEntry, UnitEntry, UnitStatus
from coflex.service.index import index
from coflex.service.ledger import decided, holdings, planned
from coflex.service.limits import qualified_kw
from coflex.service.machine import DONE, Context, Outcome, encode
from coflex.service.ports import Note
from coflex.service.rules import perimeter_of_bus
from coflex.service.state import State
from coflex.service.withheld import backups_of

R = TypeVar("R", bound=Record)
T = TypeVar("T")
# Sessions and days whose outcomes are kept unpacked.
MOST_RECENT = 16
Span = tuple[datetime, datetime]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)


# ---------------------------------------------------------------- one command's writes


@dataclass(eq=False)
class Draft:
    """What a command will write, readable before it is written."""

    state: State
    context: Context
    notes: list[Note] = field(default_factory=list)
    _records: dict[tuple[str, str], tuple[type[Record], str, Record]] = field(default_factory=dict)
    _made: int = 0

    def put(self, *records: Any) -> None:
        for one in records:
            self._records[KIND_OF[type(one)], one.id] = (type(one), one.id, one)

    def find(self, kind: type[R], id: str) -> R | None:
        drafted = self._records.get((KIND_OF[kind], id))
        return cast("R", drafted[2]) if drafted is not None else self.state.find(kind, id)

    def set_points(self, order: str) -> dict[str, SetPointEntry]:
        """The set points of an order by unit, as this command leaves them."""
        found = {one.unit: one for one in set_points(self.state, order)}
        for _, _, one in self._records.values():
            if isinstance(one, SetPointEntry) and one.order == order:
                found[one.unit] = one
        return found

    def new_order_id(self) -> str:
        """An id that no other record has, however many orders a command makes."""
        self._made += 1
        return f"{self.context.new_id('activation')}.{self._made}"

    def tell(self, kind: str, subject: str, audience: Iterable[str], **body: Any) -> None:
        readers = tuple(sorted({one for one in audience if one}))
        if readers:
            self.notes.append(Note(kind, subject, readers, encode(body)))

    def outcome(self, reply: Any, status: int = DONE) -> Outcome:
        records = cast("Any", tuple(self._records.values()))
        return Outcome(reply, records, tuple(self.notes), status)


# ---------------------------------------------------------------- what is there


def quarter(instant: datetime) -> datetime:
    """The start of the quarter-hour in which an instant lies."""
    return instant - (instant - _EPOCH) % QUARTER


def spans(one: Profile) -> tuple[tuple[datetime, datetime, int], ...]:
    """A profile cut at every quarter-hour: (starts, ends, kW)."""
    found = []
    for piece in one:
        starts = piece.starts
        while starts < piece.ends:
            ends = min(piece.ends, quarter(starts) + QUARTER)
            found.append((starts, ends, piece.kw))
            starts = ends
    return tuple(found)


def set_points(state: State, order: str) -> tuple[SetPointEntry, ...]:
    """The set points of an order, by unit."""
    return index(state, SetPointEntry, "order", lambda one: (one.order,)).at(order)


def set_points_of(state: State, unit: str) -> tuple[SetPointEntry, ...]:
    """The set points of a unit in all orders."""
    return index(state, SetPointEntry, "unit", lambda one: (one.unit,)).at(unit)


def orders_on(state: State, session: str, offer: str, direction: Direction) -> tuple[ActivationOrder, ...]:
    """Orders on an offer of a session in a direction that were not withdrawn."""
    key = f"{session}|{direction.value}|{offer}"
    found = index(state, ActivationOrder, "offer", lambda one: (f"{one.session}|{one.direction.value}|{one.offer}",))
    return tuple(one for one in found.at(key) if one.state is not OrderState.WITHDRAWN)


def awards_of(state: State, entry: SessionEntry) -> Mapping[tuple[str, Direction], tuple[Award, ...]]:
    """What a session bought for good, by offer and direction."""

    def make() -> dict[tuple[str, Direction], tuple[Award, ...]]:
        found: dict[tuple[str, Direction], list[Award]] = {}
        for award in decided(state, entry.id, Award):
            if award.status is Status.DEFINITIVE:
                found.setdefault((award.offer, award.direction), []).append(award)
        return {key: tuple(found[key]) for key in sorted(found)}

    return recent(state, f"awards of {entry.id}", make)


def awarded(awards: Sequence[Award], step: timedelta) -> Profile:
    """The power of awards of one offer, over all of its price steps."""
    total: dict[datetime, int] = {}
    for award in awards:
        total[award.start] = total.get(award.start, 0) + award.quantity_kw
    return profile(Piece(start, start + step, kw) for start, kw in total.items())


def held_for(state: State, day: date, session: str, offer: str) -> Mapping[str, Mapping[datetime, Holding]]:
    """The ledger's holdings for an offer: unit -> start -> holding. `session`: as designs name it, "local-1"."""

    def make() -> dict[tuple[str, str], dict[str, dict[datetime, Holding]]]:
        found: dict[tuple[str, str], dict[str, dict[datetime, Holding]]] = {}
        for one in holdings(state, day):
            if one.status is Status.DEFINITIVE:
                found.setdefault((one.session, one.offer), {}).setdefault(one.unit, {})[one.start] = one
        return found

    return recent(state, f"holdings by offer {day}", make).get((session, offer), {})


def recent(state: State, name: str, make: Callable[[], T]) -> T:
    """Something computed from outcomes, kept while none is written: of the few sessions and days that are looked at."""
    kept: OrderedDict[str, tuple[tuple[int, ...], Any]] = state.attached("recent outcomes", OrderedDict)
    stamp = state.stamp((SessionOutcome,))
    if name not in kept or kept[name][0] != stamp:
        kept[name] = stamp, make()
    kept.move_to_end(name)
    while len(kept) > MOST_RECENT:
        kept.popitem(last=False)
    return cast("T", kept[name][1])


def ceiling(state: State, order: ActivationOrder) -> Profile:
    """The most that an order may be raised to: what was bought, less what is lost and what other orders take of it."""
    free = minus(order.awarded, order.lost)
    if order.kind is OrderKind.SUCCESSION:
        return free
    for other in orders_on(state, order.session, order.offer, order.direction):
        if other.id != order.id and other.kind is not OrderKind.SUCCESSION:
            free = minus(free, plus(other.profile, other.lost))
    return free


def perimeter_of(state: State, unit: str) -> str:
    """The perimeter in which a unit is connected; empty for none."""
    entry = state.find(UnitEntry, unit)
    point = state.find(PointEntry, entry.unit.connection_point) if entry is not None else None
    return perimeter_of_bus(state).get(point.point.bus, "") if point is not None else ""


def operators_of_units(state: State, units: Iterable[str]) -> tuple[str, ...]:
    """System operators that answer for any of the units, sorted."""
    found: set[str] = set()
    for name in units:
        entry = state.find(UnitEntry, name)
        point = state.find(PointEntry, entry.unit.connection_point) if entry is not None else None
        found |= set(point.operators) if point is not None else set()
    return tuple(sorted(found))


def grace(state: State, order: ActivationOrder) -> timedelta:
    """After its start an order may take this long until it is there in full: the product's full activation time."""
    product = state.find(ProductEntry, order.product)
    return timedelta(seconds=product.product.full_activation_time_s) if product is not None else QUARTER


# ---------------------------------------------------------------- who can give what


def able(state: State, order: ActivationOrder, cells: Sequence[Span], now: datetime, backups: bool) -> tuple[Able, ...]:
    """What each unit can give for an order in each cell, beside what other orders have of it. `backups`: also units
    that the provider reserved; without, of these only what already steps in, so that no light is passed unasked."""
    entry = state.get(SessionEntry, order.session)
    held = held_for(state, entry.day, entry.session, order.offer)
    names = set(held)
    if cells:
        reserved = reserved_by(state, order.provider, cells[0][0], cells[-1][1])
        names |= reserved if backups else reserved & {one.unit for one in set_points(state, order.id)}
    return tuple(
        _able(state, order, name, held.get(name, {}), cells, now, backups)
        for name in sorted(names)
        if state.find(UnitEntry, name) is not None
    )


def reserved_by(state: State, provider: str, starts: datetime, ends: datetime) -> set[str]:
    """Units that a provider reserved as backups for some of a time."""
    mine = index(state, Backup, "provider", lambda one: (one.provider,)).at(provider)
    return {one.unit for one in mine if one.touches(starts, ends)}


def in_use(state: State, backup: Backup, now: datetime) -> bool:
    """Whether an order is laid on a backup from now on."""
    starts = max(backup.starts, now)
    return any(between(one.profile, starts, backup.ends) for one in set_points_of(state, backup.unit))


def _able(
    state: State,
    order: ActivationOrder,
    name: str,
    held: Mapping[datetime, Holding],
    cells: Sequence[Span],
    now: datetime,
    backups: bool,
) -> Able:
    unit = state.get(UnitEntry, name).unit
    others = [one for one in set_points_of(state, name) if one.order != order.id]
    mine = state.find(SetPointEntry, f"{order.id}.{name}")
    reserved = [one for one in backups_of(state, name) if one.provider == order.provider]
    power = []
    for starts, ends in cells:
        bought = quarter(starts) in held
        ours = bought or any(one.holds(starts, ends) for one in reserved)
        most = _most(state, order, unit, starts, ends, now) if ours else 0
        if not bought and not backups:
            most = min(most, kw_at(mine.profile, starts) if mine is not None else 0)
        power.append(max(0, most - sum(_called(one, order.direction, most, starts, ends) for one in others)))
    # the clearing may have bought less of a unit than its least: that it was sold for, it gives
    least = min([unit.min_quantity_kw, *(one.quantity_kw for one in held.values())])
    runs = mine is not None and any(piece.starts <= now < piece.ends for piece in mine.profile)
    reach = now + timedelta(seconds=unit.activation_period_s) - grace(state, order)
    late = tuple(not runs and starts < reach for starts, _ in cells)
    return Able(name, tuple(power), _energy_left(unit, order, mine, others, now), least, late)


def _energy_left(
    unit: Unit, order: ActivationOrder, mine: SetPointEntry | None, others: Iterable[SetPointEntry], now: datetime
) -> float | None:
    """What its energy of the day leaves for an order from now on; None where there is no limit."""
    energy = unit.energy_up_kwh if order.direction is Direction.UP else unit.energy_down_kwh
    if energy is None:
        return None
    spent = [one.profile for one in others if one.direction is order.direction and one.session == order.session]
    done = between(mine.profile, None, now) if mine is not None else ()
    return max(0.0, energy - sum(kwh(one) for one in (*spent, done)))


def _called(one: SetPointEntry, direction: Direction, most: int, starts: datetime, ends: datetime) -> int:
    """What another order has of a unit in a time; all of it where that order goes the other way."""
    power = max((piece.kw for piece in between(one.profile, starts, ends)), default=0)
    return most if power and one.direction is not direction else power


def _most(state: State, order: ActivationOrder, unit: Unit, starts: datetime, ends: datetime, now: datetime) -> int:
    """What qualification, consent, owner, and the limits that operators and failures set, leave of a unit."""
    entry = state.get(UnitEntry, unit.id)
    consents = state.grouped(Consent, "unit", lambda one: one.unit).get(unit.id, ())
    allowed = covered(consents, unit.owner, unit.id, unit.provider, ConsentScope.OFFER, starts, ends)
    if entry.status is not UnitStatus.ACTIVE or not allowed:
        return 0
    most = qualified_kw(state, now).get((unit.id, order.direction), 0)
    owner = state.find(Availability, unit.id)
    own = owner.limit_kw(order.direction, starts, ends) if owner is not None else None
    caps = [most if own is None else own, *_caps(state, order, unit.id, starts, ends)]
    return max(0, min(most, *caps))


def _caps(state: State, order: ActivationOrder, unit: str, starts: datetime, ends: datetime) -> Iterator[int]:
    ids = {one.order for one in set_points_of(state, unit)} - {order.id}
    concerned = [order, *(found for id in sorted(ids) if (found := state.find(ActivationOrder, id)) is not None)]
    for one in concerned:
        if one.direction is not order.direction:
            continue
        for notice in one.notices:
            if notice.unit == unit and notice.starts < ends and starts < notice.ends:
                yield notice.to_kw
        for failure in one.failures:
            if failure.unit == unit and failure.starts < ends and starts < failure.ends:
                yield failure.remaining_kw


def room(state: State, order: ActivationOrder, cells: Sequence[Span]) -> dict[tuple[str, int], int]:
    """What the lights of the order's session still let through, by perimeter and cell: their capability less what the
    ledger holds there for the session and what backups were called for. No entry: no light, no limit."""
    entry = state.get(SessionEntry, order.session)
    lights = {
        (light.perimeter, light.start): light.capability_kw
        for light in planned(state, entry.id, DynamicLight)
        if light.direction is order.direction
    }
    if not lights:
        return {}
    ledger = {(one.unit, one.start): one for one in holdings(state, entry.day)}
    for (unit, start), holding in ledger.items():
        place = perimeter_of(state, unit), start
        if holding.session == entry.session and holding.direction is order.direction and place in lights:
            lights[place] -= holding.quantity_kw
    found = {}
    first, last = (cells[0][0], cells[-1][1]) if cells else (_EPOCH, _EPOCH)
    stand_by = sorted({one.unit for one in state.all(Backup) if one.touches(first, last)})
    beyond = [one for name in stand_by for one in set_points_of(state, name) if one.direction is order.direction]
    for t, (starts, ends) in enumerate(cells):
        start = quarter(starts)
        for perimeter in {place for place, at in lights if at == start}:
            extra = sum(
                max((piece.kw for piece in between(one.profile, starts, ends)), default=0)
                for one in beyond
                if (one.unit, start) not in ledger and perimeter_of(state, one.unit) == perimeter
            )
            found[perimeter, t] = max(0, lights[perimeter, start] - extra)
    return found


# ---------------------------------------------------------------- from an order to its units


def resplit(draft: Draft, order: ActivationOrder, own: Mapping[str, Profile] | None = None) -> ActivationOrder:
    """Lay what is still to come of an order on units: by the platform's rule, or as given and checked. What no unit can
    give is `missing`. Returns the order; its set points are in the draft."""
    now = draft.context.now
    coming = between(order.profile, now, None)
    missing: Profile = ()
    if own is None:
        cells = spans(coming)
        places = [(starts, ends) for starts, ends, _ in cells]
        can = able(draft.state, order, places, now, backups=False)
        found = split([kw for _, _, kw in cells], [(ends - starts) / _HOUR for starts, ends in places], can)
        own = {unit: _profile(places, found.power[u]) for u, unit in enumerate(found.units)}
        missing = _profile(places, found.short)
    tell_units(draft, order, own)
    return replace(order, missing=missing)


def _profile(cells: Sequence[Span], power: Iterable[int]) -> Profile:
    return profile(Piece(starts, ends, int(kw)) for (starts, ends), kw in zip(cells, power, strict=True))


def tell_units(draft: Draft, order: ActivationOrder, coming: Mapping[str, Profile]) -> None:
    """Give each unit of an order what it is to do from now on; a unit that is not named stops."""
    now = draft.context.now
    known = draft.set_points(order.id)
    changed = []
    for name in sorted({*known, *coming}):
        before = known.get(name)
        wanted = between(coming.get(name, ()), now, None)
        if wanted == (between(before.profile, now, None) if before is not None else ()):
            continue
        past = between(before.profile, None, now) if before is not None else ()
        after = _set_point(draft, order, name, before, profile((*past, *wanted)))
        less = minus(between(before.profile, now, None), wanted) if before is not None else ()
        draft.put(after, *_told_with(draft, after, less))
        changed.append(after)
    if changed:
        audience = {party for one in changed for party in (one.owner, one.provider, *one.operators)}
        draft.tell("set_points.changed", order.id, audience, version=order.version)


def _set_point(
    draft: Draft, order: ActivationOrder, name: str, before: SetPointEntry | None, whole: Profile
) -> SetPointEntry:
    """The next version of a unit's share; what earlier versions were acknowledged with stays in their history."""
    if before is not None:
        kept = draft.state.find(SetPointEntry, before.id)
        return renewed(before, kept.version + 1 if kept is not None else 1, draft.context.now, whole)
    unit = draft.state.get(UnitEntry, name).unit
    operators = operators_of_units(draft.state, (name,))
    return SetPointEntry(
        f"{order.id}.{name}", order.id, order.session, name, unit.owner, order.provider, order.buyer, operators,
        order.direction, whole, 1, draft.context.now,
    )  # fmt: skip


def _told_with(draft: Draft, one: SetPointEntry, less: Profile) -> Iterator[SetPointEntry]:
    """Set points of other orders on a unit, to be told anew where it gives less for this one: what they were told as
    the power of the unit may hold that, too."""
    for other in set_points_of(draft.state, one.unit) if less else ():
        there = draft.find(SetPointEntry, other.id) or other
        if other.order != one.order and any(between(there.profile, piece.starts, piece.ends) for piece in less):
            yield renewed(there, other.version + 1, draft.context.now, there.profile)


def renewed(before: SetPointEntry, version: int, now: datetime, whole: Profile) -> SetPointEntry:
    """A version of a set point that is still to be sent, and that nobody has answered."""
    return replace(
        before, profile=whole, version=version, since=now, state=SetPointState.WAITING, sequences=(), sent_at=None,
        acknowledgements=(),
    )  # fmt: skip


def shares(draft: Draft, order: ActivationOrder) -> dict[str, Profile]:
    """What each unit of an order does from now on, with what the draft changes."""
    now = draft.context.now
    return {unit: between(one.profile, now, None) for unit, one in draft.set_points(order.id).items()}


def taken_off(draft: Draft, order: ActivationOrder, unit: str, starts: datetime, ends: datetime, to_kw: int) -> Profile:
    """Lower a unit's set point, in the draft, and say by what. Raises NotFound, Conflict where it gives no more."""
    told = draft.find(SetPointEntry, f"{order.id}.{unit}")
    if told is None:
        raise NotFound(f"The unit '{unit}' has no part in the order '{order.id}'.", "Name one of its units.")
    taken = part_of(told.profile, starts, ends, to_kw)
    if not taken:
        raise Conflict(f"The unit '{unit}' gives no more than {to_kw} kW in that time.", "Nothing is to be done.")
    now = shares(draft, order)
    tell_units(draft, order, now | {unit: minus(now[unit], taken)})
    return taken


def again(order: ActivationOrder, context: Context) -> ActivationOrder:
    """The order as it goes the whole way anew: the market has it, the other hops have not."""
    mark = Acknowledgement(Hop.MARKET, "market", Verdict.TAKEN, context.now)
    return replace(order, version=order.version + 1, acknowledgements=(mark,))


def concerned(order: ActivationOrder) -> tuple[str, ...]:
    """Buyer, provider and operators of an order."""
    return (order.buyer, order.provider, *order.operators)


def part_of(one: Profile, starts: datetime, ends: datetime, most_kw: int) -> Profile:
    """What a profile gives above `most_kw` in [starts, ends)."""
    return minus(between(one, starts, ends), constant(most_kw, starts, ends))
