"""Small hand-made grids: two MV feeders behind a transformer with an open ring, and the same with the ring closed.

H -(110/20 kV)- M0 = M1 - A1 - A2 - A3 ..open.. B3 - B2 - B1 - M0
                               |
                               A4
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coflex.domain.quantity import Floats
from coflex.grid.network import Network, build
from coflex.grid.powerflow import GridState, solve
from coflex.grid.tables import Bus, Generator, GridTables, Line, Load, Source, Storage, Switch, Transformer

R, X, C = 0.161, 0.117, 273.0  # ohm, ohm and nF per km of a 185 mm2 aluminium cable
LENGTHS = {
    ("M1", "A1"): 5.0,
    ("A1", "A2"): 4.0,
    ("A2", "A3"): 3.0,
    ("A2", "A4"): 2.0,
    ("M0", "B1"): 6.0,
    ("B1", "B2"): 5.0,
    ("B2", "B3"): 4.0,
    ("A3", "B3"): 2.0,
}
LOADS = {"A1": 0.9, "A2": 1.1, "A3": 1.3, "A4": 0.6, "B1": 1.0, "B2": 0.8, "B3": 1.2}


def line(a: str, b: str, km: float, i_max_a: float) -> Line:
    return Line(f"{a}-{b}", a, b, km, R * km, X * km, C * km, i_max_a, 100.0)


def radial(i_max_a: float = 300.0, v_min: float = 0.95, v_max: float = 1.05, sn_mva: float = 25.0) -> GridTables:
    """The feeder pair; line A3-B3 hangs from A3, open at B3."""
    names = ["H", "M0", "M1", *LOADS]
    buses = tuple(
        Bus(name, 110.0 if name == "H" else 20.0, v_min, v_max, 8.0, 50.0, name[0] if name in LOADS else "")
        for name in names
    )
    transformer = Transformer(
        "T", "H", "M0", sn_mva, 110.0, 20.0, 11.2, 0.276, 28.0, 0.071, 150.0, "hv", 0, -9, 9, 1.5, 1, 100.0
    )
    return GridTables(
        buses=buses,
        lines=tuple(line(a, b, km, i_max_a) for (a, b), km in LENGTHS.items()),
        transformers=(transformer,),
        switches=(Switch("coupler", "bus", "M0", "M1", True), Switch("ring", "line", "B3", "A3-B3", False)),
        sources=(Source("above", "H", 1.02),),
        loads=tuple(Load(f"load {bus}", bus, mw, 0.3 * mw, "", "") for bus, mw in LOADS.items()),
        generators=(Generator("pv A3", "A3", 1.0, 0.0, "pv", ""), Generator("pv B2", "B2", 1.5, -0.2, "pv", "")),
        storages=(Storage("battery A4", "A4", 0.5, 1.0, 0.95, 0.5),),
    )


def meshed(i_max_a: float = 300.0, v_min: float = 0.95, v_max: float = 1.05) -> GridTables:
    """The same with the ring closed."""
    tables = radial(i_max_a, v_min, v_max)
    return replace(tables, switches=tables.switches[:1])


def injections(
    tables: GridTables, network: Network, load: float = 1.0, generation: float = 1.0
) -> tuple[Floats, Floats]:
    """Node injections of one period with all loads and all generators scaled, shape (1, n), summed by hand."""
    p, q = np.zeros((1, network.n)), np.zeros((1, network.n))
    for row in tables.loads:
        p[0, network.node_of(row.bus)] -= load * row.p_mw
        q[0, network.node_of(row.bus)] -= load * row.q_mvar
    for unit in tables.generators:
        p[0, network.node_of(unit.bus)] += generation * unit.p_mw
        q[0, network.node_of(unit.bus)] += generation * unit.q_mvar
    return p, q


def solved(tables: GridTables, load: float = 1.0, generation: float = 1.0) -> tuple[Network, GridState]:
    network = build(tables)
    return network, solve(network, *injections(tables, network, load, generation))


def worst_margin(network: Network, state: GridState) -> float:
    """By how much the most broken limit is broken, negative if none is; the slack's own voltage left out."""
    pq = network.pq
    vm = state.vm[:, pq]
    return float(
        max(
            (vm - network.v_max[pq]).max(),
            (network.v_min[pq] - vm).max(),
            (state.loading - network.loading_max).max(),
        )
    )
