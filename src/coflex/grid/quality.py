"""Data that can be computed with but should not be trusted: findings, all at once, each with what to do.

`network.check` refuses what cannot be computed; here nothing is refused. Bounds are wide on purpose: they mean a slip
of unit or of a decimal point, not an unusual device. Sources of the bounds: EN 50160 (voltages), IEC 60038 (rated
voltages), IEC 60076-5 (short-circuit impedances), conductor tables of SimBench (DOI 10.3390/en13123290).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import hypot, sqrt
from statistics import median

from coflex.domain.errors import Finding
from coflex.grid.tables import Generator, GridTables, Line, Load, Transformer

# Codes that make results wrong rather than incomplete.
SEVERE = frozenset(
    {
        *("power_too_large", "power_too_small", "impedance_unusual", "vk_unusual", "size_unusual", "rating_unusual"),
        *("low_power_factor", "tap_outside", "limits_inverted", "setpoint_unusual", "rated_voltage_off", "unfed"),
    }
)

LOWEST_POWER_FACTOR = 0.6
# A power this many times what its lines and transformers carry is a slip of unit.
TOO_LARGE, TOO_SMALL = 5.0, 1e-4
LARGEST_AT_LOW_VOLTAGE_MW = 1.0
LOW_VOLTAGE_KV = 1.0
OHM_PER_KM = {"r": (1e-3, 20.0), "x": (5e-3, 2.0)}
LARGEST_R_TO_X, LARGEST_X_TO_R = 100.0, 50.0
OUTLIER = 30.0
RATING_A = 5.0, 10_000.0
VK_PERCENT = 1.0, 25.0
# Largest rated power by rated voltage of the low side, MVA.
LARGEST_MVA = ((1.0, 10.0), (50.0, 250.0), (float("inf"), 2_500.0))
TAP_RANGE_PERCENT = 30.0
LOOSE_PU, SETPOINT_PU = (0.8, 1.2), (0.9, 1.1)
RATED_OFF = 0.15
RATED_KV = (
    *(0.208, 0.23, 0.4, 0.416, 0.48, 0.69, 1.0, 3.0, 3.3, 4.16, 6.0, 6.6, 10.0, 11.0, 12.47, 13.8, 15.0, 16.5, 18.0),
    *(20.0, 22.0, 25.0, 27.0, 30.0, 33.0, 35.0, 45.0, 50.0, 60.0, 66.0, 69.0, 90.0, 110.0, 120.0, 132.0, 138.0, 150.0),
    *(161.0, 220.0, 230.0, 275.0, 330.0, 345.0, 380.0, 400.0, 500.0, 735.0, 765.0),
)


def quality(tables: GridTables) -> tuple[Finding, ...]:
    """Everything about the tables that should be looked at before they are trusted, sorted by place.

    The codes in `SEVERE` make results wrong. Tables that `network.check` refuses are looked at as far as they can be.
    """
    volts = {bus.bus: bus.vn_kv for bus in tables.buses}
    return tuple(
        sorted(
            {
                *_buses(tables),
                *_ratings(tables),
                *_lines(tables, volts),
                *_doubles(tables),
                *_transformers(tables, volts),
                *_powers(tables, volts),
                *_power_factors(tables),
                *_sources(tables),
                *_unfed(tables),
            }
        )
    )


def _listed(names: Iterable[str]) -> str:
    every = sorted(names)
    return ", ".join(every[:8]) + (f" and {len(every) - 8} more" if len(every) > 8 else "")


# ---------------------------------------------------------------- buses


def _buses(tables: GridTables) -> Iterator[Finding]:
    held = {row.bus for row in tables.loads} | {row.bus for row in tables.generators}
    held |= {row.bus for row in tables.storages} | {row.bus for row in tables.sources}
    joined = {bus for pair in _edges(tables).values() for bus in pair}
    joined |= {bus for s in tables.switches for bus in (s.bus, s.element if s.kind == "bus" else s.bus)}
    alone = [bus.bus for bus in tables.buses if bus.bus not in joined and bus.bus not in held]
    if alone:
        yield Finding("buses.csv", "bus_alone", f"Nothing is connected to {_listed(alone)}; connect or remove them.")
    customers = {row.bus for row in tables.loads} | {row.bus for row in tables.generators if not row.vm_pu}
    steady = {row.bus for row in tables.sources} | {row.bus for row in tables.generators if row.vm_pu}
    loose = []
    for bus in tables.buses:
        # Where a voltage is held, files often state it as both limits.
        if not (bus.v_min_pu < bus.v_max_pu or (bus.v_min_pu == bus.v_max_pu and bus.bus in steady)):
            message = f"v_min {bus.v_min_pu:g} pu is not below v_max {bus.v_max_pu:g} pu; exchange or correct them."
            yield Finding(f"buses.csv: {bus.bus}", "limits_inverted", message)
        elif bus.bus in customers and (bus.v_min_pu < LOOSE_PU[0] or bus.v_max_pu > LOOSE_PU[1]):
            loose.append(bus.bus)
    if loose:
        message = (
            f"Limits beyond 0.8 to 1.2 pu never bind at {_listed(loose)}; write those that customers are promised."
        )
        yield Finding("buses.csv", "limits_loose", message)
    odd = sorted({bus.vn_kv for bus in tables.buses if not any(abs(bus.vn_kv / kv - 1) <= 0.1 for kv in RATED_KV)})
    if odd:
        shown = _listed(f"{kv:g}" for kv in odd)
        message = f"{shown} kV are no usual rated voltages; check for volts written as kilovolts."
        yield Finding("buses.csv", "voltage_unusual", message)


def _sources(tables: GridTables) -> Iterator[Finding]:
    if len(tables.sources) > 1:
        names = _listed(source.source for source in tables.sources)
        message = f"{names} are held together as one; power between them is not seen. Keep one if they are apart."
        yield Finding("sources.csv", "several_sources", message)
    points = [(f"sources.csv: {row.source}", row.vm_pu) for row in tables.sources]
    points += [(f"generators.csv: {row.generator}", row.vm_pu) for row in tables.generators if row.vm_pu]
    for place, vm in points:
        if not SETPOINT_PU[0] <= vm <= SETPOINT_PU[1]:
            yield Finding(place, "setpoint_unusual", f"It holds {vm:g} pu; check the value and its rated voltage.")


# ---------------------------------------------------------------- lines


def _ratings(tables: GridTables) -> Iterator[Finding]:
    lines = [line.line for line in tables.lines if not line.i_max_a]
    branches = [branch.branch for branch in tables.branches if not branch.rating_mva]
    for place, names in (("lines.csv", lines), ("branches.csv", branches)):
        if names:
            message = f"No rating is known for {_listed(names)}; without one no overload is seen there. Add it."
            yield Finding(place, "no_rating", message)


def _lines(tables: GridTables, volts: Mapping[str, float]) -> Iterator[Finding]:
    short = [line.line for line in tables.lines if line.length_km <= 0]
    if short:
        yield Finding("lines.csv", "no_length", f"No length is given for {_listed(short)}; add it in kilometres.")
    typical: dict[float, float] = {}
    for level in {volts.get(line.from_bus, 0.0) for line in tables.lines}:
        each = [_per_km(line) for line in tables.lines if volts.get(line.from_bus, 0.0) == level and line.length_km > 0]
        if len(each) >= 5:
            typical[level] = median(each)
    for line in tables.lines:
        for reason in _odd_impedance(line, volts.get(line.from_bus, 0.0), typical):
            message = f"{reason}; check its length, its units and its type."
            yield Finding(f"lines.csv: {line.line}", "impedance_unusual", message)
        if line.i_max_a and not RATING_A[0] <= line.i_max_a <= RATING_A[1]:
            message = f"{line.i_max_a:g} A is no rating of a line; write amperes, or 0 where it is not known."
            yield Finding(f"lines.csv: {line.line}", "rating_unusual", message)


def _per_km(line: Line) -> float:
    return hypot(line.r_ohm, line.x_ohm) / line.length_km


def _odd_impedance(line: Line, vn_kv: float, typical: Mapping[float, float]) -> Iterator[str]:
    """The first reason not to believe a line's impedance, if there is one."""
    if line.length_km > 0:
        for part, ohm in (("r", line.r_ohm), ("x", line.x_ohm)):
            low, high = OHM_PER_KM[part]
            if not low <= ohm / line.length_km <= high:
                yield f"{part} of {ohm / line.length_km:.3g} ohm/km is outside {low:g} to {high:g}"
                return
        usual = typical.get(vn_kv)
        if usual and not 1 / OUTLIER <= _per_km(line) / usual <= OUTLIER:
            yield f"{_per_km(line):.3g} ohm/km stands among lines of {usual:.3g} ohm/km at {vn_kv:g} kV"
            return
    if line.r_ohm > LARGEST_R_TO_X * line.x_ohm or line.x_ohm > LARGEST_X_TO_R * line.r_ohm:
        yield f"r of {line.r_ohm:.3g} ohm does not go with x of {line.x_ohm:.3g} ohm"
        return
    drop = sqrt(3) * line.i_max_a / 1000 * hypot(line.r_ohm, line.x_ohm)
    if vn_kv and RATING_A[0] <= line.i_max_a <= RATING_A[1] and drop > vn_kv:
        yield f"At its rating it would lose {drop:.3g} kV of {vn_kv:g} kV"


def _doubles(tables: GridTables) -> Iterator[Finding]:
    """Lines given twice: the same ends and the same values."""
    groups: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for row in tables.lines:
        ends = frozenset((row.from_bus, row.to_bus))
        groups[ends, row.r_ohm, row.x_ohm, row.c_nf, row.length_km].append(row.line)
    for names in map(sorted, groups.values()):
        if len(names) > 1:
            message = f"It is the same as {_listed(names[1:])}; remove one unless they are parallel circuits."
            yield Finding(f"lines.csv: {names[0]}", "given_twice", message)


# ---------------------------------------------------------------- transformers


def _transformers(tables: GridTables, volts: Mapping[str, float]) -> Iterator[Finding]:
    for row in tables.transformers:
        for code, message in (*_nameplate(row), *_taps(row), *_against_buses(row, volts)):
            yield Finding(f"transformers.csv: {row.transformer}", code, message)


def _nameplate(row: Transformer) -> Iterator[tuple[str, str]]:
    if not VK_PERCENT[0] <= row.vk_percent <= VK_PERCENT[1]:
        message = f"vk of {row.vk_percent:.3g} % is outside 1 to 25 %; check it and the rated power it refers to."
        yield "vk_unusual", message
    largest = next(mva for kv, mva in LARGEST_MVA if min(row.vn_lv_kv, row.vn_hv_kv) <= kv)
    if row.sn_mva > largest:
        message = f"{row.sn_mva:g} MVA is too much at {row.vn_lv_kv:g} kV; check for kVA written as MVA."
        yield "size_unusual", message


def _taps(row: Transformer) -> Iterator[tuple[str, str]]:
    if not row.tap_min <= row.tap_pos <= row.tap_max:
        message = (
            f"Position {row.tap_pos} is outside {row.tap_min} to {row.tap_max}; correct the position or its range."
        )
        yield "tap_outside", message
    furthest = max(abs(end - row.tap_neutral) for end in (row.tap_min, row.tap_max)) * abs(row.tap_step_percent)
    if furthest > TAP_RANGE_PERCENT:
        message = f"Its tap changer reaches {furthest:.3g} %; check the step, its unit and the neutral position."
        yield "tap_range_unusual", message


def _against_buses(row: Transformer, volts: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    for bus, rated in ((row.hv_bus, row.vn_hv_kv), (row.lv_bus, row.vn_lv_kv)):
        vn = volts.get(bus, rated)
        if vn > 0 and abs(rated / vn - 1) > RATED_OFF:
            message = f"Its winding of {rated:g} kV stands at bus {bus} of {vn:g} kV; correct one of them."
            yield "rated_voltage_off", message


# ---------------------------------------------------------------- powers


def _powers(tables: GridTables, volts: Mapping[str, float]) -> Iterator[Finding]:
    carried = _carried(tables, volts)
    devices: list[tuple[str, str, Load | Generator]] = [(f"loads.csv: {row.load}", "Load", row) for row in tables.loads]
    devices += [(f"generators.csv: {row.generator}", "Generation", row) for row in tables.generators]
    for place, what, row in devices:
        size = hypot(row.p_mw, row.q_mvar)
        bound = TOO_LARGE * carried.get(row.bus, float("inf"))
        if 0 < volts.get(row.bus, 0.0) <= LOW_VOLTAGE_KV:
            bound = min(bound, LARGEST_AT_LOW_VOLTAGE_MW)
        if size > bound:
            unit = "W" if size > 1e4 * bound else "kW"
            message = f"{what} of {size:.3g} MVA is beyond what its bus can carry; check for {unit} written as MW."
            yield Finding(place, "power_too_large", message)
        if row.p_mw < 0 and what == "Load":
            message = f"It consumes {row.p_mw:g} MW; make it a generator, or turn its sign."
            yield Finding(place, "negative_load", message)
        elif row.p_mw < 0:
            message = f"It produces {row.p_mw:g} MW; make it a load, or turn its sign."
            yield Finding(place, "negative_generation", message)
    yield from _totals(tables)


def _totals(tables: GridTables) -> Iterator[Finding]:
    """All loads against all transformers: a grid is neither empty nor many times overloaded."""
    rated = sum(row.sn_mva for row in tables.transformers)
    total = sum(hypot(row.p_mw, row.q_mvar) for row in tables.loads)
    if rated and total > TOO_LARGE * rated:
        message = f"Loads of {total:.3g} MVA hang on transformers of {rated:.3g} MVA; check for kW or W written as MW."
        yield Finding("loads.csv", "power_too_large", message)
    elif rated and 0 < total < TOO_SMALL * rated:
        message = f"Loads of {total:.3g} MVA hang on transformers of {rated:.3g} MVA; write them in MW."
        yield Finding("loads.csv", "power_too_small", message)


def _carried(tables: GridTables, volts: Mapping[str, float]) -> dict[str, float]:
    """MVA that the lines and transformers at a bus carry; only where every one has a rating and no switch joins it."""
    carried: dict[str, float] = defaultdict(float)
    unknown = {bus for s in tables.switches if s.kind == "bus" for bus in (s.bus, s.element)}
    for line in tables.lines:
        for bus in (line.from_bus, line.to_bus):
            carried[bus] += sqrt(3) * volts.get(bus, 0.0) * line.i_max_a / 1000
            unknown |= set() if line.i_max_a else {bus}
    for row in tables.transformers:
        carried[row.hv_bus] += row.sn_mva
        carried[row.lv_bus] += row.sn_mva
    for branch in tables.branches:
        for bus in (branch.from_bus, branch.to_bus):
            carried[bus] += branch.rating_mva
            unknown |= set() if branch.rating_mva else {bus}
    # What stands at the source itself needs no line.
    unknown |= {source.bus for source in tables.sources}
    return {bus: mva for bus, mva in carried.items() if bus not in unknown}


def _power_factors(tables: GridTables) -> Iterator[Finding]:
    feeder = {bus.bus: bus.perimeter for bus in tables.buses}
    p: dict[str, float] = defaultdict(float)
    q: dict[str, float] = defaultdict(float)
    for load in tables.loads:
        p[feeder.get(load.bus, "")] += load.p_mw
        q[feeder.get(load.bus, "")] += load.q_mvar
    for name in p:
        size = hypot(p[name], q[name])
        if size and abs(p[name]) / size < LOWEST_POWER_FACTOR:
            message = (
                f"Its loads have a power factor of {abs(p[name]) / size:.2f}; check the units of active and reactive."
            )
            yield Finding(f"loads.csv: {'perimeter ' + name if name else 'no perimeter'}", "low_power_factor", message)


# ---------------------------------------------------------------- what is fed


def _edges(tables: GridTables) -> dict[tuple[str, str], tuple[str, str]]:
    """Ends of every line, transformer and branch by (kind, name)."""
    edges = {("line", row.line): (row.from_bus, row.to_bus) for row in tables.lines}
    edges |= {("transformer", row.transformer): (row.hv_bus, row.lv_bus) for row in tables.transformers}
    return edges | {("branch", row.branch): (row.from_bus, row.to_bus) for row in tables.branches}


def _unfed(tables: GridTables) -> Iterator[Finding]:
    """Parts that no source reaches, and the open switches behind which they lie."""
    opened = {(s.kind, s.element) for s in tables.switches if not s.closed}
    edges = _edges(tables)
    live = [pair for key, pair in edges.items() if key not in opened]
    live += [(s.bus, s.element) for s in tables.switches if s.kind == "bus" and s.closed]
    part = _parts([bus.bus for bus in tables.buses], live)
    fed = {part[source.bus] for source in tables.sources if source.bus in part}
    members: dict[str, list[str]] = defaultdict(list)
    for bus in tables.buses:
        if part[bus.bus] not in fed:
            members[part[bus.bus]].append(bus.bus)
    for group in members.values():
        inside = set(group)
        doors = [
            s.switch
            for s in tables.switches
            if not s.closed and inside & {s.bus, *edges.get((s.kind, s.element), (s.element,))}
        ]
        way = f"close one of {_listed(doors)}" if doors else "no switch leads to it"
        message = f"No source reaches {_listed(group)}; {way}, or take it out."
        yield Finding(f"buses.csv: {min(group)}", "unfed", message)


def _parts(buses: Sequence[str], edges: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The connected part of each bus, named by one of its buses."""
    parent = {bus: bus for bus in buses}

    def root(bus: str) -> str:
        while parent[bus] != bus:
            parent[bus] = parent[parent[bus]]
            bus = parent[bus]
        return bus

    for a, b in edges:
        if a in parent and b in parent:
            parent[root(a)] = root(b)
    return {bus: root(bus) for bus in buses}
