"""What is qualified now: power of units by the grid, products of groups by test. Timestamps decide, to the instant.

Everything is derived from the records once and kept until one of them is written; the time is looked at in each call.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from coflex.domain.qualification import ProductLimit
from coflex.domain.quantity import Direction
from coflex.qualification.equivalence import table
from coflex.qualification.requirements import Requirements, requirements, usual_procedure
from coflex.register.prequalification import (
    Basis,
    Grant,
    GridPrequalification,
    ProductProcedure,
    ProductQualification,
    grid_id,
)
from coflex.register.products import ProductEntry
from coflex.register.resources import GroupEntry, PointEntry, UnitEntry, UnitStatus
from coflex.service.state import State

_ALWAYS = datetime.max.replace(tzinfo=UTC)
Kw = Mapping[tuple[str, Direction], int]


# ---------------------------------------------------------------- the grid


def qualified_kw(state: State, now: datetime) -> Kw:
    """Power (kW) that every operator concerned lets a unit give in a direction now, at most its registered power.

    Nothing for a unit of which one of them has not approved, or approved what it was before a material change.
    """
    kinds = (UnitEntry, PointEntry, GridPrequalification)
    return state.derived("qualified power", kinds, lambda: _Timeline(_spans(state))).at(now)


def operators_of(point: PointEntry) -> tuple[str, ...]:
    """The operators that must approve a unit at this point: the connecting one first, then the impacted ones."""
    connecting = point.point.system_operator
    return (connecting, *sorted({one for one in point.impacted if one != connecting}))


@dataclass(frozen=True, slots=True)
class _Span:
    """Power of a unit in [begin, end)."""

    begin: datetime
    end: datetime
    unit: str
    up_kw: int
    down_kw: int


def _spans(state: State) -> Iterator[_Span]:
    for entry in state.all(UnitEntry):
        point = state.find(PointEntry, entry.unit.connection_point)
        if point is None or entry.status is UnitStatus.TERMINATED:
            continue
        records = [state.find(GridPrequalification, grid_id(entry.id, one)) for one in operators_of(point)]
        answers = [record.answer for record in records if record is not None and record.answer is not None]
        known = [one for one in answers if one.unit_as_of == entry.changed_materially]
        if len(known) == len(records):
            yield _Span(
                max(one.valid_from for one in known),
                min(one.valid_until or _ALWAYS for one in known),
                entry.id,
                min(entry.unit.up_kw, *(one.up_kw for one in known)),
                min(entry.unit.down_kw, *(one.down_kw for one in known)),
            )


class _Timeline:
    """Spans, and between two of their bounds one mapping for all calls."""

    def __init__(self, spans: Iterable[_Span]) -> None:
        self._spans = tuple(spans)
        self._bounds = sorted({bound for span in self._spans for bound in (span.begin, span.end)})
        self._kept: dict[int, Kw] = {}

    def at(self, now: datetime) -> Kw:
        part = bisect_right(self._bounds, now)
        if part not in self._kept:
            power = {}
            for span in self._spans:
                if span.begin <= now < span.end:
                    for direction, kw in ((Direction.UP, span.up_kw), (Direction.DOWN, span.down_kw)):
                        if kw > 0:
                            power[span.unit, direction] = kw
            self._kept[part] = MappingProxyType(power)
        return self._kept[part]


# ---------------------------------------------------------------- products


def qualified_products(state: State, group: str, now: datetime) -> frozenset[str]:
    """Products that the group may offer now: by its own test, by equivalence, or for the time until its test."""
    return frozenset(one.product for one in _grants(state).get(group, ()) if one.begin <= now < one.end)


def product_limits(state: State, group: str, now: datetime) -> Mapping[str, ProductLimit]:
    """With how much a group may offer each of these products now; empty for one that is not there."""
    units = entry.group.units if (entry := state.find(GroupEntry, group)) is not None else ()
    there = [one for one in _grants(state).get(group, ()) if one.begin <= now < one.end]
    return {one.product: ProductLimit(group, one.product, one.grant.up_kw, one.grant.down_kw, units) for one in there}


def asked_now(state: State, product: str) -> tuple[Requirements, ...]:
    """What the tests of a product ask for as it is now, one for each signal; nothing for an unknown product."""
    entry = state.find(ProductEntry, product)
    if entry is None:
        return ()
    own = state.find(ProductProcedure, product)
    procedure = usual_procedure(entry.product) if own is None else own.procedure
    return tuple(requirements(entry.product, procedure, signal) for signal in procedure.signals)


def group_as_of(state: State, entry: GroupEntry) -> datetime:
    """When the group or one of its units last changed materially."""
    units = [state.find(UnitEntry, name) for name in entry.group.units]
    return max([entry.changed_materially, *(one.changed_materially for one in units if one is not None)])


@dataclass(frozen=True, slots=True)
class _Granted:
    """A grant that counts in [begin, end)."""

    product: str
    begin: datetime
    end: datetime
    grant: Grant


def _grants(state: State) -> dict[str, tuple[_Granted, ...]]:
    """Grants that nothing but time can end, by group."""
    kinds = (GroupEntry, UnitEntry, ProductEntry, ProductProcedure, ProductQualification)

    def make() -> dict[str, tuple[_Granted, ...]]:
        groups: dict[str, list[_Granted]] = {}
        for record in state.all(ProductQualification):
            granted = _granted(state, record)
            if granted is not None:
                groups.setdefault(record.group, []).append(granted)
        return {name: tuple(of) for name, of in groups.items()}

    return state.derived("granted products", kinds, make)


def _granted(state: State, record: ProductQualification) -> _Granted | None:
    grant, group = record.grant, state.find(GroupEntry, record.group)
    if grant is None or group is None or group.status is UnitStatus.TERMINATED:
        return None
    if group_as_of(state, group) != grant.group_as_of or not _still_covered(state, record.product, grant):
        return None
    own = _Granted(record.product, grant.valid_from, grant.valid_until or _ALWAYS, grant)
    if grant.basis is not Basis.EQUIVALENCE:
        return own
    source = state.find(ProductQualification, grant.source)
    if source is None or source.grant is None or source.grant.basis is not Basis.TEST:
        return None
    if source.grant.tests != grant.source_tests or not _same_units(state, group, source.group):
        return None
    root = _granted(state, source)
    return None if root is None else _Granted(own.product, max(own.begin, root.begin), min(own.end, root.end), grant)


def _still_covered(state: State, product: str, grant: Grant) -> bool:
    """Whether what was shown includes all that the product's tests ask for now."""
    if grant.basis is Basis.TEMPORARY:
        return True
    return all(any(table().shows(shown, wanted) for shown in grant.asked) for wanted in asked_now(state, product))


def _same_units(state: State, group: GroupEntry, other: str) -> bool:
    found = state.find(GroupEntry, other)
    return found is not None and set(found.group.units) == set(group.group.units)
