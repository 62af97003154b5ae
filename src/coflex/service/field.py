"""What the field door reads: set points to be sent, the points that may send, and who may see what (ACT-01, CERT-02).

The door signs and sends what `outbox` gives, in its order, and says so by the verb `set_point.sent`; acknowledgements
come back by `set_point.heard`. What was not said to have left is given again after a restart: a set point may be sent
twice, and a device takes the newest version of an order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from coflex.activation.profile import between
from coflex.domain.time import QUARTER
from coflex.register.activations import Regulation, RegulationState, SetPointEntry, SetPointState
from coflex.register.consents import Consent, ConsentScope
from coflex.register.devices import DataGrant, DataScope, Device, DeviceKey
from coflex.register.market import SessionEntry
from coflex.register.resources import UnitEntry
from coflex.service.index import index
from coflex.service.ledger import by_unit
from coflex.service.orders import quarter, spans
from coflex.service.state import State

# Flags of a set point message.
REPLACES, CONTINUOUS = 1, 2


@dataclass(frozen=True, slots=True)
class Told:
    """One message to be sent: hold `change_w` beside the baseline in [starts, ends), injection positive; `power_w` with
    the foreseen baseline, None where nothing is foreseen. `flags`: REPLACES what was said of the order before."""

    starts: datetime
    ends: datetime
    change_w: int
    power_w: int | None
    flags: int


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
    waiting = index(state, SetPointEntry, "to be sent", _to_be_sent).at(SetPointState.WAITING.value)
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
    return (one.state.value,)


def order_bytes(tenant: str, order: str) -> bytes:
    """The 16 bytes that name an order on the wire: the first of SHA-256 of tenant, a zero byte, and its id."""
    return sha256(f"{tenant}\0{order}".encode()).digest()[:16]


def _messages(state: State, one: SetPointEntry, now: datetime) -> tuple[Told, ...]:
    """The pieces to come, cut where the foreseen baseline changes; the first replaces what was said before. A set point
    that was taken back says zero until the end of its quarter-hour."""
    sign, entry = one.direction.sign, state.find(SessionEntry, one.session)
    foreseen = by_unit(state, entry, "nomination") if entry is not None else None
    replaces = REPLACES if one.version > 1 else 0
    found: list[Told] = []
    for starts, ends, kw in spans(between(one.profile, now, None)):
        power = None
        start = quarter(starts)
        if foreseen is not None and one.unit in foreseen.names and foreseen.axis.covers(start):
            baseline = float(foreseen.row(one.unit)[foreseen.axis.position(start)])
            power = round(1000 * (baseline + sign * kw))
        found.append(Told(starts, ends, sign * kw * 1000, power, 0 if found else replaces))
    if not found and replaces:
        found.append(Told(now, quarter(now) + QUARTER, 0, None, REPLACES))
    return tuple(found)


def set_point_of(state: State, sequence: int) -> str | None:
    """The set point whose standing version a message of the platform carried."""
    found = index(state, SetPointEntry, "sequence", lambda one: tuple(map(str, one.sequences))).at(str(sequence))
    return found[0].id if found else None


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
    known = index(state, Device, "unit", lambda one: (one.unit,)).at(unit)
    return next((one for one in known if one.revoked is None), None)


# ---------------------------------------------------------------- regulation and who sees what


def regulating(state: State, at: datetime) -> tuple[Regulation, ...]:
    """Regulations that run at an instant, by id."""
    running = index(state, Regulation, "state", lambda one: (one.state.value,)).at(RegulationState.RUNNING.value)
    return tuple(one for one in running if one.running(at))


def may_see(state: State, party: str, unit: str, scope: DataScope, of: datetime, now: datetime) -> bool:
    """Whether a party may see data of a unit from an instant: its owner; its provider with the owner's consent to
    measure at that time; whoever has a grant of that scope and time."""
    entry = state.find(UnitEntry, unit)
    if entry is None:
        return False
    if entry.unit.owner == party:
        return True
    grants = index(state, DataGrant, "unit and party", lambda one: (f"{one.unit}|{one.party}",)).at(f"{unit}|{party}")
    if any(one.owner == entry.unit.owner and one.holds(scope, of, now) for one in grants):
        return True
    if entry.unit.provider != party:
        return False
    return any(
        one.holds(ConsentScope.MEASURE, of, of + datetime.resolution) and one.until > now
        for one in _consents(state, unit)
        if (one.owner, one.provider) == (entry.unit.owner, party)
    )


def _consents(state: State, unit: str) -> Iterator[Consent]:
    yield from state.grouped(Consent, "unit", lambda one: one.unit).get(unit, ())
