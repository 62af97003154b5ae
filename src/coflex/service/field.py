"""What the field door reads: set points to be sent, the points that may send, and who may see what (ACT-01, CERT-02).

The door signs and sends what `outbox` gives, in its order, and says so by the verb `set_point.sent`; acknowledgements
come back by `set_point.heard`. What was not said to have left is given again after a restart: a set point may be sent
twice, and a device takes the newest version of an order.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise

import msgspec

from coflex.activation.profile import between, bounds, kw_at
from coflex.activation.regulation import Participant, shares
from coflex.domain.activation import Hop
from coflex.domain.clearing import Award
from coflex.domain.time import QUARTER
from coflex.evidence.message import canonical
from coflex.market.engine import SessionState
from coflex.register.activations import Regulation, RegulationState, SetPointEntry, SetPointState
from coflex.register.consents import Consent, ConsentScope
from coflex.register.devices import DataGrant, DataScope, Device, DeviceKey
from coflex.register.market import SessionEntry
from coflex.register.outcomes import SessionOutcome
from coflex.register.resources import UnitEntry
from coflex.service.index import index
from coflex.service.ledger import by_unit, decided
from coflex.service.orders import quarter, renewed, set_points_of, spans
from coflex.service.state import State

# Flags of a set point message.
REPLACES, CONTINUOUS = 1, 2
# Messages of one set point.
MOST_MESSAGES = 2_000
Cell = tuple[datetime, datetime, int]


@dataclass(frozen=True, slots=True)
class Told:
    """One message to be sent: hold `change_w` beside the baseline in [starts, ends), injection positive, and `beside_w`
    that other orders have of the unit then, as a device holds what it was told last; `power_w`: all of it with the
    foreseen baseline, None where nothing is foreseen. `flags`: REPLACES what was said of the order before."""

    starts: datetime
    ends: datetime
    change_w: int
    power_w: int | None
    flags: int
    beside_w: int = 0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A set point to be sent: `number` of the entry from which on it can be, its record's id and version, the point to
    which it goes, 16 bytes that name the order, and its messages in the order of time."""

    number: int
    id: str
    version: int
    point: int
    order: bytes
    messages: tuple[Told, ...]


def outbox(state: State, now: datetime, after: int = 0, limit: int = 1_000) -> tuple[Outgoing, ...]:
    """Set points that are to be sent since an entry of the journal, oldest first; those of units without a device wait
    until they have one. What lies in the past is not told any more."""
    waiting = index(state, SetPointEntry, "to be sent", _to_be_sent).at(_day(now))
    found: list[tuple[int, SetPointEntry, int]] = []
    for one in waiting:
        device = device_of(state, one.unit)
        if device is not None:
            number = max(state.number(SetPointEntry, one.id), state.number(Device, device.id))
            if number > after:
                found.append((number, one, device.point))
    found.sort(key=lambda item: (item[0], item[1].id))
    return tuple(
        Outgoing(number, one.id, one.version, point, order_bytes(state.tenant, one.order), _messages(state, one, now))
        for number, one, point in found[:limit]
    )


def _to_be_sent(one: SetPointEntry) -> tuple[str, ...]:
    """The days on which it is not over yet: what never left is not looked at for ever."""
    return _days(one) if one.state is SetPointState.WAITING else ()


def _days(one: SetPointEntry) -> tuple[str, ...]:
    return _span(one.since, one.holds_until)


def _span(start: datetime, end: datetime) -> tuple[str, ...]:
    """The days from one instant to another, as index keys: what is over is not looked at again."""
    first = start.date()
    return tuple(_day(start + timedelta(days=n)) for n in range((end.date() - first).days + 1))


def _day(at: datetime) -> str:
    return str(at.date())


def order_bytes(tenant: str, order: str) -> bytes:
    """The 16 bytes that name an order on the wire: the first of SHA-256 of tenant, a zero byte, and its id."""
    return sha256(f"{tenant}\0{order}".encode()).digest()[:16]


def _messages(state: State, one: SetPointEntry, now: datetime) -> tuple[Told, ...]:
    """The pieces to come, cut where the foreseen baseline or what other orders have of the unit changes. What was said
    before of the order is replaced from now on: by the first piece where it begins at once, else by a stop without
    length, after which nothing holds."""
    beside = (other for other in set_points_of(state, one.unit) if other.order != one.order)
    others = [other for other in beside if between(other.profile, now, None)]
    found: list[Told] = []
    for starts, ends, kw in _cut(spans(between(one.profile, now, None)), others):
        baseline = foreseen_w(state, one.session, one.unit, starts)
        change, more = one.direction.sign * kw * 1000, sum(_change_w(other, starts) for other in others)
        power = None if baseline is None else baseline + change + more
        found.append(Told(starts, ends, change, power, 0, more))
    if one.version > 1:
        if found and found[0].starts <= now:
            found[0] = replace(found[0], flags=REPLACES)
        else:
            found.insert(0, Told(now, now, 0, 0, REPLACES))
    return tuple(found)


def _cut(cells: Sequence[Cell], others: Sequence[SetPointEntry]) -> Sequence[Cell]:
    """Cells cut where others begin, change or end; as they are where that makes more than one set point can say."""
    edges = bounds([other.profile for other in others])
    found = []
    for starts, ends, kw in cells:
        inside = edges[bisect_right(edges, starts) : bisect_left(edges, ends)]
        found += [(first, last, kw) for first, last in pairwise((starts, *inside, ends))]
    return found if len(found) < MOST_MESSAGES else cells


def _change_w(one: SetPointEntry, at: datetime) -> int:
    return one.direction.sign * kw_at(one.profile, at) * 1000


def told_w(state: State, point: int, at: datetime) -> int | None:
    """The change that the unit of a point had been told to give at an instant, W; None where it had been told none."""
    told = [one for one in set_points_of(state, unit_at(state, point) or "") if one.told_until is not None]
    changes = [change for one in told if (change := _change_w(one, at))]
    return sum(changes) if changes else None


def foreseen_w(state: State, session: str, unit: str, at: datetime) -> int | None:
    """The power of a unit at an instant as its session foresaw it, W; None where nothing is foreseen."""
    entry = state.find(SessionEntry, session)
    foreseen = by_unit(state, entry, "nomination") if entry is not None else None
    start = quarter(at)
    if foreseen is None or unit not in foreseen.names or not foreseen.axis.covers(start):
        return None
    return round(1000 * float(foreseen.row(unit)[foreseen.axis.position(start)]))


def set_point_of(state: State, sequence: int) -> str | None:
    """The set point whose standing version a message of the platform carried."""
    found = index(state, SetPointEntry, "sequence", lambda one: tuple(map(str, one.sequences))).at(str(sequence))
    return found[0].id if found else None


def unacknowledged(state: State, point: int, now: datetime) -> tuple[int, ...]:
    """Sequences of the messages of set points that were sent to a point, whose light node has not answered, ascending:
    what a device is told again when it asks. Until what it was told before is over, for it may hold that still."""
    device = _device_at(state, point)
    if device is None or device_of(state, device.unit) != device:
        return ()
    told = index(state, SetPointEntry, "not answered", _not_answered).at(f"{device.unit} {_day(now)}")
    return tuple(sorted(sequence for one in told if one.holds_until > now for sequence in one.sequences))


def not_answered(state: State, now: datetime) -> tuple[int, ...]:
    """The points whose light nodes have not answered something that was sent to them and is not over, ascending."""
    told = index(state, SetPointEntry, "not answered", _not_answered).at(_day(now))
    devices = (device_of(state, one.unit) for one in told if one.holds_until > now)
    return tuple(sorted({device.point for device in devices if device is not None}))


def _not_answered(one: SetPointEntry) -> tuple[str, ...]:
    if one.state is not SetPointState.SENT or any(mark.hop is Hop.LIGHT_NODE for mark in one.acknowledgements):
        return ()
    return tuple(key for day in _days(one) for key in (day, f"{one.unit} {day}"))


def led_anew(state: State, unit: str, now: datetime) -> tuple[SetPointEntry, ...]:
    """What a unit was told and is not over, as it is to be told to the device that it has from now on."""
    told = index(state, SetPointEntry, "unit", lambda one: (one.unit,)).at(unit)
    sent = (one for one in told if one.state is SetPointState.SENT and one.holds_until > now)
    return tuple(renewed(one, one.version + 1, now, one.profile) for one in sent)


def ended_with(state: State, unit: str, now: datetime, reason: str) -> tuple[Device, ...]:
    """The devices of a unit that are trusted no more, since it ends or goes to another owner now."""
    return tuple(
        replace(one, keys=(*one.keys[:-1], replace(one.keys[-1], ends=now)), revoked=now, reason=reason)
        for one in _devices(state, unit)
        if one.revoked is None
    )


def signed_for(state: State, unit: str, start: datetime, end: datetime) -> tuple[int, ...]:
    """Sequences of the set points of a unit that touch [start, end), ascending: of the versions that stand, and that
    were told to the owner that it has."""
    told, owner = index(state, SetPointEntry, "unit", lambda one: (one.unit,)).at(unit), state.get(UnitEntry, unit)
    mine = (one for one in told if one.owner == owner.unit.owner and between(one.profile, start, end))
    return tuple(sorted(sequence for one in mine for sequence in one.sequences))


# ---------------------------------------------------------------- results of sessions


@dataclass(frozen=True, slots=True)
class Result:
    """What a published session bought, for the log: `number` of the entry that holds it, `digests` by party that
    bought or sold, each of its own awards (see `digest_of`), and how many these are."""

    session: str
    number: int
    digests: tuple[tuple[str, int, str], ...]


def results(state: State, after: int = 0, limit: int = 10) -> tuple[Result, ...]:
    """Results of published sessions since an entry of the journal, oldest first; a result that was computed anew is
    there again."""

    def make() -> tuple[tuple[int, str], ...]:
        published = (one for one in state.all(SessionEntry) if one.state == SessionState.PUBLISHED and one.outcome)
        return tuple(sorted((state.number(SessionOutcome, one.outcome), one.id) for one in published))

    numbered = state.derived("published results", (SessionEntry, SessionOutcome), make)
    new = [(number, session) for number, session in numbered if number > after][:limit]
    return tuple(Result(session, number, _digests(decided(state, session, Award))) for number, session in new)


def _digests(awards: Sequence[Award]) -> tuple[tuple[str, int, str], ...]:
    of: dict[str, list[Award]] = {}
    for one in awards:
        for party in {one.provider, one.buyer}:
            of.setdefault(party, []).append(one)
    return tuple((party, len(of[party]), digest_of(map(msgspec.to_builtins, of[party]))) for party in sorted(of))


def digest_of(awards: Iterable[Mapping[str, object]]) -> str:
    """SHA-256, hexadecimal, of awards as `GET /sessions/{session}/awards` gives them: each as canonical JSON (RFC
    8785), sorted, a line end after each."""
    return sha256(b"".join(sorted(canonical(dict(one)) + b"\n" for one in awards))).hexdigest()


# ---------------------------------------------------------------- points


@dataclass(frozen=True, slots=True)
class Point:
    """What ingest knows of a point: its keys with their times, its unit and its owner. `active`: whether it is trusted
    now: not revoked, and its unit still its owner's."""

    number: int
    unit: str
    owner: str
    keys: tuple[DeviceKey, ...]
    active: bool


def points(state: State) -> tuple[Point, ...]:
    """Every point there ever was, by number."""

    def make() -> tuple[Point, ...]:
        return tuple(sorted((_point(state, one) for one in state.all(Device)), key=lambda one: one.number))

    return state.derived("points", (Device, UnitEntry), make)


def _point(state: State, one: Device) -> Point:
    entry = state.find(UnitEntry, one.unit)
    active = one.revoked is None and entry is not None and entry.live and entry.unit.owner == one.owner
    return Point(one.point, one.unit, one.owner, one.keys, active)


def device_of(state: State, unit: str) -> Device | None:
    """The device of a unit that is not revoked."""
    return next((one for one in _devices(state, unit) if one.revoked is None), None)


def points_of(state: State, unit: str) -> tuple[int, ...]:
    """The points of all devices that a unit ever had, ascending."""
    return tuple(sorted(one.point for one in _devices(state, unit)))


def _devices(state: State, unit: str) -> tuple[Device, ...]:
    return index(state, Device, "unit", lambda one: (one.unit,)).at(unit)


def _device_at(state: State, point: int) -> Device | None:
    return next(iter(index(state, Device, "point", lambda one: (str(one.point),)).at(str(point))), None)


def unit_at(state: State, point: int) -> str | None:
    """The unit of a point, None where there is no such point."""
    device = _device_at(state, point)
    return None if device is None else device.unit


def brought_by(state: State, party: str) -> frozenset[str]:
    """Whose messages a party may bring: its own, and those of the owners whose units it is the provider of. They are
    signed by the devices, whoever brings them."""

    def make() -> dict[str, frozenset[str]]:
        owners: dict[str, set[str]] = {}
        for one in state.all(UnitEntry):
            owners.setdefault(one.unit.provider, set()).add(one.unit.owner)
        return {provider: frozenset(some) for provider, some in owners.items()}

    return state.derived("owners by provider", (UnitEntry,), make).get(party, frozenset()) | {party}


def leads(state: State, party: str, point: int) -> bool:
    """Whether a party is the owner or the provider of the unit at a point: it is given what the device is told."""
    unit = unit_at(state, point)
    entry = state.find(UnitEntry, unit) if unit is not None else None
    return entry is not None and party in (entry.unit.owner, entry.unit.provider)


# ---------------------------------------------------------------- regulation and who sees what


@dataclass(frozen=True, slots=True)
class ShareTold:
    """A unit's share of a regulation in one quarter-hour: what it gives each way of the whole band, W; `power_w`: the
    foreseen baseline, None where nothing is foreseen."""

    regulation: str
    unit: str
    point: int
    starts: datetime
    ends: datetime
    up_w: int
    down_w: int
    power_w: int | None


@lru_cache(maxsize=64)
def _shared(one: Regulation) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """The whole band up and down, W, shared over its units."""
    parts = [Participant(part.unit, 1000 * part.up_kw, 1000 * part.down_kw, part.factor) for part in one.shares]
    return shares(1000 * one.up_kw, parts), shares(-1000 * one.down_kw, parts)


def shares_told(state: State, now: datetime) -> tuple[ShareTold, ...]:
    """What the devices of regulated units are to know now, for the rest of this quarter-hour: the band shared by the
    units' factors, so that together they give what the signal asks for."""
    until = quarter(now) + QUARTER
    found = []
    for one in regulating(state, now):
        up, down = _shared(one)
        for unit in up:
            device = device_of(state, unit) if up[unit] or down[unit] else None
            if device is not None:
                power = foreseen_w(state, one.session, unit, now)
                starts, ends = max(one.starts, quarter(now)), min(one.ends, until)
                found.append(ShareTold(one.id, unit, device.point, starts, ends, up[unit], -down[unit], power))
    return tuple(found)


def group_of(tenant: str, band: str) -> int:
    """The number of a regulated group's stream: the first four bytes of SHA-256 of tenant, a zero byte, and its id."""
    return int.from_bytes(sha256(f"{tenant}\0{band}".encode()).digest()[:4], "big")


def regulating(state: State, at: datetime) -> tuple[Regulation, ...]:
    """Regulations that run at an instant, by id."""
    running = index(state, Regulation, "running", _running_days).at(_day(at))
    return tuple(one for one in running if one.running(at))


def _running_days(one: Regulation) -> tuple[str, ...]:
    return _span(one.starts, one.ends) if one.state is RegulationState.RUNNING else ()


def may_see(
    state: State, party: str, unit: str, scope: DataScope, start: datetime, end: datetime, now: datetime
) -> bool:
    """Whether a party may see data of a unit of the whole of [start, end): its owner; its provider, for times of the
    owner's consent to measure; whoever has grants of that scope that together cover it."""
    entry = state.find(UnitEntry, unit)
    if entry is None:
        return False
    owner = entry.unit.owner
    if owner == party:
        return True
    grants = index(state, DataGrant, "unit and party", lambda one: (f"{one.unit}|{one.party}",)).at(f"{unit}|{party}")
    spans = [(one.starts, one.ends) for one in grants if one.owner == owner and one.stands(scope, now)]
    if entry.unit.provider == party:
        spans += [
            (one.starts, one.until)
            for one in _consents(state, unit)
            if (one.owner, one.provider) == (owner, party) and ConsentScope.MEASURE in one.scope and one.until > now
        ]
    reached = start
    for begins, ends in sorted(spans):
        if begins <= reached:
            reached = max(reached, ends)
    return reached >= end


def seen_points(state: State, unit: str) -> tuple[int, ...]:
    """The points of the devices that a unit had under the owner that it has, ascending: what was measured before is
    not its owner's to show."""
    entry = state.get(UnitEntry, unit)
    return tuple(sorted(one.point for one in _devices(state, unit) if one.owner == entry.unit.owner))


def _consents(state: State, unit: str) -> Iterator[Consent]:
    yield from state.grouped(Consent, "unit", lambda one: one.unit).get(unit, ())
