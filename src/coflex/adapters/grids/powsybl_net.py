"""A network of PowSyBl (IIDM) as coflex tables.

Source: PowSyBl's documentation of its grid model, powsybl.readthedocs.io, "Network modeling". Values there are in ohm
and siemens, a transformer's seen from its side 2 behind an ideal transformer at side 1. Our two-port has its
admittance to earth half at each end, PowSyBl all of it at side 1 unless its load flow is told to split it
(`twt_split_shunt_admittance`); with that both find the same voltages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import hypot, isnan, pi, sqrt
from typing import Any, Literal

import numpy as np

from coflex.adapters.grids.pandapower_costs import UNLIMITED_MW
from coflex.adapters.grids.pandapower_net import LIMITS_PU
from coflex.adapters.grids.pandapower_transformers import STAR_LIMITS
from coflex.adapters.grids.parts import with_feeders, without_dead
from coflex.domain.errors import Finding, refuse
from coflex.grid.network import FREQUENCY_HZ
from coflex.grid.tables import (
    Branch,
    Bus,
    Dispatch,
    Generator,
    GridTables,
    Line,
    Load,
    Shunt,
    Source,
    Switch,
    Transformer,
)

Keys = Literal["name", "mrid"]
SIDES = ("1", "2", "3")
# What some writers put where there is no limit.
NO_LIMIT_A = 1e6
_SIDE_NAMES = {"ONE": "1", "TWO": "2", "THREE": "3", "NONE": "1", "": "1"}


@dataclass(frozen=True, eq=False)
class Reading:
    """A network under way to tables.

    `names`: name in our tables by PowSyBl's id, which is the CIM mRID. `vn_kv`, `merged`: rated voltage of each bus
    of the bus-breaker view, and the bus of the bus view it is part of. `limits[element, side]`: permanent limit in A.
    """

    network: Any
    names: Mapping[str, str]
    vn_kv: Mapping[str, float]
    merged: Mapping[str, str]
    limits: Mapping[tuple[str, str], float]
    lengths_km: Mapping[str, float]
    switches: list[Switch] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    faults: list[Finding] = field(default_factory=list)

    def rows(self, table: str) -> list[Any]:
        return _rows(self.network, table)

    def ends(self, row: Any, sides: Sequence[str], kind: str) -> tuple[str, ...]:
        """Ids of a branch's buses. An end that is not connected gets an open switch."""
        buses = tuple(str(getattr(row, f"bus_breaker_bus{side}_id")) for side in sides)
        name = self.names[row.id]
        for side, bus in zip(sides, buses, strict=True):
            if bus not in self.vn_kv:
                self.fault(row.id, "no_bus", f"Its end {side} stands at no bus; connect it or take it out.")
            elif not getattr(row, f"connected{side}"):
                element = name if len(sides) == 2 else f"{name} {side}"
                self.switches.append(Switch(f"{name} {side}", kind, self.names[bus], element, closed=False))
        return buses

    def note(self, key: str, code: str, message: str) -> None:
        self.notes.append(Finding(f"CGMES: {self.names.get(key, key)}", code, message))

    def fault(self, key: str, code: str, message: str) -> None:
        self.faults.append(Finding(f"CGMES: {self.names.get(key, key)}", code, message))


def tables_of(
    network: Any,
    priorities: Mapping[str, int] | None = None,
    reference_buses: Iterable[str] = (),
    lengths_km: Mapping[str, float] | None = None,
    keys: Keys = "name",
) -> tuple[GridTables, tuple[Finding, ...]]:
    """The tables of a pypowsybl network and what is worth knowing about them.

    `priorities`: reference priority by machine, 1 the highest; `reference_buses`: where a solved state has its angle;
    both choose the source, see `_slack`. `keys`: what devices are called: by name where it is given and unique and
    else by mRID, or always by mRID. Raises Refused naming every element that has no counterpart here.
    """
    read = _reading(network, lengths_km or {}, keys)
    lines, odd, charging = _lines(read)
    transformers, more = _transformers(read)
    stars, arms = _stars(read)
    slack = _slack(read, priorities or {}, tuple(reference_buses))
    boundary_buses, boundary_branches, boundary_loads, boundary_shunts = _boundary_lines(read)
    generators, dispatches = _generators(read, slack)
    generators += (*_batteries(read), *_compensators(read), *_boundary_generators(read))
    _refuse_dc(read)
    buses = (*_buses(read), *stars, *boundary_buses)
    grid = GridTables(
        buses=buses,
        lines=lines,
        transformers=transformers,
        switches=(*_switches(read), *read.switches),
        sources=_sources(read, slack),
        loads=(*_loads(read), *boundary_loads),
        generators=generators,
        storages=(),
        branches=(*odd, *more, *arms, *boundary_branches),
        shunts=(*_shunts(read), *charging, *boundary_shunts),
        dispatches=dispatches,
    )
    refuse("The CGMES network", read.faults)
    fed, notes = without_dead(grid)
    return with_feeders(fed), tuple(sorted({*read.notes, *notes}))


def _reading(network: Any, lengths_km: Mapping[str, float], keys: Keys) -> Reading:
    levels = {row.id: row.nominal_v for row in _rows(network, "voltage_levels")}
    buses = _rows(network, "bus_breaker_view_buses")
    limits: dict[tuple[str, str], float] = {}
    for row in network.get_operational_limits().reset_index().itertuples():
        if row.type == "CURRENT" and row.acceptable_duration == -1 and row.value < NO_LIMIT_A:
            key = row.element_id, _SIDE_NAMES[row.side]
            limits[key] = min(limits.get(key, np.inf), row.value)
    return Reading(
        network,
        names_of(network, keys),
        {row.id: levels[row.voltage_level_id] for row in buses},
        {row.id: row.bus_id for row in buses},
        limits,
        lengths_km,
    )


_POOLS = (
    ("bus_breaker_view_buses",),
    ("lines", "2_windings_transformers", "3_windings_transformers", "boundary_lines", "tie_lines"),
    ("switches",),
    ("loads", "generators", "batteries", "shunt_compensators", "static_var_compensators"),
)


def names_of(network: Any, keys: Keys) -> dict[str, str]:
    """What each bus and device is called in the tables, by its mRID."""
    names: dict[str, str] = {}
    for pool in _POOLS:
        rows = [(row.id, str(row.name).strip()) for table in pool for row in _rows(network, table)]
        count = Counter(name for _, name in rows)
        count.update(key for key, name in rows if key != name)
        names |= {key: name if keys == "name" and name and count[name] == 1 else key for key, name in rows}
    return names


def _rows(network: Any, table: str) -> list[Any]:
    """Rows of a table of pypowsybl as named tuples in the order of their ids."""
    frame = getattr(network, f"get_{table}")(all_attributes=True)
    return list(frame.sort_index().reset_index().itertuples(index=False))


# ---------------------------------------------------------------- buses


def _buses(read: Reading) -> tuple[Bus, ...]:
    levels = {row.id: row for row in read.rows("voltage_levels")}
    places = _places(read)
    found, without = [], []
    for row in read.rows("bus_breaker_view_buses"):
        level = levels[row.voltage_level_id]
        low, high = level.low_voltage_limit / level.nominal_v, level.high_voltage_limit / level.nominal_v
        if not low > 0 or not high > 0:
            without.append(level.id)
        limits = low if low > 0 else LIMITS_PU[0], high if high > 0 else LIMITS_PU[1]
        place = places.get(level.substation_id, (0.0, 0.0))
        found.append(Bus(read.names[row.id], level.nominal_v, *limits, *place, perimeter=""))
    if without:
        shown = ", ".join(sorted(set(without))[:8])
        message = f"Voltage levels such as {shown} have no limits; 0.9 to 1.1 pu are taken. Add VoltageLimits."
        read.notes.append(Finding("CGMES: VoltageLevel", "limits_assumed", message))
    return tuple(found)


def _places(read: Reading) -> dict[str, tuple[float, float]]:
    frame = read.network.get_extensions("substationPosition")
    return {key: (row.longitude, row.latitude) for key, row in frame.iterrows()}


def _switches(read: Reading) -> tuple[Switch, ...]:
    return tuple(
        Switch(
            read.names[row.id],
            "bus",
            read.names[row.bus_breaker_bus1_id],
            read.names[row.bus_breaker_bus2_id],
            closed=not row.open,
        )
        for row in read.rows("switches")
        if row.bus_breaker_bus1_id in read.vn_kv and row.bus_breaker_bus2_id in read.vn_kv
    )


# ---------------------------------------------------------------- the source


def _slack(read: Reading, priorities: Mapping[str, int], reference_buses: tuple[str, ...]) -> Any:
    """The machine that is the source: the one of the highest reference priority; else one that stands where the
    solved state has its angle; else, with a note, the one of the highest voltage, then the largest."""
    machines = [row for row in read.rows("generators") if row.connected and row.bus_breaker_bus_id in read.vn_kv]
    holding = [row for row in machines if row.voltage_regulator_on] or machines
    if not holding:
        message = "There is no generator or external injection to feed it; add one, or its SSH profile."
        read.faults.append(Finding("CGMES", "no_source", message))
        return None
    ranked = [row for row in machines if priorities.get(row.id, 0) > 0]
    if ranked:
        return min(ranked, key=lambda row: (priorities[row.id], row.id))
    terminal = read.network.get_extensions("slackTerminal")
    marked = {*reference_buses, *(terminal["bus_id"] if len(terminal) else ())}
    there = [row for row in holding if {row.bus_breaker_bus_id, row.bus_id} & marked]
    largest = max(there or holding, key=lambda row: (read.vn_kv[row.bus_breaker_bus_id], _finite(row.max_p), row.id))
    reason = "the solved state has its angle there" if there else "it has the highest voltage and is the largest there"
    message = (
        f"No machine has a reference priority; the source is {read.names[largest.id]} at bus "
        f"{read.names[largest.bus_breaker_bus_id]}, as {reason}. Write referencePriority to choose another."
    )
    read.note(largest.id, "slack_chosen", message)
    return largest


def _finite(value: float, default: float = UNLIMITED_MW) -> float:
    return max(-default, min(default, value)) if not isnan(value) else default


def _sources(read: Reading, slack: Any) -> tuple[Source, ...]:
    if slack is None:
        return ()
    bus = slack.bus_breaker_bus_id
    held = slack.target_v / read.vn_kv[bus] if slack.voltage_regulator_on else 1.0
    if not slack.voltage_regulator_on:
        read.note(slack.id, "voltage_assumed", "The source holds no voltage; 1 pu is taken. Let it regulate.")
    return (Source(read.names[slack.id], read.names[bus], held),)


# ---------------------------------------------------------------- lines


def _lines(read: Reading) -> tuple[tuple[Line, ...], tuple[Branch, ...], tuple[Shunt, ...]]:
    """Lines; others as branches, and what one end has more to earth than the other as a shunt there."""
    lines: list[Line] = []
    branches: list[Branch] = []
    shunts: list[Shunt] = []
    for row in read.rows("lines"):
        buses = [str(getattr(row, f"bus_breaker_bus{side}_id")) for side in "12"]
        if not row.r and not row.x:
            message = "It has no impedance and is a switch here; give it one if it is a line."
            read.note(row.id, "no_impedance", message)
            closed = bool(row.connected1 and row.connected2)
            one, two = (read.names.get(bus, "") for bus in buses)
            read.switches.append(Switch(read.names[row.id], "bus", one, two, closed))
            continue
        volts = [read.vn_kv.get(bus, np.nan) for bus in buses]
        plain = volts[0] == volts[1] and not row.g1 and not row.g2 and row.b1 == row.b2 >= 0 and min(row.r, row.x) >= 0
        ends = read.ends(row, "12", "line" if plain else "branch")
        if plain:
            lines.append(_line(read, row, ends))
            continue
        branches.append(_line_branch(read, row, ends))
        more = complex(row.g2 - row.g1, row.b2 - row.b1) * volts[1] ** 2
        if more and not (row.connected1 and row.connected2):
            message = "It is open at one end and its admittance differs from end to end; give both ends one."
            read.fault(row.id, "unequal_ends", message)
        elif more:
            shunts.append(Shunt(f"{read.names[row.id]} (charging)", branches[-1].to_bus, more.real, more.imag, 1, 1))
    return tuple(lines), tuple(branches), tuple(shunts)


def _line(read: Reading, row: Any, ends: Sequence[str]) -> Line:
    return Line(
        line=read.names[row.id],
        from_bus=read.names.get(ends[0], ""),
        to_bus=read.names.get(ends[1], ""),
        length_km=read.lengths_km.get(row.id, 0.0),
        r_ohm=row.r,
        x_ohm=row.x,
        c_nf=(row.b1 + row.b2) / (2 * pi * FREQUENCY_HZ) * 1e9,
        i_max_a=_rating_a(read, row.id),
        loading_max_percent=100.0,
    )


def _rating_a(read: Reading, key: str) -> float:
    """The lower of both ends' limits; 0 where there is none."""
    return min((read.limits[key, side] for side in "12" if (key, side) in read.limits), default=0.0)


def _line_branch(read: Reading, row: Any, ends: Sequence[str]) -> Branch:
    """A line between rated voltages that differ, or with conductance: the same volts at both ends in kV."""
    vn = [read.vn_kv.get(bus, np.nan) for bus in ends]
    base = vn[1] ** 2
    shunt = 2 * row.g1 * base, 2 * row.b1 * base
    rating = sqrt(3) * vn[1] * _rating_a(read, row.id) / 1000
    names = read.names.get(ends[0], ""), read.names.get(ends[1], "")
    series = row.r / base, row.x / base
    return Branch(read.names[row.id], *names, *series, *shunt, vn[1] / vn[0], 0.0, 1.0, rating, 100.0)


# ---------------------------------------------------------------- transformers


def _transformers(read: Reading) -> tuple[tuple[Transformer, ...], tuple[Branch, ...]]:
    """Transformers with a rated power as nameplates with their tap changers, others as branches where they stand."""
    changers = {row.id: row for row in read.network.get_ratio_tap_changers().reset_index().itertuples()}
    turning = set(read.network.get_phase_tap_changers().index)
    steps = read.network.get_ratio_tap_changer_steps().reset_index()
    rows: list[Transformer] = []
    branches: list[Branch] = []
    for row in read.rows("2_windings_transformers"):
        sized = 0 < row.rated_s < 1e6
        impossible = row.x_at_current_tap < 0 or row.r_at_current_tap < 0
        nameplate = sized and not impossible and row.rated_u1 >= row.rated_u2
        ends = read.ends(row, "12", "transformer" if nameplate else "branch")
        if not nameplate:
            branches.append(_winding_branch(read, row, ends))
            if not sized:
                read.note(row.id, "no_rated_power", "It has no rated power; write ratedS to have its tap changer move.")
            continue
        tap = None
        if row.id in changers and row.id not in turning:
            tap = _tap(changers[row.id], steps[steps.id == row.id])
        if tap is None and (row.id in changers or row.id in turning):
            read.note(row.id, "tap_fixed", "Its tap changer turns angles or has uneven steps; it stays where it is.")
        rows.append(_nameplate(read, row, ends, tap))
    return tuple(rows), tuple(branches)


_Tap = tuple[str, int, int, int, float, int]


def _tap(row: Any, steps: Any) -> _Tap | None:
    """Side, neutral, lowest, highest, percent a step and position of a tap changer with even steps; else None.

    With the tap on side 1 the reciprocal of rho is linear and the impedance stays; with the tap on side 2 rho is, and
    the impedance grows with its square.
    """
    position = steps.position.to_numpy()
    rho = steps.rho.to_numpy()
    impedance, admittance = steps[["r", "x"]].to_numpy() / 100, steps[["g", "b"]].to_numpy() / 100
    for side, turns, grown in (("hv", 1 / rho, np.ones(len(rho))), ("lv", rho, rho**2)):
        fits = np.allclose(1 + impedance.T, grown, atol=1e-6) and np.allclose(1 + admittance.T, 1 / grown, atol=1e-6)
        if len(rho) < 2 or not fits:
            continue
        step = (turns[-1] - turns[0]) / (position[-1] - position[0])
        neutral = round(position[0] + (1 - turns[0]) / step) if step else 0
        if step and np.allclose(turns, 1 + (position - neutral) * step, atol=1e-9):
            return side, int(neutral), int(row.low_tap), int(row.high_tap), float(100 * step), int(row.tap)
    return None


def _nameplate(read: Reading, row: Any, ends: Sequence[str], tap: _Tap | None) -> Transformer:
    """Nameplate values; without a movable tap the whole ratio is one fixed step at the hv side."""
    if tap is None:
        r, x, g, b = (getattr(row, f"{part}_at_current_tap") for part in "rxgb")
        factor = row.rated_u2 / row.rated_u1 / row.rho
        percent = 100 * (factor - 1) if abs(factor - 1) > 1e-12 else 0.0
        tap = ("hv", 0, 1, 1, percent, 1) if percent else ("hv", 0, 0, 0, 0.0, 0)
    else:
        r, x, g, b = row.r, row.x, row.g, row.b
    base = row.rated_u2**2 / row.rated_s
    side, neutral, low, high, percent, position = tap
    rated = [row.rated_s / sqrt(3) / volts * 1000 for volts in (row.rated_u1, row.rated_u2)]
    shares = [
        read.limits[row.id, end] / full for end, full in zip("12", rated, strict=True) if (row.id, end) in read.limits
    ]
    if b > 0:
        read.note(row.id, "capacitive", "Its no-load current is capacitive, which is taken as inductive; check b.")
    return Transformer(
        transformer=read.names[row.id],
        hv_bus=read.names.get(ends[0], ""),
        lv_bus=read.names.get(ends[1], ""),
        sn_mva=row.rated_s,
        vn_hv_kv=row.rated_u1,
        vn_lv_kv=row.rated_u2,
        vk_percent=100 * hypot(r, x) / base,
        vkr_percent=100 * r / base,
        pfe_kw=1000 * g * row.rated_u2**2,
        i0_percent=100 * hypot(g, b) * base,
        shift_degree=-row.alpha,
        tap_side=side,
        tap_neutral=neutral,
        tap_min=low,
        tap_max=high,
        tap_step_percent=percent,
        tap_pos=position,
        loading_max_percent=100 * min(shares, default=1.0),
    )


def _winding_branch(read: Reading, row: Any, ends: Sequence[str]) -> Branch:
    vn = [read.vn_kv.get(bus, np.nan) for bus in ends]
    base = vn[1] ** 2
    r, x, g, b = (getattr(row, f"{part}_at_current_tap") for part in "rxgb")
    rating = sqrt(3) * min(
        (read.limits[row.id, s] * v / 1000 for s, v in zip("12", vn, strict=True) if (row.id, s) in read.limits),
        default=0.0,
    )
    names = read.names.get(ends[0], ""), read.names.get(ends[1], "")
    values = r / base, x / base, g * base, b * base, vn[1] / vn[0] / row.rho
    return Branch(read.names[row.id], *names, *values, -row.alpha, 1.0, rating, 100.0)


def _stars(read: Reading) -> tuple[tuple[Bus, ...], tuple[Branch, ...]]:
    """Transformers of three windings as a bus in the middle and an arm from each winding to it."""
    buses: list[Bus] = []
    branches: list[Branch] = []
    for row in read.rows("3_windings_transformers"):
        name, base = read.names[row.id], row.rated_u0**2
        ends = read.ends(row, SIDES, "branch")
        buses.append(Bus(f"{name} star", row.rated_u0, *STAR_LIMITS, 0.0, 0.0, perimeter=""))
        for side, bus in zip(SIDES, ends, strict=True):
            r, x, g, b = (getattr(row, f"{part}{side}_at_current_tap") for part in "rxgb")
            vn = read.vn_kv.get(bus, np.nan)
            rho, alpha = getattr(row, f"rho{side}"), getattr(row, f"alpha{side}")
            rating = sqrt(3) * vn * read.limits.get((row.id, side), 0.0) / 1000
            branches.append(
                Branch(
                    f"{name} {side}",
                    read.names.get(bus, ""),
                    f"{name} star",
                    *(r / base, x / base, g * base, b * base),
                    row.rated_u0 / vn / rho,
                    -alpha,
                    1.0,
                    rating,
                    100.0,
                )
            )
    return tuple(buses), tuple(branches)


_Boundary = tuple[tuple[Bus, ...], tuple[Branch, ...], tuple[Load, ...], tuple[Shunt, ...]]


def _boundary_lines(read: Reading) -> _Boundary:
    """Lines to other networks: a bus at the boundary with the exchange as a load. Two that make a tie line share it.
    Their admittance to earth is at the inner end."""
    buses: dict[str, Bus] = {}
    branches: list[Branch] = []
    loads: list[Load] = []
    shunts: list[Shunt] = []
    for row in read.rows("boundary_lines"):
        bus, name = row.bus_breaker_bus_id, read.names[row.id]
        if not row.connected or bus not in read.vn_kv:
            continue
        vn = read.vn_kv[bus]
        outer = f"{read.names.get(row.tie_line_id, row.tie_line_id) if row.paired else name} boundary"
        buses[outer] = Bus(outer, vn, *STAR_LIMITS, 0.0, 0.0, perimeter="")
        rating = sqrt(3) * vn * read.limits.get((row.id, "1"), 0.0) / 1000
        series = row.r / vn**2, row.x / vn**2
        branches.append(Branch(name, read.names[bus], outer, *series, 0.0, 0.0, 1.0, 0.0, 1.0, rating, 100.0))
        if row.g or row.b:
            shunts.append(Shunt(f"{name} (charging)", read.names[bus], row.g * vn**2, row.b * vn**2, 1, 1))
        if not row.paired:
            loads.append(Load(f"{name} exchange", outer, row.p0, row.q0, "", ""))
    return tuple(buses.values()), tuple(branches), tuple(loads), tuple(shunts)


# ---------------------------------------------------------------- what withdraws and injects


def _loads(read: Reading) -> tuple[Load, ...]:
    """Loads, but not those that PowSyBl puts where a solved state did not balance (SvInjection)."""
    found = []
    for row in read.rows("loads"):
        if not row.connected:
            continue
        bus = read.names[row.bus_breaker_bus_id]
        if row.type == "FICTITIOUS":
            message = (
                f"The solved state lacks {row.p0:.4g} MW and {row.q0:.4g} Mvar at bus {bus}, which is no load and left "
                "out; solve the model again where it was written."
            )
            read.note(row.id, "state_unbalanced", message)
        else:
            found.append(Load(read.names[row.id], bus, row.p0, row.q0, "", ""))
    return tuple(found)


def _shunts(read: Reading) -> tuple[Shunt, ...]:
    """Banks of equal sections; others whole, as they stand."""
    sections = read.network.get_linear_shunt_compensator_sections()
    found = []
    for row in read.rows("shunt_compensators"):
        if not row.connected:
            continue
        name, bus = read.names[row.id], row.bus_breaker_bus_id
        square = read.vn_kv[bus] ** 2
        if row.id in sections.index:
            each = sections.loc[row.id].fillna(0.0)
            steps = int(row.section_count), int(row.max_section_count)
            found.append(Shunt(name, read.names[bus], each.g_per_section * square, each.b_per_section * square, *steps))
        else:
            conductance = 0.0 if isnan(row.g) else row.g
            found.append(Shunt(name, read.names[bus], conductance * square, row.b * square, 1, 1))
    return tuple(found)


def _generators(read: Reading, slack: Any) -> tuple[tuple[Generator, ...], tuple[Dispatch, ...]]:
    """Machines other than the source, and how far each may be called."""
    found: list[Generator] = []
    limits: list[Dispatch] = []
    for row in read.rows("generators"):
        if not row.connected:
            continue
        name, bus = read.names[row.id], row.bus_breaker_bus_id
        q_low, q_high = -_finite(-row.min_q_at_target_p), _finite(row.max_q_at_target_p)
        limits.append(Dispatch(name, -_finite(-row.min_p), _finite(row.max_p), q_low, q_high, 0.0, 0.0, 0.0))
        if slack is not None and row.id == slack.id:
            continue
        held = _held(read, row, row.voltage_regulator_on)
        # What holds a voltage gives the reactive power that it takes.
        q = 0.0 if held or isnan(row.target_q) else row.target_q
        technology = "" if row.energy_source == "OTHER" else str(row.energy_source).lower()
        found.append(Generator(name, read.names[bus], row.target_p, q, technology, "", held))
    return tuple(found), tuple(limits)


def _held(read: Reading, row: Any, regulates: bool) -> float:
    """The voltage a machine holds at its own bus in pu; 0 where it holds none."""
    if not regulates:
        return 0.0
    bus, far = row.bus_breaker_bus_id, row.regulated_bus_breaker_bus_id
    if far in read.vn_kv and read.merged[far] != read.merged[bus]:
        message = f"It holds the voltage of bus {read.names[far]}; here it holds the same in pu at its own bus."
        read.note(row.id, "remote_voltage", message)
        return float(row.target_v / read.vn_kv[far])
    return float(row.target_v / read.vn_kv[bus])


def _batteries(read: Reading) -> tuple[Generator, ...]:
    return tuple(
        Generator(
            read.names[row.id], read.names[row.bus_breaker_bus_id], row.target_p, row.target_q, "storage", "", 0.0
        )
        for row in read.rows("batteries")
        if row.connected
    )


def _compensators(read: Reading) -> tuple[Generator, ...]:
    """Static var compensators: generators without active power."""
    found = []
    for row in read.rows("static_var_compensators"):
        if row.connected and row.regulation_mode in ("VOLTAGE", "REACTIVE_POWER"):
            name, bus = read.names[row.id], row.bus_breaker_bus_id
            holds = row.regulation_mode == "VOLTAGE"
            held = _held(read, row, holds)
            # PowSyBl counts the reactive power of a compensator as withdrawal.
            found.append(Generator(name, read.names[bus], 0.0, 0.0 if holds else -row.target_q, "", "", held))
    return tuple(found)


def _boundary_generators(read: Reading) -> tuple[Generator, ...]:
    """What is modelled as generation, rather than as an exchange, beyond a boundary line."""
    lines = {row.id: row for row in read.rows("boundary_lines") if row.connected and not row.paired}
    found = []
    for row in read.network.get_boundary_lines_generation().reset_index().itertuples():
        if row.id in lines:
            name, line = read.names[row.id], lines[row.id]
            held = row.target_v / read.vn_kv[line.bus_breaker_bus_id] if row.voltage_regulator_on else 0.0
            q = 0.0 if isnan(row.target_q) else row.target_q
            found.append(Generator(f"{name} generation", f"{name} boundary", row.target_p, q, "", "", held))
    return tuple(found)


def _refuse_dc(read: Reading) -> None:
    for table in ("lcc_converter_stations", "vsc_converter_stations"):
        for row in read.rows(table):
            message = "Direct current is not converted; replace its two ends by generators or loads."
            read.fault(row.id, "not_converted", message)
