"""From tables to a network: typed arrays, one node for all buses that closed switches join.

Every branch is the same two-port, in per unit of 1 MVA and the nodes' rated voltages:

    I_from = (y + s/2)/|t|^2 U_from - y/conj(t) U_to        y = 1/(r + jx), s = g + jb
    I_to   = (y + s/2) U_to         - y/t U_from            t = k exp(j theta), ideal transformer at the from side

A transformer's from side is its hv side. Impedances hold for the to side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from coflex.domain.errors import Finding, refuse
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid.tables import Branch, GridTables, Line, Shunt, Transformer

Complexes = NDArray[np.complex128]
FREQUENCY_HZ = 50.0


@dataclass(frozen=True, eq=False)
class Network:
    """A grid ready to compute. n nodes, m branches, k elements (loads, generators, storages).

    `node_of_bus[i]`: node of `bus_names[i]`; a node bears the name of its first bus. `v_min`, `v_max` in pu per
    node (the tightest of its buses). `rating_from`, `rating_to`: rated current in pu of 1 MVA and rated voltage;
    infinite where none is known; `loading_max`: allowed share of it. `from_on`, `to_on`: whether a branch is connected
    at that end. `node_shunt`: admittance to earth in pu. `held`: nodes whose voltage a generator holds at `held_vm`
    (PV nodes).
    """

    bus_names: tuple[str, ...]
    node_of_bus: Ints
    node_names: tuple[str, ...]
    node_perimeter: tuple[str, ...]
    vn_kv: Floats
    v_min: Floats
    v_max: Floats
    branch_names: tuple[str, ...]
    is_transformer: Bools
    from_node: Ints
    to_node: Ints
    from_on: Bools
    to_on: Bools
    y_series: Complexes
    y_shunt: Complexes
    tap: Complexes
    rating_from: Floats
    rating_to: Floats
    loading_max: Floats
    slack: int
    slack_vm_pu: float
    element_names: tuple[str, ...]
    element_node: Ints
    node_shunt: Complexes
    held: Ints
    held_vm: Floats

    @property
    def n(self) -> int:
        return len(self.node_names)

    @property
    def m(self) -> int:
        return len(self.branch_names)

    @cached_property
    def not_slack(self) -> Ints:
        """Nodes whose active power is given: all but the slack."""
        return np.delete(np.arange(self.n, dtype=np.int64), self.slack)

    @cached_property
    def pq(self) -> Ints:
        """Nodes whose active and reactive power are given and whose voltage is not."""
        return np.setdiff1d(self.not_slack, self.held)

    def node_of(self, bus: str) -> int:
        """The node that a bus became part of. Raises KeyError on an unknown bus."""
        return self._bus_index[bus]

    @cached_property
    def _bus_index(self) -> dict[str, int]:
        return {name: int(node) for name, node in zip(self.bus_names, self.node_of_bus, strict=True)}

    @cached_property
    def node_of_element(self) -> dict[str, int]:
        """Node of each load, generator and storage by name."""
        return {name: int(node) for name, node in zip(self.element_names, self.element_node, strict=True)}

    @cached_property
    def element_incidence(self) -> sparse.csr_array:
        """Shape (elements, nodes): element injections times this are node injections."""
        k = len(self.element_names)
        return sparse.csr_array((np.ones(k), (np.arange(k), self.element_node)), shape=(k, self.n))

    @cached_property
    def terminal_admittance(self) -> tuple[sparse.csr_array, sparse.csr_array]:
        """(Y_from, Y_to), each of shape (branches, nodes): terminal currents in pu are Y @ U."""
        y, half = self.y_series, self.y_shunt / 2
        both, only_from, only_to = self.from_on & self.to_on, self.from_on & ~self.to_on, ~self.from_on & self.to_on
        # A branch open at one end is its own shunt in series with y, in parallel with the near shunt.
        dangling = half + y * half / (y + half)
        ratio2 = np.abs(self.tap) ** 2
        ff = np.where(both, (y + half) / ratio2, np.where(only_from, dangling / ratio2, 0))
        tt = np.where(both, y + half, np.where(only_to, dangling, 0))
        ft = np.where(both, -y / np.conj(self.tap), 0)
        tf = np.where(both, -y / self.tap, 0)
        rows = np.arange(self.m)
        index = (np.r_[rows, rows], np.r_[self.from_node, self.to_node])
        shape = (self.m, self.n)
        return (
            sparse.csr_array((np.r_[ff, ft], index), shape=shape),
            sparse.csr_array((np.r_[tf, tt], index), shape=shape),
        )

    @cached_property
    def admittance(self) -> sparse.csr_array:
        """Node admittance matrix, shape (n, n), pu."""
        y_from, y_to = self.terminal_admittance
        rows = np.arange(self.m)
        ones = np.ones(self.m)
        c_from = sparse.csr_array((ones, (rows, self.from_node)), shape=(self.m, self.n))
        c_to = sparse.csr_array((ones, (rows, self.to_node)), shape=(self.m, self.n))
        to_earth = sparse.diags_array(self.node_shunt)
        return sparse.csr_array(c_from.T @ y_from + c_to.T @ y_to + to_earth)


def build(tables: GridTables) -> Network:
    """A network from tables. Raises Refused with every fault of the tables at once, each with its place."""
    refuse("The grid", check(tables))
    nodes, names = _fuse(tables)
    first = {name: i for i, name in reversed(list(enumerate(names)))}
    buses = tables.buses
    bus_node = {bus.bus: nodes[i] for i, bus in enumerate(buses)}
    node_of_bus = np.array(nodes, dtype=np.int64)
    v_min, v_max = np.zeros(len(names)), np.full(len(names), np.inf)
    np.maximum.at(v_min, node_of_bus, [bus.v_min_pu for bus in buses])
    np.minimum.at(v_max, node_of_bus, [bus.v_max_pu for bus in buses])
    vn = np.zeros(len(names))
    vn[node_of_bus] = [bus.vn_kv for bus in buses]
    perimeter = {nodes[i]: bus.perimeter for i, bus in enumerate(buses) if bus.perimeter}
    branches = [_line(line, bus_node, vn) for line in tables.lines]
    branches += [_transformer(t, bus_node, vn) for t in tables.transformers]
    branches += [_branch(b, bus_node) for b in tables.branches]
    closed = _branch_ends(tables)
    columns: list[tuple[Any, ...]] = list(zip(*branches, strict=True)) if branches else [()] * 9
    elements = _elements(tables)
    held = _held(tables, bus_node)
    return Network(
        bus_names=tuple(bus.bus for bus in buses),
        node_of_bus=node_of_bus,
        node_names=tuple(sorted(first, key=first.__getitem__)),
        node_perimeter=tuple(perimeter.get(i, "") for i in range(len(names))),
        vn_kv=vn,
        v_min=v_min,
        v_max=v_max,
        branch_names=tuple(columns[0]),
        is_transformer=_transforms(tables, branches, vn),
        from_node=np.array(columns[1], dtype=np.int64),
        to_node=np.array(columns[2], dtype=np.int64),
        from_on=np.array([on for on, _ in closed], dtype=np.bool_),
        to_on=np.array([on for _, on in closed], dtype=np.bool_),
        y_series=np.array(columns[3], dtype=np.complex128),
        y_shunt=np.array(columns[4], dtype=np.complex128),
        tap=np.array(columns[5], dtype=np.complex128),
        rating_from=np.array(columns[6], dtype=np.float64),
        rating_to=np.array(columns[7], dtype=np.float64),
        loading_max=np.array(columns[8], dtype=np.float64),
        slack=bus_node[tables.sources[0].bus],
        slack_vm_pu=tables.sources[0].vm_pu,
        element_names=tuple(name for name, _ in elements),
        element_node=np.array([bus_node[bus] for _, bus in elements], dtype=np.int64),
        node_shunt=_to_earth(tables.shunts, bus_node, len(names)),
        held=np.array(sorted(held), dtype=np.int64),
        held_vm=np.array([held[node] for node in sorted(held)], dtype=np.float64),
    )


def moved(network: Network, tables: GridTables) -> Network:
    """The network of tables that differ from those it was built from in taps, steps and branch switches alone:
    the same nodes and branches, without reading all of it again. The tables are not checked."""
    bus_node = dict(zip(network.bus_names, network.node_of_bus.tolist(), strict=True))
    ends = np.array(_branch_ends(tables), dtype=np.bool_).reshape(-1, 2)
    first = len(tables.lines)
    y_series, y_shunt, tap = network.y_series.copy(), network.y_shunt.copy(), network.tap.copy()
    for k, row in enumerate(tables.transformers, start=first):
        _, _, _, y_series[k], y_shunt[k], tap[k], *_ = _transformer(row, bus_node, network.vn_kv)
    return replace(
        network,
        from_on=ends[:, 0],
        to_on=ends[:, 1],
        y_series=y_series,
        y_shunt=y_shunt,
        tap=tap,
        node_shunt=_to_earth(tables.shunts, bus_node, network.n),
    )


def check(tables: GridTables) -> tuple[Finding, ...]:
    """All faults of grid tables: names given twice, unknown buses, values that cannot be, islands, sources."""
    findings = [
        *_not_numbers(tables),
        *_twice(tables),
        *_unknown_buses(tables),
        *_impossible(tables),
        *_sources(tables),
    ]
    # What is joined and what is fed can only be told once every name is known.
    return tuple(findings or _topology(tables))


def _not_numbers(tables: GridTables) -> Iterator[Finding]:
    """Values that are missing or infinite, wherever a number must stand."""
    for table in fields(tables):
        for row in getattr(tables, table.name):
            values = [(one.name, getattr(row, one.name)) for one in fields(row)]
            for column, value in values:
                if isinstance(value, float) and not isfinite(value):
                    message = f"{column} is missing or infinite; give a number."
                    yield Finding(f"{table.name}.csv: {values[0][1]}", "not_a_number", message)


def _twice(tables: GridTables) -> Iterator[Finding]:
    kinds: tuple[tuple[str, Iterable[str]], ...] = (
        ("buses.csv", (row.bus for row in tables.buses)),
        ("lines.csv", (row.line for row in tables.lines)),
        ("transformers.csv", (row.transformer for row in tables.transformers)),
        ("branches.csv", (row.branch for row in tables.branches)),
        ("shunts.csv", (row.shunt for row in tables.shunts)),
        ("dispatches.csv", (row.element for row in tables.dispatches)),
        ("cost_points.csv", (row.point for row in tables.cost_points)),
        ("switches.csv", (row.switch for row in tables.switches)),
        ("sources.csv", (row.source for row in tables.sources)),
        ("loads.csv, generators.csv, storages.csv", (name for name, _ in _elements(tables))),
    )
    for place, names in kinds:
        for name, count in Counter(names).items():
            if count > 1:
                yield Finding(place, "named_twice", f"'{name}' is named {count} times; give each its own name.")


def _unknown_buses(tables: GridTables) -> Iterator[Finding]:
    known = {bus.bus for bus in tables.buses}
    elements: dict[str, set[str]] = {
        "bus": known,
        "line": {line.line for line in tables.lines},
        "transformer": {t.transformer for t in tables.transformers},
        "branch": {row.branch for row in tables.branches},
    }
    uses = [
        *((f"lines.csv: {r.line}", bus) for r in tables.lines for bus in (r.from_bus, r.to_bus)),
        *((f"transformers.csv: {r.transformer}", bus) for r in tables.transformers for bus in (r.hv_bus, r.lv_bus)),
        *((f"branches.csv: {r.branch}", bus) for r in tables.branches for bus in (r.from_bus, r.to_bus)),
        *((f"shunts.csv: {r.shunt}", r.bus) for r in tables.shunts),
        *((f"switches.csv: {r.switch}", r.bus) for r in tables.switches),
        *((f"sources.csv: {r.source}", r.bus) for r in tables.sources),
        *((f"loads.csv: {r.load}", r.bus) for r in tables.loads),
        *((f"generators.csv: {r.generator}", r.bus) for r in tables.generators),
        *((f"storages.csv: {r.storage}", r.bus) for r in tables.storages),
    ]
    for place, bus in uses:
        if bus not in known:
            yield Finding(place, "unknown_bus", f"There is no bus '{bus}'; add it to buses.csv or correct the name.")
    for row in tables.switches:
        if row.kind not in elements:
            yield Finding(
                f"switches.csv: {row.switch}", "unknown_kind", "A switch joins a bus, line, transformer or branch."
            )
        elif row.element not in elements[row.kind]:
            yield Finding(f"switches.csv: {row.switch}", "unknown_element", f"There is no {row.kind} '{row.element}'.")
    callable_names = {name for name, _ in _elements(tables)} | {row.source for row in tables.sources}
    for place, element in (
        *((f"dispatches.csv: {r.element}", r.element) for r in tables.dispatches),
        *((f"cost_points.csv: {r.point}", r.element) for r in tables.cost_points),
    ):
        if element not in callable_names:
            message = f"There is no source, generator, storage or load '{element}'; correct the name."
            yield Finding(place, "unknown_element", message)


def _sources(tables: GridTables) -> Iterator[Finding]:
    if not tables.sources:
        yield Finding("sources.csv", "no_source", "The grid has no source; name the bus that feeds it.")
    for source in tables.sources:
        if not 0.5 <= source.vm_pu <= 1.5:
            message = "A source holds between 0.5 and 1.5 pu."
            yield Finding(f"sources.csv: {source.source}", "impossible_value", message)
    held = {source.vm_pu for source in tables.sources}
    rated = {bus.vn_kv for bus in tables.buses if bus.bus in {source.bus for source in tables.sources}}
    if len(held) > 1 or len(rated) > 1:
        # Ideal sources of one voltage are one node; between different ones the angle, and so the flow, is not known.
        message = "Sources of several voltages are not solved together; keep one, or give them one voltage."
        yield Finding("sources.csv", "several_sources", message)


def _impossible(tables: GridTables) -> Iterator[Finding]:
    for bus in tables.buses:
        if not (bus.vn_kv > 0 and 0 < bus.v_min_pu <= bus.v_max_pu):
            message = "Rated voltage and limits must satisfy vn > 0 and 0 < v_min <= v_max."
            yield Finding(f"buses.csv: {bus.bus}", "impossible_value", message)
    for line in tables.lines:
        able = line.r_ohm >= 0 and line.x_ohm >= 0 and line.r_ohm + line.x_ohm > 0 and line.c_nf >= 0
        if not (able and line.i_max_a >= 0 and line.loading_max_percent > 0):
            message = "A line needs r, x, c and a rating of 0 or more and some impedance; else join buses by a switch."
            yield Finding(f"lines.csv: {line.line}", "impossible_value", message)
    for row in tables.transformers:
        ratings = (row.sn_mva, row.vn_hv_kv, row.vn_lv_kv, row.vk_percent, row.loading_max_percent)
        if min(ratings) <= 0 or not 0 <= row.vkr_percent <= row.vk_percent:
            message = "Ratings must be above 0 and 0 <= vkr <= vk."
            yield Finding(f"transformers.csv: {row.transformer}", "impossible_value", message)
        if row.tap_side not in ("hv", "lv") or not row.tap_min <= row.tap_pos <= row.tap_max:
            message = "The tap side is hv or lv and the position lies between tap_min and tap_max."
            yield Finding(f"transformers.csv: {row.transformer}", "impossible_tap", message)

    for branch in tables.branches:
        able = abs(complex(branch.r_pu, branch.x_pu)) > 0 and branch.ratio > 0 and branch.sn_mva > 0
        if not (able and branch.rating_mva >= 0 and branch.loading_max_percent > 0):
            message = "A branch needs an impedance, a ratio and a base above 0, and a rating of 0 or more."
            yield Finding(f"branches.csv: {branch.branch}", "impossible_value", message)
    for shunt in tables.shunts:
        if not 0 <= shunt.step <= shunt.step_max:
            message = "The steps switched in lie between 0 and step_max."
            yield Finding(f"shunts.csv: {shunt.shunt}", "impossible_value", message)
    yield from _impossible_dispatch(tables)


def _impossible_dispatch(tables: GridTables) -> Iterator[Finding]:
    for row in tables.dispatches:
        if row.p_min_mw > row.p_max_mw or row.q_min_mvar > row.q_max_mvar:
            message = "A lower limit lies above its upper one; exchange them."
            yield Finding(f"dispatches.csv: {row.element}", "impossible_value", message)
    held: dict[str, float] = {}
    for generator in tables.generators:
        if generator.vm_pu and not 0.5 <= generator.vm_pu <= 1.5:
            message = "A generator holds between 0.5 and 1.5 pu; 0 where it holds none."
            yield Finding(f"generators.csv: {generator.generator}", "impossible_value", message)
        if generator.vm_pu and held.setdefault(generator.bus, generator.vm_pu) != generator.vm_pu:
            message = f"Another generator at its bus holds {held[generator.bus]:g} pu; give both one voltage."
            yield Finding(f"generators.csv: {generator.generator}", "several_voltages", message)


def _topology(tables: GridTables) -> Iterator[Finding]:
    nodes, names = _fuse(tables)
    bus_node = {bus.bus: nodes[i] for i, bus in enumerate(tables.buses)}
    yield from _joined(tables, nodes, bus_node)
    yield from _islands(tables, nodes, names, bus_node, bus_node[tables.sources[0].bus])


def _joined(tables: GridTables, nodes: list[int], bus_node: dict[str, int]) -> Iterator[Finding]:
    """What joins that must not: different voltages by a switch or a line, the two ends of one branch."""
    vn: dict[int, float] = {}
    for i, bus in enumerate(tables.buses):
        if vn.setdefault(nodes[i], bus.vn_kv) != bus.vn_kv:
            message = f"It is joined by closed switches to a bus of {vn[nodes[i]]:g} kV."
            yield Finding(f"buses.csv: {bus.bus}", "voltages_joined", message)
    for line in tables.lines:
        ends = vn[bus_node[line.from_bus]], vn[bus_node[line.to_bus]]
        if ends[0] != ends[1]:
            message = f"A line joins buses of {ends[0]:g} and {ends[1]:g} kV; that takes a transformer."
            yield Finding(f"lines.csv: {line.line}", "voltages_joined", message)
    branches = [(f"lines.csv: {row.line}", row.from_bus, row.to_bus) for row in tables.lines]
    branches += [(f"transformers.csv: {row.transformer}", row.hv_bus, row.lv_bus) for row in tables.transformers]
    branches += [(f"branches.csv: {row.branch}", row.from_bus, row.to_bus) for row in tables.branches]
    for place, a, b in branches:
        if bus_node[a] == bus_node[b]:
            message = "Closed switches, or sources of one voltage, join its two ends; open one or take it out."
            yield Finding(place, "bypassed", message)


def _islands(
    tables: GridTables, nodes: list[int], names: list[str], bus_node: dict[str, int], slack: int
) -> Iterator[Finding]:
    ends = [(row.from_bus, row.to_bus) for row in tables.lines] + [(t.hv_bus, t.lv_bus) for t in tables.transformers]
    ends += [(row.from_bus, row.to_bus) for row in tables.branches]
    live = [pair for pair, (a, b) in zip(ends, _branch_ends(tables), strict=True) if a and b]
    edges = np.array([[bus_node[a], bus_node[b]] for a, b in live], dtype=np.int64).reshape(-1, 2)
    graph = sparse.coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(names), len(names)))
    _, component = csgraph.connected_components(graph, directed=False)
    fed = component[slack]
    islands: dict[int, list[str]] = {}
    for i, bus in enumerate(tables.buses):
        if component[nodes[i]] != fed:
            islands.setdefault(int(component[nodes[i]]), []).append(bus.bus)
    for members in islands.values():
        shown = ", ".join(members[:8]) + (f" and {len(members) - 8} more" if len(members) > 8 else "")
        message = f"No closed path leads from the source to {shown}; close a switch or take the island out."
        yield Finding(f"buses.csv: bus {members[0]}", "island", message)


def _fuse(tables: GridTables) -> tuple[list[int], list[str]]:
    """Node number of each bus, and the name (its first bus) of each node, in the order of the bus table. Closed
    switches join buses, and so do sources, which hold one voltage."""
    parent = {bus.bus: bus.bus for bus in tables.buses}

    def root(bus: str) -> str:
        while parent[bus] != bus:
            parent[bus] = parent[parent[bus]]
            bus = parent[bus]
        return bus

    for switch in tables.switches:
        # Names that do not exist are found elsewhere; here they join nothing.
        if switch.kind == "bus" and switch.closed and {switch.bus, switch.element} <= parent.keys():
            parent[root(switch.element)] = root(switch.bus)
    fed = [source.bus for source in tables.sources if source.bus in parent]
    for bus in fed[1:]:
        parent[root(bus)] = root(fed[0])
    number: dict[str, int] = {}
    names: list[str] = []
    nodes: list[int] = []
    for row in tables.buses:
        bus = row.bus
        key = root(bus)
        if key not in number:
            number[key] = len(names)
            names.append(bus)
        nodes.append(number[key])
    return nodes, names


def _branch_ends(tables: GridTables) -> list[tuple[bool, bool]]:
    """Whether each branch (lines, transformers, then branches) is connected at its from and its to end."""
    is_open = {(s.kind, s.element, s.bus) for s in tables.switches if not s.closed}
    lines = [
        (("line", r.line, r.from_bus) not in is_open, ("line", r.line, r.to_bus) not in is_open) for r in tables.lines
    ]
    transformers = [
        (
            ("transformer", r.transformer, r.hv_bus) not in is_open,
            ("transformer", r.transformer, r.lv_bus) not in is_open,
        )
        for r in tables.transformers
    ]
    branches = [
        (("branch", r.branch, r.from_bus) not in is_open, ("branch", r.branch, r.to_bus) not in is_open)
        for r in tables.branches
    ]
    return lines + transformers + branches


def _elements(tables: GridTables) -> list[tuple[str, str]]:
    """Name and bus of each load, generator and storage, in that order."""
    return [
        *((row.load, row.bus) for row in tables.loads),
        *((row.generator, row.bus) for row in tables.generators),
        *((row.storage, row.bus) for row in tables.storages),
    ]


_Branch = tuple[str, int, int, complex, complex, complex, float, float, float]


def _line(line: Line, node: dict[str, int], vn_kv: Floats) -> _Branch:
    a, b = node[line.from_bus], node[line.to_bus]
    base_ohm = vn_kv[b] ** 2  # 1 MVA
    z = complex(line.r_ohm, line.x_ohm) / base_ohm
    shunt = 2j * np.pi * FREQUENCY_HZ * line.c_nf * 1e-9 * base_ohm
    rating = line.i_max_a * 1e-3 * np.sqrt(3) * vn_kv[b] or np.inf
    return line.line, a, b, 1 / z, shunt, 1 + 0j, rating, rating, line.loading_max_percent / 100


def _transformer(row: Transformer, node: dict[str, int], vn_kv: Floats) -> _Branch:
    """The pi model: series impedance and iron losses from nameplate values, seen from the lv side."""
    a, b = node[row.hv_bus], node[row.lv_bus]
    step = 1 + (row.tap_pos - row.tap_neutral) * row.tap_step_percent / 100
    hv = row.vn_hv_kv * (step if row.tap_side == "hv" else 1)
    lv = row.vn_lv_kv * (step if row.tap_side == "lv" else 1)
    base = (lv / vn_kv[b]) ** 2 / row.sn_mva  # nameplate per unit -> pu of 1 MVA at the lv node
    z = complex(row.vkr_percent, np.sqrt(row.vk_percent**2 - row.vkr_percent**2)) / 100 * base
    iron = row.pfe_kw / 1000 / row.sn_mva
    magnetising = np.sqrt(max(0.0, (row.i0_percent / 100) ** 2 - iron**2))
    shunt = complex(iron, -magnetising) / base
    ratio = (hv / vn_kv[a]) / (lv / vn_kv[b])
    tap = ratio * np.exp(1j * np.deg2rad(row.shift_degree))
    rating_hv, rating_lv = row.sn_mva * vn_kv[a] / row.vn_hv_kv, row.sn_mva * vn_kv[b] / row.vn_lv_kv
    return row.transformer, a, b, 1 / z, shunt, tap, rating_hv, rating_lv, row.loading_max_percent / 100


def _branch(row: Branch, node: dict[str, int]) -> _Branch:
    z = complex(row.r_pu, row.x_pu) / row.sn_mva  # pu of sn_mva -> pu of 1 MVA
    shunt = complex(row.g_pu, row.b_pu) * row.sn_mva
    tap = row.ratio * np.exp(1j * np.deg2rad(row.shift_degree))
    rating = row.rating_mva or np.inf
    loading_max = row.loading_max_percent / 100
    return row.branch, node[row.from_bus], node[row.to_bus], 1 / z, shunt, tap, rating, rating, loading_max


def _transforms(tables: GridTables, branches: list[_Branch], vn_kv: Floats) -> Bools:
    """Transformers, and branches that change the voltage or its angle."""
    changes = [tap != 1 or vn_kv[a] != vn_kv[b] for _, a, b, _, _, tap, *_ in branches]
    named = np.arange(len(branches)) >= len(tables.lines)
    rows = np.arange(len(branches)) < len(tables.lines) + len(tables.transformers)
    return named & (rows | np.array(changes, dtype=np.bool_))


def _to_earth(shunts: tuple[Shunt, ...], node: dict[str, int], n: int) -> Complexes:
    """Admittance to earth of each node, pu of 1 MVA."""
    total = np.zeros(n, dtype=np.complex128)
    for row in shunts:
        total[node[row.bus]] += row.step * complex(row.p_mw, row.q_mvar)
    return total


def _held(tables: GridTables, node: dict[str, int]) -> dict[int, float]:
    """Nodes, other than the source's, at which generators hold the voltage, and how high."""
    slack = node[tables.sources[0].bus]
    return {node[row.bus]: row.vm_pu for row in tables.generators if row.vm_pu and node[row.bus] != slack}
