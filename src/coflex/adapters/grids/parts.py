"""Parts of a grid that belong together: feeders as perimeters, and what no source reaches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import pi

from coflex.domain.errors import Finding
from coflex.grid.network import FREQUENCY_HZ
from coflex.grid.tables import Branch, GridTables, Line, Shunt, Transformer

Edge = Line | Transformer | Branch


def with_feeders(grid: GridTables) -> GridTables:
    """The same grid, each feeder a perimeter."""
    perimeter = feeders(grid)
    return replace(grid, buses=tuple(replace(bus, perimeter=perimeter[bus.bus]) for bus in grid.buses))


def feeders(grid: GridTables) -> dict[str, str]:
    """The feeder of each bus: F01, F02, ... in the order of their smallest bus name; empty for the substation's.

    The substation's busbars are all buses joined to a source or a side of a transformer through closed bus switches.
    Feeders are the connected parts of the rest, along closed switches, lines and branches closed at both ends.
    """
    joined = [(s.bus, s.element) for s in grid.switches if s.kind == "bus" and s.closed]
    buses = {bus.bus for bus in grid.buses}
    ends = {bus for row in grid.transformers for bus in (row.hv_bus, row.lv_bus)} | {s.bus for s in grid.sources}
    substation = {bus for part in parts(buses, joined) if ends & set(part) for bus in part}
    edges = joined + [pair for edge, pair in _closed(grid) if not isinstance(edge, Transformer)]
    outside = buses - substation
    found = parts(outside, [edge for edge in edges if outside.issuperset(edge)])
    names = {bus: f"F{number:02d}" for number, part in enumerate(found, start=1) for bus in part}
    return {bus: names.get(bus, "") for bus in sorted(buses)}


def parts(nodes: Iterable[str], edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Connected parts of a graph, each sorted by name, in the order of their smallest names."""
    neighbours: dict[str, list[str]] = {node: [] for node in nodes}
    for a, b in edges:
        neighbours[a].append(b)
        neighbours[b].append(a)
    seen: set[str] = set()
    found = []
    for node in sorted(neighbours, key=_natural):
        part, front = [], [node]
        while front:
            current = front.pop()
            if current not in seen:
                seen.add(current)
                part.append(current)
                front.extend(neighbours[current])
        if part:
            found.append(sorted(part, key=_natural))
    return found


def _natural(name: str) -> tuple[tuple[str, int], ...]:
    """Sorting key that counts numbers as numbers: bus 9 comes before bus 10."""
    return tuple((text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name))


def without_dead(grid: GridTables) -> tuple[GridTables, tuple[Finding, ...]]:
    """The grid without the parts that no source reaches and that carry no power, each named by a finding.

    A line that hangs from the rest with its far end in such a part becomes the shunt it is. Parts that carry power
    stay, and are refused where a network is built.
    """
    buses = {bus.bus for bus in grid.buses}
    joined = [(s.bus, s.element) for s in grid.switches if s.kind == "bus" and s.closed]
    sources = {source.bus for source in grid.sources}
    powered = {row.bus for row in grid.loads if row.p_mw or row.q_mvar} | {row.bus for row in grid.storages}
    powered |= {row.bus for row in grid.generators if row.p_mw or row.q_mvar or row.vm_pu}
    groups = parts(buses, joined + [pair for _, pair in _closed(grid)])
    dead = [group for group in groups if sources and not (sources | powered) & set(group)]
    gone = {bus for group in dead for bus in group}
    if not gone:
        return grid, ()
    notes = [Finding(f"buses.csv: bus {group[0]}", "not_fed", _not_fed(group)) for group in dead]
    kept = {edge for edge, pair in _ends(grid) if not gone & set(pair)}
    hanging = (open_end(grid, edge, pair) for edge, pair in _ends(grid) if len(gone & set(pair)) == 1)
    left = tuple(shunt for shunt in (*grid.shunts, *hanging) if shunt and shunt.bus not in gone)
    names = {_name(edge) for edge in kept} | (buses - gone)
    return (
        replace(
            grid,
            buses=tuple(row for row in grid.buses if row.bus not in gone),
            lines=tuple(row for row in grid.lines if row in kept),
            transformers=tuple(row for row in grid.transformers if row in kept),
            branches=tuple(row for row in grid.branches if row in kept),
            switches=tuple(row for row in grid.switches if row.bus not in gone and row.element in names),
            loads=tuple(row for row in grid.loads if row.bus not in gone),
            generators=tuple(row for row in grid.generators if row.bus not in gone),
            shunts=left,
        ),
        tuple(notes),
    )


def _not_fed(group: Sequence[str]) -> str:
    shown = ", ".join(group[:8]) + (f" and {len(group) - 8} more" if len(group) > 8 else "")
    return f"No closed path leads from a source to {shown}, where no power flows; left out. Close a switch to keep it."


def open_end(grid: GridTables, edge: Edge, pair: tuple[str, str]) -> Shunt | None:
    """What is left of a line whose one end is open: its capacitance as a shunt at the other. None where that is open
    too, or nothing is left."""
    live = [bus for bus in pair if _is_closed(grid, edge, bus)]
    if not isinstance(edge, Line) or not edge.c_nf or len(live) != 1:
        return None
    return charging(f"{edge.line} (open end)", live[0], edge, next(b.vn_kv for b in grid.buses if b.bus == live[0]))


def charging(name: str, bus: str, line: Line, vn_kv: float) -> Shunt:
    """A line that is open at its far end, as a shunt: half its capacitance near, the other half behind r + jx."""
    half = 1j * pi * FREQUENCY_HZ * line.c_nf * 1e-9
    power = vn_kv**2 * (half + half / (1 + half * complex(line.r_ohm, line.x_ohm)))
    return Shunt(name, bus, power.real, power.imag, step=1, step_max=1)


def _name(edge: Edge) -> str:
    return edge.line if isinstance(edge, Line) else edge.transformer if isinstance(edge, Transformer) else edge.branch


def _ends(grid: GridTables) -> list[tuple[Edge, tuple[str, str]]]:
    edges: list[tuple[Edge, tuple[str, str]]] = [(row, (row.from_bus, row.to_bus)) for row in grid.lines]
    edges += [(row, (row.hv_bus, row.lv_bus)) for row in grid.transformers]
    return edges + [(row, (row.from_bus, row.to_bus)) for row in grid.branches]


def _is_closed(grid: GridTables, edge: Edge, bus: str) -> bool:
    kind = type(edge).__name__.lower()
    return not any(s.kind == kind and s.element == _name(edge) and s.bus == bus and not s.closed for s in grid.switches)


def _closed(grid: GridTables) -> list[tuple[Edge, tuple[str, str]]]:
    """Lines, transformers and branches that are closed at both ends."""
    opened = {(s.kind, s.element) for s in grid.switches if not s.closed}
    return [(edge, pair) for edge, pair in _ends(grid) if (type(edge).__name__.lower(), _name(edge)) not in opened]
