"""Grids of foreign formats, solved by us and by the engine they come from."""

from __future__ import annotations

from typing import Any

import numpy as np

from coflex.grid.network import Complexes, Network, build
from coflex.grid.powerflow import GridState, solve
from coflex.grid.tables import GridTables


def solved(tables: GridTables) -> tuple[Network, GridState]:
    """The network of tables and its state at the powers they give."""
    network = build(tables)
    p, q = np.zeros((1, network.n)), np.zeros((1, network.n))
    for load in tables.loads:
        p[0, network.node_of(load.bus)] -= load.p_mw
        q[0, network.node_of(load.bus)] -= load.q_mvar
    for unit in tables.generators:
        p[0, network.node_of(unit.bus)] += unit.p_mw
        q[0, network.node_of(unit.bus)] += unit.q_mvar
    return network, solve(network, p, q)


def pandapower_voltages(net: Any, model: str = "pi") -> dict[str, complex]:
    """Complex voltage in pu of each bus by name, by pandapower; buses that it does not feed are absent."""
    import pandapower as pp

    options = {"tolerance_mva": 1e-9, "numba": False, "init": "dc", "calculate_voltage_angles": True}
    pp.runpp(net, trafo_model=model, **options)
    found = zip(net.bus.name, net.res_bus.vm_pu, net.res_bus.va_degree, strict=True)
    return {name: vm * np.exp(1j * np.radians(va)) for name, vm, va in found if vm == vm}


def apart(tables: GridTables, theirs: dict[str, complex]) -> float:
    """The largest distance in pu between our voltages and theirs, over all their buses; the source's angle counts as
    zero in both."""
    network, state = solved(tables)
    assert set(theirs) <= set(network.bus_names)
    reference = theirs[next(source.bus for source in tables.sources if source.bus in theirs)]
    turned: Complexes = state.u[0] * reference / abs(reference)
    return float(max(abs(turned[network.node_of(bus)] - u) for bus, u in theirs.items()))
