"""The rules of the register held against a change before it is made, at the cost of what the change touches.

A command drafts what the register would be; the rules of `coflex.domain.register` then look at the drafted things and
at those that depend on them: units and groups at a changed point, groups of a changed unit, everything that names a
changed party or product. A register without a breach stays without one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TypeVar

from coflex.domain.errors import Finding
from coflex.domain.party import Party, Role
from coflex.domain.product import Product
from coflex.domain.register import Register, check_part, check_register
from coflex.domain.time import QUARTER
from coflex.domain.unit import ConnectionPoint, Group, Unit
from coflex.register.outcomes import SessionOutcome
from coflex.register.parties import PartyEntry
from coflex.register.products import ProductEntry
from coflex.register.resources import GroupEntry, Perimeter, PointEntry, UnitEntry
from coflex.service.index import index
from coflex.service.ledger import holdings
from coflex.service.lookup import Lookup
from coflex.service.state import State

V = TypeVar("V")


@dataclass(frozen=True)
class Draft:
    """What the register would be, by id; None: no longer there. `buses`: the perimeters, where they change.

    `hidden`: points that whoever drafts it may not know; they are told like points that are not there.
    """

    parties: Mapping[str, tuple[Role, ...] | None] = field(default_factory=dict)
    points: Mapping[str, ConnectionPoint | None] = field(default_factory=dict)
    units: Mapping[str, Unit | None] = field(default_factory=dict)
    groups: Mapping[str, Group | None] = field(default_factory=dict)
    products: Mapping[str, Product] = field(default_factory=dict)
    buses: Mapping[str, str] | None = None
    hidden: frozenset[str] = frozenset()


def findings(state: State, draft: Draft) -> tuple[Finding, ...]:
    """Every breach of the rules that the draft would bring, sorted."""
    touched = _Touched.by(state, draft)
    register = _register(state, draft)
    return check_part(
        register,
        _found(touched.points, register.points),
        _found(touched.units, register.units),
        _found(touched.groups, {id: group for id in touched.groups if (group := _group(state, draft, id))}),
    )


def whole(state: State) -> tuple[Finding, ...]:
    """Every breach in the whole register; there is none unless records came from elsewhere."""
    return check_register(
        [Party(one.id, one.party.name, one.party.roles) for one in state.all(PartyEntry) if one.stands],
        [one.point for one in state.all(PointEntry) if one.ended is None],
        [one.unit for one in state.all(UnitEntry) if one.live],
        [one.group for one in state.all(GroupEntry) if one.live],
        [one.product for one in state.all(ProductEntry)],
        perimeter_of_bus(state),
    )


# ---------------------------------------------------------------- who hangs on whom


def perimeter_of_bus(state: State) -> Mapping[str, str]:
    """Name of the perimeter of each bus that is in one; empty for buses of a substation."""
    return state.derived(
        "perimeter of bus",
        (Perimeter,),
        lambda: {bus: one.name for one in state.all(Perimeter) for bus in one.buses},
    )


def units_at(state: State, point: str) -> tuple[UnitEntry, ...]:
    """Units at a connection point that are not terminated, by id."""
    return index(state, UnitEntry, "connection point", _point_key).at(point)


def groups_of(state: State, unit: str) -> tuple[GroupEntry, ...]:
    """Groups that a unit is in and that are not terminated, by id."""
    return index(state, GroupEntry, "unit", _member_keys).at(unit)


def units_of(state: State, element: str, now: datetime) -> tuple[str, ...]:
    """Ids of the units that an element of the grid model is; a unit that is over too, while the ledger holds it."""
    known = index(state, UnitEntry, "element", _element_key).at(element)
    return tuple(one.id for one in known if one.live or held_until(state, one.id, now) is not None)


def held_until(state: State, unit: str, now: datetime) -> datetime | None:
    """The end of the last quarter-hour ahead of which the ledger holds something of a unit; None where it does not."""
    days = state.derived("days decided", (SessionOutcome,), lambda: {one.day for one in state.all(SessionOutcome)})
    ends: dict[date, dict[str, datetime]] = state.derived("ends of holdings", (SessionOutcome,), dict)
    last = None
    # whatever the zone, a delivery day is over when the second day after it begins in UTC
    for day in (one for one in days if one >= (now - timedelta(days=1)).date()):
        if day not in ends:
            ends[day] = {one.unit: one.start + QUARTER for one in holdings(state, day)}
        end = ends[day].get(unit)
        if end is not None and end > now:
            last = end if last is None else max(last, end)
    return last


def _point_key(entry: UnitEntry) -> tuple[str, ...]:
    return (entry.unit.connection_point,) if entry.live else ()


def _member_keys(entry: GroupEntry) -> frozenset[str]:
    return frozenset(entry.group.units) if entry.live else frozenset()


def _element_key(entry: UnitEntry) -> tuple[str, ...]:
    return (entry.unit.element,) if entry.unit.element else ()


def names_party(state: State, party: str) -> tuple[list[PointEntry], list[UnitEntry], list[GroupEntry]]:
    """Everything of the register that is not over and names a party."""
    return (
        [e for e in state.all(PointEntry) if e.ended is None and party in (*e.operators, e.point.owner)],
        [
            e
            for e in state.all(UnitEntry)
            if e.live and party in (e.unit.provider, e.unit.owner, e.unit.balance_responsible_party)
        ],
        [e for e in state.all(GroupEntry) if e.live and party in (e.group.provider, e.group.balance_responsible_party)],
    )


# ---------------------------------------------------------------- the register as drafted


@dataclass(frozen=True)
class _Touched:
    """Ids of what a draft may bring a breach to."""

    points: set[str]
    units: set[str]
    groups: set[str]

    @classmethod
    def by(cls, state: State, draft: Draft) -> _Touched:
        points, units, groups = set(draft.points), set(draft.units), set(draft.groups)
        for party in draft.parties:
            named = names_party(state, party)
            points |= {one.id for one in named[0]}
            units |= {one.id for one in named[1]}
            groups |= {one.id for one in named[2]}
        moved = points | set(_moved(state, draft))
        at_moved = {unit.id for point in moved for unit in units_at(state, point)}
        units |= at_moved
        groups |= {group.id for unit in units for group in groups_of(state, unit)}
        if draft.products:
            groups |= {one.id for one in state.all(GroupEntry) if one.live and one.group.product in draft.products}
        return cls(points, units, groups)


def _moved(state: State, draft: Draft) -> Iterator[str]:
    """Points whose perimeter changes."""
    if draft.buses is None:
        return
    before = perimeter_of_bus(state)
    for one in state.all(PointEntry):
        if one.ended is None and before.get(one.point.bus) != draft.buses.get(one.point.bus):
            yield one.id


def _register(state: State, draft: Draft) -> Register:
    return Register(
        roles=Lookup(lambda id: _roles(state, id), draft.parties),
        points=Lookup(lambda id: _point(state, id), dict.fromkeys(draft.hidden) | dict(draft.points)),
        units=Lookup(lambda id: _unit(state, id), draft.units),
        products=Lookup(lambda id: _product(state, id), draft.products),
        perimeter_of_bus=perimeter_of_bus(state) if draft.buses is None else draft.buses,
        groups_of=Lookup(_memberships(state, draft)),
    )


def _memberships(state: State, draft: Draft) -> Callable[[str], Sequence[Group] | None]:
    """The groups of a unit: the drafted ones that hold it, and the others of the state."""
    by_unit = index(state, GroupEntry, "unit", _member_keys)
    drafted: dict[str, list[Group]] = {}
    for group in draft.groups.values():
        for name in set(group.units) if group is not None else ():
            drafted.setdefault(name, []).append(group)  # type: ignore[arg-type]

    def look_up(unit: str) -> Sequence[Group]:
        others = [entry.group for entry in by_unit.at(unit) if entry.id not in draft.groups]
        return [*others, *drafted.get(unit, ())]

    return look_up


def _roles(state: State, id: str) -> tuple[Role, ...] | None:
    entry = state.find(PartyEntry, id)
    return entry.party.roles if entry is not None and entry.stands else None


def _point(state: State, id: str) -> ConnectionPoint | None:
    entry = state.find(PointEntry, id)
    return entry.point if entry is not None and entry.ended is None else None


def _unit(state: State, id: str) -> Unit | None:
    entry = state.find(UnitEntry, id)
    return entry.unit if entry is not None and entry.live else None


def _group(state: State, draft: Draft, id: str) -> Group | None:
    if id in draft.groups:
        return draft.groups[id]
    entry = state.find(GroupEntry, id)
    return entry.group if entry is not None and entry.live else None


def _product(state: State, id: str) -> Product | None:
    entry = state.find(ProductEntry, id)
    return entry.product if entry is not None else None


def _found(ids: Iterable[str], among: Mapping[str, V]) -> list[V]:
    return [among[id] for id in sorted(ids) if id in among]
