"""Transmission cases that pandapower ships, as our tables: branches, shunts, generators that hold a voltage."""

from __future__ import annotations

from typing import Any

import numpy as np

from coflex.domain.quantity import Floats
from coflex.grid.network import Network
from coflex.grid.tables import Branch, Bus, Generator, GridTables, Load, Shunt, Source


def solved_net(case: str) -> Any:
    """A pandapower net, solved by pandapower."""
    import pandapower as pp
    import pandapower.networks as nw

    net = getattr(nw, case)()
    pp.runpp(net, calculate_voltage_angles=True, init="dc", tolerance_mva=1e-9, trafo_model="pi", numba=False)
    return net


def tables_of(net: Any) -> GridTables:
    """From the per-unit arrays that pandapower has made of a solved net; buses are named by their place there."""
    ppc = net._ppc
    bus, gen, branch, base = ppc["bus"].real, ppc["gen"].real, ppc["branch"].real, float(ppc["baseMVA"])
    reference = int(bus[bus[:, 1] == 3, 0][0])
    names = [str(int(row[0])) for row in bus]
    branches = tuple(
        Branch(f"b{k}", str(int(b[0])), str(int(b[1])), b[2], b[3], 0.0, b[4], b[8] or 1.0, b[9], base, 0.0, 100.0)
        for k, b in enumerate(branch)
    )
    held = [g for g in gen if int(g[0]) != reference]
    return GridTables(
        buses=tuple(Bus(name, row[9], 0.9, 1.1, 0.0, 0.0, "") for name, row in zip(names, bus, strict=True)),
        lines=(),
        transformers=(),
        switches=(),
        sources=tuple(Source("above", str(reference), g[5]) for g in gen if int(g[0]) == reference),
        loads=tuple(Load(f"l{name}", name, row[2], row[3], "", "") for name, row in zip(names, bus, strict=True)),
        generators=tuple(Generator(f"g{k}", str(int(g[0])), g[1], 0.0, "", "", g[5]) for k, g in enumerate(held)),
        storages=(),
        branches=branches,
        shunts=tuple(
            Shunt(f"s{name}", name, row[4], row[5], 1, 1)
            for name, row in zip(names, bus, strict=True)
            if row[4] or row[5]
        ),
    )


def voltages(net: Any) -> tuple[Floats, Floats]:
    """Magnitude in pu and angle in degrees of each row of pandapower's array of buses."""
    bus = net._ppc["bus"].real
    return np.asarray(bus[:, 7]), np.asarray(bus[:, 8])


def injections(tables: GridTables, network: Network) -> tuple[Floats, Floats]:
    """Node injections of one period, shape (1, n)."""
    p, q = np.zeros((1, network.n)), np.zeros((1, network.n))
    for load in tables.loads:
        p[0, network.node_of(load.bus)] -= load.p_mw
        q[0, network.node_of(load.bus)] -= load.q_mvar
    for unit in tables.generators:
        p[0, network.node_of(unit.bus)] += unit.p_mw
    return p, q
