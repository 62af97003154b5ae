"""A pandapower net as coflex tables, exactly: both find the same voltages.

Source: L. Thurner et al., "pandapower - an Open Source Python Tool for Convenient Modeling, Analysis and Optimization
of Electric Power Systems", IEEE Trans. Power Syst. 33 (2018) 6510, DOI 10.1109/TPWRS.2018.2829021, and the pages of
its elements. What has no counterpart here and carries power is refused; nothing is dropped that a power flow would
feel. Transformers are pi two-ports here, as with pandapower's `trafo_model="pi"`; its own default is the T model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import hypot, pi, sqrt
from typing import Any, Literal

from coflex.adapters.grids import pandapower_transformers as wound
from coflex.adapters.grids.pandapower_costs import dispatch
from coflex.adapters.grids.pandapower_reading import Reading, number, reading, word
from coflex.adapters.grids.parts import charging, with_feeders, without_dead
from coflex.domain.errors import Finding, refuse
from coflex.grid.network import FREQUENCY_HZ
from coflex.grid.tables import Branch, Bus, Generator, GridTables, Line, Load, Shunt, Source, Storage, Switch

# EN 50160: the voltage stays within 10 % of the rated one; taken where a net gives no limits.
LIMITS_PU = 0.9, 1.1
# pandapower's own way to write that a line has no rating.
NO_RATING_KA = 99_999.0
# R/X of a switch with an impedance, pandapower's default.
SWITCH_RX = 2.0

_TECHNOLOGIES = (("hydro", "hydro"), ("wind", "wind"), ("biomass", "biomass"), ("pv", "pv"), ("res", "pv"))
_WITHOUT_TECHNOLOGY = ("", "wye", "delta", "none", "nan", "sync", "async")
_NOT_CONVERTED = (
    *("svc", "tcsc", "ssc", "vsc", "vsc_stacked", "vsc_bipolar", "b2b_vsc", "line_dc", "load_dc", "source_dc"),
    *("bus_dc", "trafo_asym"),
)


def tables_of(net: Any, model: Literal["pi", "t"] = "pi") -> tuple[GridTables, tuple[Finding, ...]]:
    """The tables of a pandapower net and what is worth knowing about them.

    Devices keep their names where these are given and unique; others are "<table> <index>". What is out of service
    stays outside. Every feeder is a perimeter. `model`: what a transformer's nameplate means, see
    `pandapower_transformers.transformers`. Raises Refused naming every element that has no counterpart here.
    """
    read = reading(net)
    stars, arms = wound.stars(read, model)
    transformers, odd = wound.transformers(read, model)
    lines, more, hanging = _lines(read)
    switches, bridges = _switches(read)
    ward_buses, ward_branches, ward_generators = _extended_wards(read)
    loads = (*_loads(read), *_motors(read), *_ward_loads(read), *_phases(read, "asymmetric_load"))
    storages, scheduled = _storages(read)
    generators = (*_generators(read), *_phase_generators(read), *_dc_lines(read), *ward_generators)
    branches = (*odd, *arms, *more, *bridges, *_impedances(read), *ward_branches)
    sources, shunts = _sources(read), (*hanging, *_shunts(read))
    dispatches, points = dispatch(read)
    _note_controls(read)
    refused = [Finding(f"net.{table}: {name}", *_REFUSED) for table in _NOT_CONVERTED for name in _active(net, table)]
    refuse("The pandapower net", [*read.faults, *refused])
    grid = GridTables(
        buses=(*_buses(read), *stars, *ward_buses),
        lines=lines,
        transformers=transformers,
        switches=switches,
        sources=sources,
        loads=(*loads, *(row for row in scheduled if isinstance(row, Load))),
        generators=(*generators, *(row for row in scheduled if isinstance(row, Generator))),
        storages=storages,
        branches=branches,
        shunts=shunts,
        dispatches=dispatches,
        cost_points=points,
    )
    fed, notes = without_dead(grid)
    return with_feeders(fed), tuple(sorted({*read.notes, *notes}))


_REFUSED = (
    "not_converted",
    "There is no such element here; replace it by loads, generators or branches, or switch it off.",
)


def _active(net: Any, table: str) -> list[str]:
    frame = net.get(table)
    if frame is None or not len(frame):
        return []
    return [f"{table} {row.Index}" for row in frame.itertuples() if getattr(row, "in_service", True)]


def _note_controls(read: Reading) -> None:
    frame = read.net.get("controller")
    if frame is not None and len(frame):
        message = f"{len(frame)} controllers do not act here; run them in pandapower first and save the result."
        read.notes.append(Finding("net.controller", "controllers", message))


# ---------------------------------------------------------------- buses


def _buses(read: Reading) -> tuple[Bus, ...]:
    """Limits that leave no band say at a held bus what is held there."""
    places = _places(read)
    held = {row.bus for table in ("ext_grid", "gen") for row, _ in read.rows(table)}
    found = []
    without = []
    for row, name in read.rows("bus"):
        low, high = number(row, "min_vm_pu", 0), number(row, "max_vm_pu", 0)
        if low <= 0 or high <= 0 or (low == high and row.Index in held):
            without.append(name)
            low = low if 0 < low < high else LIMITS_PU[0]
            high = high if high > low else LIMITS_PU[1]
        found.append(Bus(name, read.vn_kv[row.Index], low, high, *places.get(row.Index, (0.0, 0.0)), perimeter=""))
    if without:
        shown = ", ".join(without[:8]) + (f" and {len(without) - 8} more" if len(without) > 8 else "")
        message = f"No limits of voltage are given for {shown}; 0.9 to 1.1 pu are taken. Write min_vm_pu, max_vm_pu."
        read.notes.append(Finding("net.bus", "limits_assumed", message))
    return tuple(found)


def _places(read: Reading) -> dict[int, tuple[float, float]]:
    """Longitude and latitude, from the column geo (pandapower 3) or the table bus_geodata (older)."""
    places: dict[int, tuple[float, float]] = {}
    old = read.net.get("bus_geodata")
    if old is not None and len(old):
        places = {row.Index: (float(row.x), float(row.y)) for row in old.itertuples() if row.x == row.x}
    for row, _ in read.rows("bus"):
        if word(row, "geo"):
            longitude, latitude = json.loads(row.geo)["coordinates"][:2]
            places[row.Index] = float(longitude), float(latitude)
    return places


def _sources(read: Reading) -> tuple[Source, ...]:
    """External grids, and generators that are slack."""
    found = []
    angles = {}
    for row, name, bus in read.injections("ext_grid"):
        angles[name] = number(row, "va_degree", 0)
        short = number(row, "s_sc_max_mva", 0), number(row, "rx_max", 0)
        found.append(Source(name, bus, number(row, "vm_pu"), *short))
    for row, name, bus in read.injections("gen"):
        if getattr(row, "slack", False):
            angles[name] = 0.0
            found.append(Source(name, bus, number(row, "vm_pu")))
    for name, angle in angles.items():
        if angle != next(iter(angles.values())):
            message = "It holds another angle than the first source; power between them is not solved. Keep one."
            read.fault("ext_grid", name, "several_angles", message)
    return tuple(found)


# ---------------------------------------------------------------- branches


def _lines(read: Reading) -> tuple[tuple[Line, ...], tuple[Branch, ...], tuple[Shunt, ...]]:
    """Lines; those with a conductance or a negative impedance as branches, those with one dead end as shunts."""
    lines: list[Line] = []
    branches: list[Branch] = []
    hanging: list[Shunt] = []
    opened = {(row.element, row.bus) for row, _ in read.rows("switch") if row.et == "l" and not row.closed}
    for row, name in read.rows("line"):
        ends = [bus for bus in (row.from_bus, row.to_bus) if bus in read.buses]
        if not ends:
            continue
        line = _line(read, row, name)
        if len(ends) == 1:
            message = "The bus at its other end is out of service; it is the shunt that its capacitance makes it."
            read.note("line", name, "open_end", message)
            if (row.Index, ends[0]) not in opened:
                hanging.append(charging(f"{name} (open end)", read.buses[ends[0]], line, read.vn_kv[ends[0]]))
            continue
        leaky = number(row, "g_us_per_km", 0) * number(row, "length_km") * number(row, "parallel", 1) * 1e-6
        plain = not leaky and not (line.r_ohm < 0 or line.x_ohm < 0)
        read.joins["l", row.Index] = ("line" if plain else "branch", name)
        if plain:
            lines.append(line)
        else:
            branches.append(_line_as_branch(line, leaky, read.vn_kv[row.from_bus]))
    return tuple(lines), tuple(branches), tuple(hanging)


def _line(read: Reading, row: Any, name: str) -> Line:
    length, parallel = number(row, "length_km"), number(row, "parallel", 1)
    rating_ka = number(row, "max_i_ka", 0)
    # Capacitances hold for the net's frequency, ours for one of 50 Hz with the same susceptance.
    faster = read.net.f_hz / FREQUENCY_HZ
    return Line(
        line=name,
        from_bus=read.buses.get(row.from_bus, ""),
        to_bus=read.buses.get(row.to_bus, ""),
        length_km=length,
        r_ohm=number(row, "r_ohm_per_km") * length / parallel,
        x_ohm=number(row, "x_ohm_per_km") * length / parallel,
        c_nf=number(row, "c_nf_per_km", 0) * length * parallel * faster,
        i_max_a=rating_ka * 1000 * number(row, "df", 1) * parallel if rating_ka < NO_RATING_KA else 0.0,
        loading_max_percent=number(row, "max_loading_percent", 100),
        r0_ohm=number(row, "r0_ohm_per_km", 0) * length / parallel,
        x0_ohm=number(row, "x0_ohm_per_km", 0) * length / parallel,
        c0_nf=number(row, "c0_nf_per_km", 0) * length * parallel * faster,
    )


def _line_as_branch(line: Line, g_siemens: float, vn_kv: float) -> Branch:
    base_ohm = vn_kv**2
    susceptance = 2 * pi * FREQUENCY_HZ * line.c_nf * 1e-9
    rating = sqrt(3) * vn_kv * line.i_max_a / 1000
    series, shunt = (line.r_ohm / base_ohm, line.x_ohm / base_ohm), (g_siemens * base_ohm, susceptance * base_ohm)
    ends = line.from_bus, line.to_bus
    return Branch(line.line, *ends, *series, *shunt, 1.0, 0.0, 1.0, rating, line.loading_max_percent)


def _switches(read: Reading) -> tuple[tuple[Switch, ...], tuple[Branch, ...]]:
    """Switches whose bus and element are there; one between buses with an impedance is a branch behind a switch."""
    switches: list[Switch] = []
    branches: list[Branch] = []
    for row, name in read.rows("switch"):
        if row.bus not in read.buses:
            continue
        bus, closed = read.buses[row.bus], bool(row.closed)
        if row.et != "b":
            key = ("t3", row.element, row.bus) if row.et == "t3" else (row.et, row.element)
            if key in read.joins:
                kind, element = read.joins[key]
                switches.append(Switch(name, kind, bus, element, closed))
        elif row.element in read.buses:
            other = read.buses[row.element]
            z_ohm = number(row, "z_ohm", 0)
            if z_ohm > 0:
                branches.append(_bridge(row, name, bus, other, z_ohm / read.vn_kv[row.bus] ** 2))
                switches.append(Switch(name, "branch", bus, branches[-1].branch, closed))
            else:
                switches.append(Switch(name, "bus", bus, other, closed))
    return tuple(switches), tuple(branches)


def _bridge(row: Any, name: str, bus: str, other: str, z_pu: float) -> Branch:
    share = hypot(1, SWITCH_RX)
    series = z_pu * SWITCH_RX / share, z_pu / share
    return Branch(f"{name} (contact)", bus, other, *series, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 100.0)


def _impedances(read: Reading) -> Iterator[Branch]:
    for row, name in read.rows("impedance"):
        if row.from_bus not in read.buses or row.to_bus not in read.buses:
            continue
        pairs = (("rft_pu", "rtf_pu"), ("xft_pu", "xtf_pu"), ("gf_pu", "gt_pu"), ("bf_pu", "bt_pu"))
        values = [(number(row, one, 0), number(row, two, 0)) for one, two in pairs]
        if any(one != two for one, two in values):
            message = "It differs from one end to the other; a branch is the same both ways. Give both one value."
            read.fault("impedance", name, "unequal_ends", message)
        (r, _), (x, _), (g, _), (b, _) = values
        ends = read.buses[row.from_bus], read.buses[row.to_bus]
        yield Branch(name, *ends, r, x, 2 * g, 2 * b, 1.0, 0.0, number(row, "sn_mva"), 0.0, 100.0)


# ---------------------------------------------------------------- what withdraws


def _loads(read: Reading) -> Iterator[Load]:
    for row, name, bus in read.injections("load"):
        scale = number(row, "scaling", 1)
        p, q = number(row, "p_mw") * scale, number(row, "q_mvar", 0) * scale
        if (p and number(row, "const_i_p_percent", 0)) or (q and number(row, "const_i_q_percent", 0)):
            message = "A share of it is of constant current, which no load is here; give it as power or impedance."
            read.fault("load", name, "constant_current", message)
        # The share of constant impedance is among the shunts.
        p *= 1 - number(row, "const_z_p_percent", 0) / 100
        q *= 1 - number(row, "const_z_q_percent", 0) / 100
        yield Load(name, bus, p, q, "", "")


def _motors(read: Reading) -> Iterator[Load]:
    for row, name, bus in read.injections("motor"):
        share = number(row, "loading_percent", 100) / 100 * number(row, "scaling", 1)
        p = number(row, "pn_mech_mw") / number(row, "efficiency_percent") * 100 * share
        yield Load(name, bus, p, sqrt((p / number(row, "cos_phi")) ** 2 - p**2), "", "")


def _ward_loads(read: Reading) -> Iterator[Load]:
    for table in ("ward", "xward"):
        for row, name, bus in read.injections(table):
            yield Load(name, bus, number(row, "ps_mw"), number(row, "qs_mvar"), "", "")


def _phases(read: Reading, table: str) -> Iterator[Load]:
    """One load a phase, where there is any on it."""
    for row, name, bus in read.injections(table):
        scale = number(row, "scaling", 1)
        if word(row, "type") == "delta":
            message = "It sits between phases; here its powers hold from each phase to earth."
            read.note(table, name, "between_phases", message)
        for phase in "abc":
            p, q = number(row, f"p_{phase}_mw", 0) * scale, number(row, f"q_{phase}_mvar", 0) * scale
            if p or q:
                yield Load(f"{name} {phase}", bus, p, q, "", "", phase)


def _shunts(read: Reading) -> Iterator[Shunt]:
    """Shunts, the constant impedance of wards and loads, and unequal ends of nothing else."""
    for row, name, bus in read.injections("shunt"):
        ratio = (read.vn_kv[row.bus] / number(row, "vn_kv", read.vn_kv[row.bus])) ** 2
        step = int(number(row, "step", 1))
        if getattr(row, "step_dependency_table", None):
            p, q = _shunt_step(read, row, name)
            yield Shunt(name, bus, p * ratio, -q * ratio, step=1, step_max=1)
        else:
            p, q = number(row, "p_mw") * ratio, -number(row, "q_mvar") * ratio
            yield Shunt(name, bus, p, q, step, max(step, int(number(row, "max_step", 1))))
    for table in ("ward", "xward"):
        for row, name, bus in read.injections(table):
            if row.pz_mw or row.qz_mvar:
                yield Shunt(f"{name} (impedance)", bus, number(row, "pz_mw"), -number(row, "qz_mvar"), 1, 1)
    for row, name, bus in read.injections("load"):
        scale = number(row, "scaling", 1) / 100
        p = number(row, "p_mw") * scale * number(row, "const_z_p_percent", 0)
        q = number(row, "q_mvar", 0) * scale * number(row, "const_z_q_percent", 0)
        if p or q:
            message = "Its share of constant impedance is a shunt here and follows no profile."
            read.note("load", name, "constant_impedance", message)
            yield Shunt(f"{name} (impedance)", bus, p, -q, step=1, step_max=1)


def _shunt_step(read: Reading, row: Any, name: str) -> tuple[float, float]:
    table = read.net.get("shunt_characteristic_table")
    if table is not None:
        here = (table.id_characteristic == row.id_characteristic_table) & (table.step == row.step)
        for entry in table[here].itertuples():
            return number(entry, "p_mw"), number(entry, "q_mvar")
    message = f"Its step {row.step} is not in net.shunt_characteristic_table; add it or clear step_dependency_table."
    read.fault("shunt", name, "no_characteristic", message)
    return 0.0, 0.0


# ---------------------------------------------------------------- what injects


def _generators(read: Reading) -> Iterator[Generator]:
    """Static generators, and generators that hold a voltage; those that are slack are sources."""
    for row, name, bus in read.injections("sgen"):
        scale = number(row, "scaling", 1)
        p, q = number(row, "p_mw") * scale, number(row, "q_mvar", 0) * scale
        yield Generator(name, bus, p, q, _technology(row), "")
    for row, name, bus in read.injections("gen"):
        if not getattr(row, "slack", False):
            p = number(row, "p_mw") * number(row, "scaling", 1)
            yield Generator(name, bus, p, 0.0, _technology(row), "", number(row, "vm_pu"))


def _technology(row: Any) -> str:
    kind = word(row, "type").lower()
    if kind in _WITHOUT_TECHNOLOGY:
        return ""
    return next((name for part, name in _TECHNOLOGIES if part in kind), kind)


def _phase_generators(read: Reading) -> Iterator[Generator]:
    for load in _phases(read, "asymmetric_sgen"):
        yield Generator(load.load, load.bus, load.p_mw, load.q_mvar, "", "", 0.0, load.phase)


def _storages(read: Reading) -> tuple[tuple[Storage, ...], tuple[Load | Generator, ...]]:
    """Storages, at rest here, and what they do in the net as a load or a generator beside each."""
    storages: list[Storage] = []
    scheduled: list[Load | Generator] = []
    for row, name, bus in read.injections("storage"):
        p, q = (number(row, column, 0) * number(row, "scaling", 1) for column in ("p_mw", "q_mvar"))
        limits = (number(row, column, 0) for column in ("sn_mva", "max_p_mw", "min_p_mw", "p_mw"))
        rated = next((abs(value) for value in limits if value), 0.0)
        energy = number(row, "max_e_mwh", 0)
        efficiency = number(row, "efficiency_percent", 100) / 100
        storages.append(Storage(name, bus, rated, energy, efficiency, number(row, "soc_percent", 0) / 100))
        if not energy or not rated:
            message = "It has no energy or no rated power, so it cannot be called; write max_e_mwh and sn_mva."
            read.note("storage", name, "no_energy", message)
        if p or q:
            message = "It rests here until called; what it does in the net stands beside it as a load or generator."
            read.note("storage", name, "scheduled", message)
            beside = f"{name} (schedule)"
            at_work = Generator(beside, bus, -p, -q, "storage", "") if p < 0 else Load(beside, bus, p, q, "", "")
            scheduled.append(at_work)
    return tuple(storages), tuple(scheduled)


def _dc_lines(read: Reading) -> Iterator[Generator]:
    """A line of direct current as the two generators that pandapower makes of it."""
    for row, name in read.rows("dcline"):
        if row.from_bus not in read.buses or row.to_bus not in read.buses:
            continue
        sent = abs(number(row, "p_mw"))
        received = sent * (1 - number(row, "loss_percent", 0) / 100) - number(row, "loss_mw", 0)
        at_from, at_to = (-sent, received) if number(row, "p_mw") > 0 else (received, -sent)
        read.note("dcline", name, "two_generators", "It is a generator at each end here; its power is fixed.")
        yield Generator(f"{name} from", read.buses[row.from_bus], at_from, 0.0, "", "", number(row, "vm_from_pu"))
        yield Generator(f"{name} to", read.buses[row.to_bus], at_to, 0.0, "", "", number(row, "vm_to_pu"))


def _extended_wards(read: Reading) -> tuple[tuple[Bus, ...], tuple[Branch, ...], tuple[Generator, ...]]:
    """What an extended ward has beyond a ward: a voltage held behind an impedance."""
    found = []
    for row, name, bus in read.injections("xward"):
        vn, inner = read.vn_kv[row.bus], f"{name} inner"
        series = number(row, "r_ohm") / vn**2, number(row, "x_ohm") / vn**2
        found.append(
            (
                Bus(inner, vn, *wound.STAR_LIMITS, 0.0, 0.0, perimeter=""),
                Branch(name, bus, inner, *series, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 100.0),
                Generator(f"{name} inner", inner, 0.0, 0.0, "", "", number(row, "vm_pu")),
            )
        )
    return tuple(one for one, _, _ in found), tuple(two for _, two, _ in found), tuple(three for *_, three in found)
