"""Nodes that hold their voltage, shunts and per-unit branches, against pandapower on transmission cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coflex.domain.errors import GridFailure, Refused
from coflex.grid.network import build
from coflex.grid.powerflow import solve
from coflex.grid.sensitivity import FROM_END, INTERFACE, TO_END, VOLTAGE, Linearisation, Quantities
from coflex.grid.tables import Generator, Shunt
from support.small_grids import injections as small_injections
from support.small_grids import radial
from support.transmission import injections, solved_net, tables_of, voltages

CASES = ("case9", "case14", "case30", "case57", "case118", "case145", "case300")


@pytest.mark.spec("GRID-02")
@pytest.mark.parametrize("case", CASES)
def test_pandapower_finds_the_same_voltages_where_generators_hold_them(case: str) -> None:
    net = solved_net(case)
    tables = tables_of(net)
    network = build(tables)
    state = solve(network, *injections(tables, network))
    vm, va = voltages(net)
    angle = np.degrees(np.angle(state.u[0]))
    assert np.abs(state.vm[0] - vm).max() < 1e-8
    turned = (angle - va) - (angle - va)[network.slack]
    assert np.abs(turned).max() < 1e-6
    reference = net.res_ext_grid.p_mw.sum() + sum(net.res_gen.p_mw[net.gen.slack])
    at_slack = sum(g.p_mw for g in tables.generators if network.node_of(g.bus) == network.slack)
    loads = sum(load.p_mw for load in tables.loads if network.node_of(load.bus) == network.slack)
    assert state.interface_p_mw[0] == pytest.approx(reference + at_slack - loads, abs=1e-5)


@pytest.mark.spec("GRID-02")
def test_reactive_power_of_a_held_node_is_what_the_grid_asks_there() -> None:
    net = solved_net("case9")
    tables = tables_of(net)
    network = build(tables)
    state = solve(network, *injections(tables, network))
    given = injections(tables, network)[1][0]
    for g, q in zip(net.gen.itertuples(), net.res_gen.q_mvar, strict=True):
        node = network.node_of(str(net._pd2ppc_lookups["bus"][g.bus]))
        assert state.q_mvar[0, node] - given[node] == pytest.approx(q, abs=1e-5)


@pytest.mark.spec("GRID-02")
def test_many_states_at_once_are_the_states_one_by_one() -> None:
    tables = tables_of(solved_net("case14"))
    network = build(tables)
    p, q = injections(tables, network)
    scale = np.linspace(0.5, 1.2, 7)[:, None]
    together = solve(network, p * scale, q * scale)
    for t in range(7):
        alone = solve(network, p * scale[t], q * scale[t])
        assert np.abs(together.u[t] - alone.u[0]).max() < 1e-12


@pytest.mark.spec("MKT-06")
def test_sensitivities_keep_held_voltages_where_they_are() -> None:
    tables = tables_of(solved_net("case14"))
    network = build(tables)
    p, q = injections(tables, network)
    state = solve(network, p, q)
    kinds = [VOLTAGE] * len(network.pq) + [FROM_END] * network.m + [TO_END] * network.m + [INTERFACE]
    index = np.concatenate([network.pq, np.arange(network.m), np.arange(network.m), [0]])
    rated = replace(network, rating_from=np.full(network.m, 100.0), rating_to=np.full(network.m, 100.0))
    dp, dq = Linearisation(rated, state.u).sensitivities(Quantities(np.zeros(len(kinds), int), np.array(kinds), index))
    for node in (network.held[1], network.pq[2], network.pq[5]):
        for reactive, exact in ((False, dp), (True, dq)):
            ends = []
            for sign in (1, -1):
                moved_p, moved_q = p.copy(), q.copy()
                (moved_q if reactive else moved_p)[0, node] += sign * 1e-3
                s = solve(rated, moved_p, moved_q)
                ends.append(np.r_[s.vm[0, network.pq], s.loading_from[0], s.loading_to[0], s.interface_p_mw])
            assert np.abs(exact[:, node] - (ends[0] - ends[1]) / 2e-3).max() < 1e-6
    assert not dq[:, network.held].any()


@pytest.mark.spec("GRID-02")
def test_a_generator_that_holds_the_voltage_gives_the_reactive_power_that_does_so() -> None:
    tables = radial()
    holding = replace(tables, generators=(*tables.generators, Generator("g", "A3", 0.4, 0.0, "", "", 1.03)))
    network = build(holding)
    p, q = small_injections(holding, network)
    state = solve(network, p, q)
    node = network.node_of("A3")
    assert state.vm[0, node] == pytest.approx(1.03, abs=1e-9)
    # The same power given, the other engine (which holds no voltages) finds the same state.
    plain = build(tables)
    again = solve(plain, state.p_mw, state.q_mvar)
    assert np.abs(again.u - state.u).max() < 1e-8


@pytest.mark.spec("GRID-02")
def test_a_capacitor_bank_injects_with_the_square_of_the_voltage() -> None:
    tables = replace(radial(), shunts=(Shunt("bank", "A3", 0.02, 0.5, 2, 4),))
    network = build(tables)
    p, q = small_injections(tables, network)
    state = solve(network, p, q)
    node = network.node_of("A3")
    given = state.vm[0, node] ** 2 * 2 * np.array([-0.02, 0.5])
    p[0, node] += given[0]
    q[0, node] += given[1]
    assert np.abs(solve(build(radial()), p, q).u - state.u).max() < 1e-8
    # The Jacobian knows the bank too.
    change = solve(network, *(x + (np.arange(network.n) == node) * 1e-3 for x in small_injections(tables, network)))
    dp, dq = Linearisation(network, state.u).sensitivities(
        Quantities(np.zeros(1, int), np.array([VOLTAGE]), np.array([node]))
    )
    assert (change.vm[0, node] - state.vm[0, node]) / 1e-3 == pytest.approx(dp[0, node] + dq[0, node], rel=1e-3)


@pytest.mark.spec("GRID-02")
def test_a_load_beyond_the_grid_is_named_by_its_period() -> None:
    tables = tables_of(solved_net("case9"))
    network = build(tables)
    p, q = injections(tables, network)
    with pytest.raises(GridFailure, match="period 1 "):
        solve(network, np.concatenate([p, 30 * p]), np.concatenate([q, 30 * q]))


@pytest.mark.spec("GRID-01")
def test_two_voltages_for_one_bus_are_refused() -> None:
    tables = radial()
    both = (Generator("g1", "A3", 0.1, 0, "", "", 1.01), Generator("g2", "A3", 0.1, 0, "", "", 1.02))
    with pytest.raises(Refused) as refused:
        build(replace(tables, generators=both))
    assert [finding.code for finding in refused.value.findings] == ["several_voltages"]
