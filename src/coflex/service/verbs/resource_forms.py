"""Forms of perimeters, connection points, units and groups, and what each of them is held to in itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from datetime import datetime
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from coflex.domain.errors import Conflict, Finding, NotFound
from coflex.domain.party import Role
from coflex.domain.unit import ConnectionPoint, Level, Scope, Technology, Unit
from coflex.register.parties import PartyEntry
from coflex.register.records import Record
from coflex.register.resources import PointEntry, UnitEntry
from coflex.service import rules
from coflex.service.machine import Context, encode
from coflex.service.ports import Note
from coflex.service.reading import record
from coflex.service.relations import concerned, operators
from coflex.service.state import State
from coflex.service.verbs.parties import ID

TEXT_LENGTH = 200
# Beyond these a number is a slip of the pen: a thousand gigawatts, a year.
MOST_KW, MOST_S = 10**9, 366 * 86_400


# ---------------------------------------------------------------- forms


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base of every form: what it does not know it refuses."""


class PerimeterForm(Form, frozen=True):
    """The buses inside which units may form a group; see `Perimeter`. `system_operator`: the caller, if left out."""

    name: str
    buses: tuple[str, ...]
    system_operator: str = ""


class PointForm(Form, frozen=True):
    """A connection point; see `domain.unit.ConnectionPoint`. `impacted`: other operators that answer for its units."""

    id: str
    bus: str
    level: Level
    voltage_kv: float
    system_operator: str
    owner: str
    latitude: float
    longitude: float
    impacted: tuple[str, ...] = ()


class PointChange(Form, frozen=True):
    """What changes of a connection point; a field that is left out stays."""

    bus: str | UnsetType = UNSET
    level: Level | UnsetType = UNSET
    voltage_kv: float | UnsetType = UNSET
    system_operator: str | UnsetType = UNSET
    owner: str | UnsetType = UNSET
    latitude: float | UnsetType = UNSET
    longitude: float | UnsetType = UNSET
    impacted: tuple[str, ...] | UnsetType = UNSET


class UnitData(Form, frozen=True):
    """A controllable unit; see `domain.unit.Unit`. `provider`: the caller, if left out."""

    id: str
    category: str
    technology: Technology
    connection_point: str
    owner: str
    balance_responsible_party: str
    up_kw: int
    down_kw: int
    preparation_period_s: int
    ramping_period_s: int
    full_activation_time_s: int
    deactivation_period_s: int
    min_quantity_kw: int
    max_quantity_kw: int
    min_duration_s: int
    max_duration_s: int
    recovery_time_s: int
    element: str = ""
    provider: str = ""
    tan_phi: float = 0.0
    energy_up_kwh: int | None = None
    energy_down_kwh: int | None = None


class UnitForm(UnitData, frozen=True):
    """A unit to be registered; with its connection point where that is not registered yet."""

    point: PointForm | None = None


class UnitChange(Form, frozen=True):
    """What changes of a unit; a field that is left out stays. Another provider comes by `unit.switch`."""

    category: str | UnsetType = UNSET
    technology: Technology | UnsetType = UNSET
    connection_point: str | UnsetType = UNSET
    element: str | UnsetType = UNSET
    owner: str | UnsetType = UNSET
    balance_responsible_party: str | UnsetType = UNSET
    up_kw: int | UnsetType = UNSET
    down_kw: int | UnsetType = UNSET
    tan_phi: float | UnsetType = UNSET
    preparation_period_s: int | UnsetType = UNSET
    ramping_period_s: int | UnsetType = UNSET
    full_activation_time_s: int | UnsetType = UNSET
    deactivation_period_s: int | UnsetType = UNSET
    min_quantity_kw: int | UnsetType = UNSET
    max_quantity_kw: int | UnsetType = UNSET
    min_duration_s: int | UnsetType = UNSET
    max_duration_s: int | UnsetType = UNSET
    recovery_time_s: int | UnsetType = UNSET
    energy_up_kwh: int | UnsetType | None = UNSET
    energy_down_kwh: int | UnsetType | None = UNSET


class Switch(Form, frozen=True):
    """A unit goes to another provider, the caller if left out, and to the balance responsible party named."""

    balance_responsible_party: str
    provider: str = ""


class GroupForm(Form, frozen=True):
    """A service providing group; see `domain.unit.Group`. `provider`: the caller, if left out."""

    id: str
    scope: Scope
    product: str
    units: tuple[str, ...]
    balance_responsible_party: str
    perimeter: str = ""
    provider: str = ""


class GroupChange(Form, frozen=True):
    """What changes of a group; a field that is left out stays."""

    product: str | UnsetType = UNSET
    perimeter: str | UnsetType = UNSET
    units: tuple[str, ...] | UnsetType = UNSET
    balance_responsible_party: str | UnsetType = UNSET


class Nothing(Form, frozen=True):
    """The subject says it all."""


# ---------------------------------------------------------------- what every form is held to


_POINT = attrgetter(*(one.name for one in fields(ConnectionPoint)))
_UNIT = attrgetter(*(one.name for one in fields(Unit)))
_MOST = tuple(
    (one.name, MOST_S if one.name.endswith("_s") else MOST_KW)
    for one in fields(Unit)
    if one.name.endswith(("_kw", "_kwh", "_s"))
)


def point_of(form: PointForm) -> ConnectionPoint:
    return ConnectionPoint(*_POINT(form))


def unit_of(form: UnitData, party: str) -> Unit:
    """The unit of a form; its provider is `party` where the form names none."""
    unit = Unit(*_UNIT(form))
    return unit if unit.provider else replace(unit, provider=party)


def entry_faults(state: State, place: str, entry: PointEntry) -> Iterator[Finding]:
    """Faults of a connection point that the rules of the register do not name; `place` goes before the field."""
    point, impacted = entry.point, entry.impacted
    yield from texts(place, point, "bus")
    if not 0 < point.voltage_kv <= 2000:
        yield Finding(f"{place}voltage_kv", "voltage", f"{point.voltage_kv} kV is no voltage of a grid; correct it.")
    if not -90 <= point.latitude <= 90 or not -180 <= point.longitude <= 180:
        yield Finding(f"{place}latitude", "position", "Give degrees: latitude -90 to 90, longitude -180 to 180.")
    if len(set(impacted)) != len(impacted) or point.system_operator in impacted:
        message = "Each impacted operator stands once, and the connecting one is none of them; correct the list."
        yield Finding(f"{place}impacted", "impacted", message)

    for name in impacted:
        if not is_operator(state, name):
            message = f"The impacted operator '{name}' is no system operator here; correct it."
            yield Finding(f"{place}impacted", "unknown_operator", message)


def is_operator(state: State, party: str) -> bool:
    """Whether a party is a system operator that the register may name."""
    entry = state.find(PartyEntry, party)
    return entry is not None and entry.stands and bool({Role.DSO, Role.TSO} & set(entry.party.roles))


def unit_faults(place: str, unit: Unit) -> Iterator[Finding]:
    """Faults of a unit in itself that the rules of the register do not name."""
    yield from texts(place, unit, "category", "element")
    for name, most in _MOST:
        number = getattr(unit, name)
        if number is not None and number > most:
            yield Finding(f"{place}{name}", "too_large", f"{number} is more than {most}; correct it.")
    if not -10 <= unit.tan_phi <= 10:
        yield Finding(f"{place}tan_phi", "tan_phi", f"{unit.tan_phi} kvar per kW is out of bounds; give -10 to 10.")


def texts(place: str, record: object, *names: str) -> Iterator[Finding]:
    for name in names:
        text = getattr(record, name)
        if len(text) > TEXT_LENGTH or not text.isprintable():
            message = f"It has at most {TEXT_LENGTH} characters on one line; correct it."
            yield Finding(f"{place}{name}", "text", message)


def id_faults(place: str, id: str) -> Iterator[Finding]:
    if not ID.fullmatch(id):
        message = "An id has 1 to 64 letters, digits, points, hyphens or underscores; choose such a one."
        yield Finding(f"{place}id", "id", message)


def element_faults(state: State, units: Iterable[Unit], now: datetime) -> Iterator[Finding]:
    """One element of the grid model is one unit, and the next one only when what was sold of the last is over."""
    taken: dict[str, str] = {}
    for unit in (one for one in units if one.element):
        first = taken.setdefault(unit.element, unit.id)
        if {first, *rules.units_of(state, unit.element, now)} != {unit.id}:
            message = (
                f"The element '{unit.element}' is another unit already, or what was sold of one is not over; "
                "one element is one unit."
            )
            yield Finding(f"unit {unit.id}", "element_taken", message)


def knows(state: State, context: Context, kind: type[Record], id: str) -> bool:
    """Whether there is a record that the caller may know."""
    try:
        record(state, context, kind, id)
    except NotFound:
        return False
    return True


def hidden(state: State, context: Context, point: str) -> frozenset[str]:
    """The point, where the caller may not know it: nobody learns of a point by registering a unit there."""
    return frozenset() if knows(state, context, PointEntry, point) else frozenset({point})


def point_differs(state: State, context: Context, place: str, there: PointEntry) -> Finding:
    """A point is given with other data than it has. Who may not know it is not told whether it knows some of them."""
    if knows(state, context, PointEntry, there.id):
        message = f"The connection point '{there.id}' has other data; leave them out, or have it changed."
    else:
        message = (
            f"There is a connection point '{there.id}' that you do not know; choose another id, give its data as its "
            "owner or its system operator tells them, or ask the register operator."
        )
    return Finding(place, "point_differs", message)


def changes(form: msgspec.Struct) -> dict[str, Any]:
    """The fields of a form that were given."""
    return {name: value for name in form.__struct_fields__ if (value := getattr(form, name)) is not UNSET}


def absent(state: State, kind: type[Record], what: str, id: str) -> None:
    """Raises Conflict where there is a record of that id, also one that is over."""
    if state.find(kind, id) is not None:
        raise Conflict(f"There is a {what} '{id}' already.", "Choose another id, or change what is there.")


# ---------------------------------------------------------------- who is told


def forwarded(subject: str, units: Sequence[UnitEntry], point: PointEntry) -> Note:
    """The register tells every operator that answers for units, and the provider that it did (REG-03)."""
    body = {"units": [one.id for one in units], "operators": list(point.operators)}
    audience = sorted({*point.operators, *(one.unit.provider for one in units)})
    return Note("registration.forwarded", subject, tuple(audience), encode(body))


def audience(state: State, entry: Record, *more: str) -> tuple[str, ...]:
    """Everybody whom a record concerns, and the register operators."""
    return tuple(sorted({*concerned(state, entry), *operators(state), *more} - {""}))
