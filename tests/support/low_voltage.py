"""A hand-made low-voltage grid of four-wire cables with loads on single phases, and the same in pandapower.

M -(20/0.4 kV, Dyn5)- B0 - B1 - B2 - B3
                            |
                            B4 - B5
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from coflex.domain.quantity import Floats
from coflex.grid.tables import Bus, Generator, GridTables, Line, Load, Source, Storage, Transformer

R, X, C, R0, X0, C0 = 0.206, 0.0805, 260.0, 0.83, 0.31, 150.0  # per km of a 150 mm2 aluminium cable
LENGTHS = {("B0", "B1"): 0.12, ("B1", "B2"): 0.15, ("B2", "B3"): 0.11, ("B1", "B4"): 0.09, ("B4", "B5"): 0.2}
# Bus, phase, MW, Mvar.
LOADS = (
    ("B1", "", 0.030, 0.006),
    ("B2", "a", 0.012, 0.003),
    ("B2", "b", 0.004, 0.001),
    ("B3", "a", 0.009, 0.002),
    ("B3", "c", 0.003, 0.0),
    ("B4", "b", 0.007, 0.002),
    ("B5", "c", 0.005, -0.001),
    ("B5", "a", 0.006, 0.002),
)


def four_wire(group: str = "Dyn5", shift: float = 150.0, zero: bool = True, vk0: float = 0.0) -> GridTables:
    """The grid; `zero`: zero sequence of its lines given or not."""
    names = ["M", "B0", "B1", "B2", "B3", "B4", "B5"]
    z0 = (R0, X0, C0) if zero else (0.0, 0.0, 0.0)
    lines = tuple(
        Line(f"{a}-{b}", a, b, km, R * km, X * km, C * km, 275.0, 100.0, *(value * km for value in z0))
        for (a, b), km in LENGTHS.items()
    )
    nameplate = (0.25, 20.0, 0.4, 4.0, 1.325, 0.6, 0.24, shift, "hv", 0, -2, 2, 2.5, 1, 100.0, group, vk0, 0.3 * vk0)
    return GridTables(
        buses=tuple(Bus(name, 20.0 if name == "M" else 0.4, 0.9, 1.1, 8.0, 50.0, name[0]) for name in names),
        lines=lines,
        transformers=(Transformer("T", "M", "B0", *nameplate),),
        switches=(),
        sources=(Source("above", "M", 1.02, 1000.0, 0.1),),
        loads=tuple(Load(f"load {bus}{f}", bus, p, q, "", "", f) for bus, f, p, q in LOADS),
        generators=(Generator("pv B5", "B5", 0.008, 0.0, "pv", "", 0.0, "b"),),
        storages=(Storage("battery B4", "B4", 0.01, 0.02, 0.95, 0.5),),
    )


def balanced(tables: GridTables) -> GridTables:
    """The same grid with every element on all three phases."""
    return replace(
        tables,
        loads=tuple(replace(row, phase="") for row in tables.loads),
        generators=tuple(replace(row, phase="") for row in tables.generators),
    )


def elements(tables: GridTables, scale: float = 1.0) -> tuple[Floats, Floats]:
    """Powers of all elements in one period, shape (k, 1), summed by hand."""
    rest = [0.0] * len(tables.storages)
    p = [-row.p_mw for row in tables.loads] + [row.p_mw for row in tables.generators] + rest
    q = [-row.q_mvar for row in tables.loads] + [row.q_mvar for row in tables.generators] + rest
    return scale * np.array(p)[:, None], scale * np.array(q)[:, None]


def pandapower_phases(tables: GridTables) -> Any:
    """The grid solved by pandapower's three-phase power flow, its source ideal."""
    import pandapower as pp

    net = pp.create_empty_network(f_hz=50.0)
    bus = {row.bus: pp.create_bus(net, row.vn_kv, name=row.bus) for row in tables.buses}
    source = tables.sources[0]
    strong = {"s_sc_max_mva": 1e9, "rx_max": 0.1, "r0x0_max": 0.1, "x0x_max": 1.0}
    pp.create_ext_grid(net, bus[source.bus], vm_pu=source.vm_pu, **strong)
    for row in tables.lines:
        zero = {"r0_ohm_per_km": row.r0_ohm, "x0_ohm_per_km": row.x0_ohm, "c0_nf_per_km": row.c0_nf}
        values = (1.0, row.r_ohm, row.x_ohm, row.c_nf, row.i_max_a / 1000)
        ends = bus[row.from_bus], bus[row.to_bus]
        pp.create_line_from_parameters(net, *ends, *values, name=row.line, **zero)
    for t in tables.transformers:
        values = (t.sn_mva, t.vn_hv_kv, t.vn_lv_kv, t.vkr_percent, t.vk_percent, t.pfe_kw, t.i0_percent)
        taps = {name: getattr(t, name) for name in ("tap_side", "tap_neutral", "tap_min", "tap_max", "tap_pos")}
        # Without zero sequence magnetising: its impedance is 1e8 times the leakage.
        zero = {"vk0_percent": t.vk0_percent, "vkr0_percent": t.vkr0_percent, "mag0_percent": 1e10, "mag0_rx": 0.0}
        pp.create_transformer_from_parameters(
            net,
            bus[t.hv_bus],
            bus[t.lv_bus],
            *values,
            shift_degree=t.shift_degree,
            tap_step_percent=t.tap_step_percent,
            tap_changer_type="Ratio",
            vector_group=t.vector_group.rstrip("0123456789"),
            si0_hv_partial=0.9,
            **taps,
            **zero,
        )
    injecting = [(row, -1.0) for row in tables.generators] + [(row, 1.0) for row in tables.loads]
    for element, sign in injecting:
        share = {f: sign * (1 / 3 if not element.phase else float(element.phase == f)) for f in "abc"}
        power = {f"p_{f}_mw": share[f] * element.p_mw for f in "abc"}
        power |= {f"q_{f}_mvar": share[f] * element.q_mvar for f in "abc"}
        pp.create_asymmetric_load(net, bus[element.bus], **power)
    pp.runpp_3ph(net, calculate_voltage_angles=True, tolerance_mva=1e-11, max_iteration=300, numba=False)
    return net
