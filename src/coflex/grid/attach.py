"""A transmission grid with distribution grids attached (GRID-13): one set of tables, each name with its grid before it.

A distribution grid keeps its own transformers; the bus of its source is joined to a bus of the transmission grid, and
its source goes. What both sides need of each other afterwards (interface profiles, `grid.planning`; needs, `grid.opf`)
is computed on the whole or on each part with the other's profile at the interface.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from coflex.domain.errors import Finding, refuse
from coflex.grid.tables import GridTables, Switch

# Fields that hold a name of the grid's own, by the table's key in `GridTables`; profiles stay as they are.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "buses": ("bus",),
    "lines": ("line", "from_bus", "to_bus"),
    "transformers": ("transformer", "hv_bus", "lv_bus"),
    "switches": ("switch", "bus", "element"),
    "sources": ("source", "bus"),
    "loads": ("load", "bus"),
    "generators": ("generator", "bus"),
    "storages": ("storage", "bus"),
    "branches": ("branch", "from_bus", "to_bus"),
    "shunts": ("shunt", "bus"),
    "dispatches": ("element",),
    "cost_points": ("point", "element"),
}


@dataclass(frozen=True, eq=False)
class Attachment:
    """A distribution grid under a name of its own, and the transmission bus that feeds it."""

    name: str
    tables: GridTables
    bus: str


def attach(transmission: GridTables, attachments: Sequence[Attachment]) -> GridTables:
    """One grid of all. The transmission grid keeps its names, others bear theirs before a slash, perimeters too.

    Raises Refused with every fault: a bus that is not there, a name that stands twice, a source's bus of another
    rated voltage than the bus it joins, a distribution grid with several source buses.
    """
    refuse("The grids to be joined", _check(transmission, attachments))
    joined = {field.name: list(getattr(transmission, field.name)) for field in fields(GridTables)}
    for one in sorted(attachments, key=lambda a: a.name):
        own = prefixed(one.tables, one.name)
        border = own.sources[0].bus
        sources = {row.source for row in own.sources}
        for field in fields(GridTables):
            joined[field.name] += [row for row in getattr(own, field.name) if not _is_source(row, sources)]
        joined["switches"].append(Switch(f"{one.name}/interface", "bus", one.bus, border, True))
    return GridTables(**{name: tuple(rows) for name, rows in joined.items()})


def prefixed(tables: GridTables, name: str) -> GridTables:
    """The same grid with `name/` before every name of its own."""
    found: dict[str, tuple[Any, ...]] = {}
    for table, columns in _NAMES.items():
        found[table] = tuple(
            replace(row, **{column: f"{name}/{getattr(row, column)}" for column in columns})
            for row in getattr(tables, table)
        )
    found["buses"] = tuple(
        replace(bus, perimeter=f"{name}/{bus.perimeter}" if bus.perimeter else "") for bus in found["buses"]
    )
    return GridTables(**found)


def _is_source(row: Any, sources: set[str]) -> bool:
    """The source itself, and what it would have cost: the grid above answers for both now."""
    return getattr(row, "source", None) in sources or getattr(row, "element", None) in sources


def _check(transmission: GridTables, attachments: Sequence[Attachment]) -> list[Finding]:
    findings: list[Finding] = []
    vn_kv = {bus.bus: bus.vn_kv for bus in transmission.buses}
    own = {getattr(row, c[0]) for table, c in _NAMES.items() for row in getattr(transmission, table)}
    seen: set[str] = set()
    for one in attachments:
        place = f"attachment {one.name}"
        if one.name in seen or "/" in one.name or not one.name:
            message = "Each grid needs a name of its own, without a slash."
            findings.append(Finding(place, "named_twice", message))
        seen.add(one.name)
        if any(name.startswith(f"{one.name}/") for name in own):
            message = f"The transmission grid has names that begin with '{one.name}/'; choose another name."
            findings.append(Finding(place, "named_twice", message))
        if one.bus not in vn_kv:
            message = f"The transmission grid has no bus '{one.bus}'; name one of its buses."
            findings.append(Finding(place, "unknown_bus", message))
        borders = {row.bus for row in one.tables.sources}
        if len(borders) != 1:
            message = f"The grid has {len(borders)} source buses; it can be fed at one."
            findings.append(Finding(place, "several_sources", message))
            continue
        rated = {bus.bus: bus.vn_kv for bus in one.tables.buses}.get(next(iter(borders)))
        if one.bus in vn_kv and rated is not None and rated != vn_kv[one.bus]:
            message = f"Its source is at {rated:g} kV, the bus {one.bus} at {vn_kv[one.bus]:g} kV; choose another bus."
            findings.append(Finding(place, "voltages_joined", message))
    return findings
