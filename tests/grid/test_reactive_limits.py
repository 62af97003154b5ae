"""Machines at their reactive limits, against pandapower's own enforcement."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandapower as pp
import pandapower.networks as nw
import pytest

from coflex.grid.network import build
from coflex.grid.powerflow import solve
from coflex.grid.reactive_limits import machine_mvar, reach, solve_within
from coflex.grid.tables import Dispatch
from support.transmission import injections, tables_of


@pytest.mark.spec("GRID-02")
@pytest.mark.parametrize(("case", "tight"), [("case14", 1.0), ("case57", 1.0), ("case30", 0.3), ("case118", 1.0)])
def test_pandapower_lets_the_same_machines_go(case: str, tight: float) -> None:
    net = getattr(nw, case)()
    net.gen["max_q_mvar"] *= tight
    net.gen["min_q_mvar"] *= tight
    pp.runpp(net, enforce_q_lims=True, calculate_voltage_angles=True, init="dc", trafo_model="pi", numba=False)
    expected = net.res_bus.vm_pu.copy()
    limit = {int(net._pd2ppc_lookups["bus"][g.bus]): (g.min_q_mvar, g.max_q_mvar) for g in net.gen.itertuples()}
    at = {int(net._pd2ppc_lookups["bus"][bus]): vm for bus, vm in expected.items()}
    # Solved once more without limits: pandapower's arrays then have every machine holding.
    pp.runpp(net, calculate_voltage_angles=True, init="dc", trafo_model="pi", numba=False)
    tables = tables_of(net)
    rows = tuple(
        Dispatch(g.generator, 0.0, 0.0, *limit[int(g.bus)], 0.0, 0.0, 0.0)
        for g in tables.generators
        if int(g.bus) in limit
    )
    tables = replace(tables, dispatches=rows)
    network = build(tables)
    p, q = injections(tables, network)
    state = solve_within(network, reach(tables, network), p, q)
    for bus, vm in at.items():
        assert state.vm[0, network.node_of(str(bus))] == pytest.approx(vm, abs=1e-6)


@pytest.mark.spec("GRID-02")
def test_no_machine_gives_more_than_it_can_and_those_within_still_hold() -> None:
    net = nw.case118()
    pp.runpp(net, numba=False)
    tables = tables_of(net)
    rows = tuple(Dispatch(g.generator, 0.0, 0.0, -30.0, 60.0, 0.0, 0.0, 0.0) for g in tables.generators)
    tables = replace(tables, dispatches=rows)
    network = build(tables)
    p, q = injections(tables, network)
    limits = reach(tables, network)
    free = machine_mvar(network, solve(network, p, q), q)
    assert ((free < limits.low) | (free > limits.high)).any()
    state = solve_within(network, limits, p, q)
    given = machine_mvar(network, state, q)[0]
    assert (given <= limits.high + 1e-5).all() and (given >= limits.low - 1e-5).all()
    inside = (given < limits.high - 1e-3) & (given > limits.low + 1e-3)
    off = state.vm[0, network.held] - network.held_vm
    assert inside.any() and np.abs(off)[inside].max() < 1e-8
    # One that gives all it can has too low a voltage, one that takes all it can too high a one.
    assert off[given > limits.high - 1e-4].max() <= 1e-8 and off[given < limits.low + 1e-4].min(initial=0.0) >= -1e-8
