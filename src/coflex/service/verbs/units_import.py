"""Many units at once, with their connection points: all of them or none, and every fault with its row (REG-02)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from coflex.domain.errors import Finding, Forbidden, refuse
from coflex.domain.party import Role
from coflex.domain.unit import ConnectionPoint, Level, Unit
from coflex.register.records import Record
from coflex.register.resources import PointEntry, UnitEntry, UnitStatus
from coflex.service import rules
from coflex.service.machine import CREATED, Context, Outcome, Verb, encode
from coflex.service.ports import Note
from coflex.service.relations import operators
from coflex.service.state import State
from coflex.service.verbs import prequalification
from coflex.service.verbs.resource_forms import (
    Form,
    UnitData,
    element_faults,
    entry_faults,
    forwarded,
    hidden,
    id_faults,
    point_differs,
    unit_faults,
    unit_of,
)

MOST_ROWS = 10_000


class UnitRow(UnitData, frozen=True):
    """A unit and, where its connection point is not registered yet, the point: then `level` to `longitude` are given.

    `bus` is empty outside the modelled grid. `point_owner`: the unit's owner, if left out. Rows of one point say the
    same of it. `place`: where the row stands, as findings are to name it; its number from 1, if left out.
    """

    bus: str = ""
    level: Level | None = None
    voltage_kv: float | None = None
    system_operator: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    point_owner: str | None = None
    impacted: tuple[str, ...] = ()
    place: str = ""


class UnitsImport(Form, frozen=True):
    """Up to 10,000 units that are registered together, or not at all."""

    rows: tuple[UnitRow, ...]


class Imported(msgspec.Struct, frozen=True):
    """How many units and new connection points entered the register with one entry."""

    entry: int
    units: int
    connection_points: int


@dataclass
class _Batch:
    """What the rows bring, by id, and where each stands first. `hidden`: see `rules.Draft`; `given`: points of the
    register that a row gives as they are."""

    units: dict[str, UnitEntry] = field(default_factory=dict)
    points: dict[str, PointEntry] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    given: set[str] = field(default_factory=set)
    places: dict[str, str] = field(default_factory=dict)


def _import(state: State, context: Context, form: UnitsImport) -> Outcome:
    """Register units. Raises Forbidden, Refused with every fault of every row."""
    if not 1 <= len(form.rows) <= MOST_ROWS:
        message = f"It holds {len(form.rows)} rows; send 1 to {MOST_ROWS}."
        refuse("The units", [Finding("rows", "row_count", message)])
    batch = _Batch()
    findings = list(_taken(state, context, form.rows, batch))
    findings += _placed(batch, rules.findings(state, _draft(batch)))
    findings += _placed(batch, element_faults(state, (one.unit for one in batch.units.values()), context.now))
    refuse("The units", findings)
    asked, told = prequalification.begin(state, _points(state, batch), context.now)
    writes: list[tuple[type[Record], str, Record | None]] = []
    writes += [(PointEntry, id, batch.points[id]) for id in sorted(batch.points)]
    writes += [(UnitEntry, id, batch.units[id]) for id in sorted(batch.units)]
    reply = Imported(context.number, len(batch.units), len(batch.points))
    return Outcome(reply, (*writes, *asked), (*_notes(state, context, batch), *told), CREATED)


def _taken(state: State, context: Context, rows: Iterable[UnitRow], batch: _Batch) -> Iterator[Finding]:
    """Put the rows into the batch; yields their faults."""
    for number, row in enumerate(rows, start=1):
        place = row.place or f"row {number}"
        unit = unit_of(row, context.party)
        if unit.provider != context.party and Role.REGISTER_OPERATOR not in context.roles:
            raise Forbidden("A provider registers its own units.", f"Leave the provider out of {place}.")
        yield from id_faults(f"{place}, column ", unit.id)
        yield from unit_faults(f"{place}, column ", unit)
        if unit.id in batch.units or state.find(UnitEntry, unit.id) is not None:
            where = f"in {batch.places[_unit_key(unit.id)]}" if unit.id in batch.units else "in the register"
            message = f"The unit '{unit.id}' is {where} already; choose another id or leave the row out."
            yield Finding(f"{place}, column id", "id_taken", message)
            continue
        batch.units[unit.id] = UnitEntry(unit.id, unit, UnitStatus.NEW, context.now, context.now)
        batch.places[_unit_key(unit.id)] = place
        yield from _point_taken(state, context, row, unit, place, batch)


def _unit_key(id: str) -> str:
    return f"unit {id}"


def _point_taken(
    state: State, context: Context, row: UnitRow, unit: Unit, place: str, batch: _Batch
) -> Iterator[Finding]:
    """The connection point that a row brings, if it brings one."""
    names = ("level", "voltage_kv", "system_operator", "latitude", "longitude")
    given = {name: getattr(row, name) for name in names}
    missing = [name for name in names if given[name] is None]
    if len(missing) == len(names):
        batch.hidden |= hidden(state, context, unit.connection_point)
        return
    if missing:
        message = "A new connection point needs all of its columns; fill this one, or empty the others."
        yield from (Finding(f"{place}, column {name}", "incomplete_point", message) for name in missing)
        return
    owner = unit.owner if row.point_owner is None else row.point_owner
    entry = PointEntry(
        unit.connection_point,
        ConnectionPoint(id=unit.connection_point, bus=row.bus, owner=owner, **given),
        row.impacted,
        context.party,
    )
    registered = state.find(PointEntry, entry.id)
    there = registered or batch.points.get(entry.id)
    if there is None:
        yield from id_faults(f"{place}, column connection_point: ", entry.id)
        yield from entry_faults(state, f"{place}, column ", entry)
        batch.points[entry.id] = entry
        batch.places[f"connection point {entry.id}"] = place
    elif (there.point, there.impacted) != (entry.point, entry.impacted):
        column = f"{place}, column connection_point"
        if registered is not None:
            yield point_differs(state, context, column, registered)
            return
        message = f"The connection point '{entry.id}' is given with other data elsewhere; leave its columns empty here."
        yield Finding(column, "point_differs", message)
    elif registered is not None:
        batch.given.add(entry.id)


def _draft(batch: _Batch) -> rules.Draft:
    return rules.Draft(
        points={id: one.point for id, one in batch.points.items()},
        units={id: one.unit for id, one in batch.units.items()},
        hidden=frozenset(batch.hidden - batch.given),
    )


def _points(state: State, batch: _Batch) -> Iterator[tuple[UnitEntry, PointEntry]]:
    """Each unit with its connection point."""
    for entry in batch.units.values():
        id = entry.unit.connection_point
        yield entry, batch.points.get(id) or state.get(PointEntry, id)


def _placed(batch: _Batch, findings: Iterable[Finding]) -> list[Finding]:
    """Findings of the register's rules with the row that they come from."""
    return [
        Finding(f"{batch.places[one.place]}: {one.place}" if one.place in batch.places else one.place, one.code,
                one.message)
        for one in findings
    ]  # fmt: skip


def _notes(state: State, context: Context, batch: _Batch) -> Iterator[Note]:
    """One note to each circle of parties: what was imported, and to which operators it was forwarded (REG-03)."""
    subject = context.new_id("import")
    told: dict[tuple[str, ...], list[str]] = {}
    at_operators: dict[tuple[str, ...], tuple[PointEntry, list[UnitEntry]]] = {}
    keepers = operators(state)
    for entry, point in _points(state, batch):
        unit = entry.unit
        circle = {unit.provider, unit.owner, unit.balance_responsible_party, *point.operators, *keepers}
        told.setdefault(tuple(sorted(circle)), []).append(unit.id)
        at_operators.setdefault((*point.operators, unit.provider), (point, []))[1].append(entry)
    for audience, ids in sorted(told.items()):
        yield Note("unit.registered", subject, audience, encode({"units": ids}))
    for circle_of in sorted(at_operators):
        point, entries = at_operators[circle_of]
        yield forwarded(subject, entries, point)


VERBS = (Verb("units.import", UnitsImport, _import, frozenset({Role.SERVICE_PROVIDER, Role.REGISTER_OPERATOR})),)
