"""The optimal power flow against published objectives and prices, PYPOWER, and answers by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.errors import Refused
from coflex.grid.dispatch import dispatch
from coflex.grid.network import build
from coflex.grid.opf import OptimalFlow, called, dc_optimal_flow, optimal_flow
from coflex.grid.opf import given as injected
from coflex.grid.tables import CostPoint, GridTables, Load, Shunt
from support.ipopt_dispatch import ipopt_dispatch
from support.published_opf import of_arrays, published

# EUR/h of PGLib-OPF v21.07, BASELINE.md, to the digits printed there.
DC = {"case5_pjm": 1.7480e4, "case14_ieee": 2.0515e3}
AC = {"case3_lmbd": 5.8126e3, "case5_pjm": 1.7552e4, "case14_ieee": 2.1781e3}


def pandapower_case(name: str) -> tuple[Any, GridTables]:
    """A net of pandapower, and the arrays that it makes of it as tables."""
    import pandapower.networks as nw
    from pandapower.converter.pypower.to_ppc import to_ppc

    net = getattr(nw, name)()
    return net, of_arrays(to_ppc(net, init="flat", mode="opf", calculate_voltage_angles=True))


@pytest.mark.spec("GRID-13")
@pytest.mark.parametrize("case", DC)
def test_dc_objectives_are_those_that_were_published(case: str) -> None:
    flow = optimal_flow(published(case))
    assert flow.objective_eur_h[0] == pytest.approx(DC[case], rel=5e-5)
    assert flow.feasible.all()


@pytest.mark.spec("GRID-13")
def test_with_the_susceptance_of_the_published_model_the_three_bus_case_costs_as_published() -> None:
    # PowerModels takes x / (r^2 + x^2) where MATPOWER and we take 1 / x.
    tables = published("case3_lmbd")
    turned = tuple(replace(row, x_pu=(row.r_pu**2 + row.x_pu**2) / row.x_pu) for row in tables.branches)
    assert optimal_flow(replace(tables, branches=turned)).objective_eur_h[0] == pytest.approx(5.6959e3, rel=1e-5)


@pytest.mark.spec("GRID-13")
def test_dc_prices_of_the_pjm_case_are_those_that_were_published() -> None:
    # F. Li and R. Bo, "Small test systems for power system economic studies", IEEE PES GM (2010).
    flow = optimal_flow(published("case5_pjm"))
    assert flow.price[0] == pytest.approx([16.977, 26.384, 30.000, 39.943, 10.000], abs=5e-4)
    assert flow.binding == ((0, "loading 4-5"),)
    assert flow.energy[0] + flow.congestion[0] == pytest.approx(flow.price[0])


@pytest.mark.spec("GRID-13")
@pytest.mark.parametrize("case", AC)
def test_ac_objectives_are_those_that_were_published(case: str) -> None:
    flow = optimal_flow(published(case), "ac")
    assert flow.objective_eur_h[0] == pytest.approx(AC[case], rel=5e-5)
    assert flow.feasible.all() and (flow.loading <= 1.2).all()


@pytest.mark.spec("GRID-13")
def test_the_dispatch_of_the_three_bus_case_is_the_one_that_was_published() -> None:
    flow = optimal_flow(published("case3_lmbd"), "ac")
    assert flow.objective_eur_h[0] == pytest.approx(5812.64, abs=5e-3)
    assert flow.p_mw[0] == pytest.approx([148.07, 170.01, 0.0], abs=6e-3)
    assert flow.q_mvar[0] == pytest.approx([54.70, -8.79, -4.84], abs=6e-3)
    assert flow.vm[0] == pytest.approx([1.1, 0.926, 0.9], abs=6e-4)


@pytest.mark.spec("GRID-13")
@pytest.mark.parametrize("name", ["case9", "case30", "case39"])
def test_pandapower_finds_the_same_dc_objective(name: str) -> None:
    import pandapower as pp

    net, tables = pandapower_case(name)
    pp.rundcopp(net)
    assert optimal_flow(tables).objective_eur_h[0] == pytest.approx(net.res_cost, rel=1e-6)


@pytest.mark.spec("GRID-13")
@pytest.mark.parametrize("name", ["case9", "case30"])
def test_ipopt_finds_the_same_ac_objective_from_a_flat_start(name: str) -> None:
    _, tables = pandapower_case(name)
    network = build(tables)
    chosen, constant = called(tables, network)
    flow = optimal_flow(tables, "ac")
    flat = np.ones(network.n, dtype=np.complex128)
    other = ipopt_dispatch(network, injected(tables, network)[0], chosen, flat, voltages=True, apparent=True)
    assert other.solved and flow.feasible.all()
    assert flow.objective_eur_h[0] == pytest.approx(other.cost + constant, rel=1e-6)
    assert np.abs(flow.price[0] - other.price.real).max() < 0.01


@pytest.mark.spec("GRID-13")
def test_corners_of_cost_on_curved_limits_take_few_passes() -> None:
    """Without the second-order correction, steps along curved limits stay so short that passes run out."""
    _, tables = pandapower_case("case30")
    cost = ((0.0, 0.0), (12.0, 144.0), (36.0, 1008.0), (60.0, 2832.0), (100.0, 7000.0))
    points = tuple(
        CostPoint(f"{row.element} {i}", row.element, mw, eur * (1 + k / 10))
        for k, row in enumerate(tables.dispatches)
        for i, (mw, eur) in enumerate(cost)
    )
    tables = replace(tables, cost_points=points)
    network = build(tables)
    chosen, _ = called(tables, network)
    injection = injected(tables, network)
    begin = dc_optimal_flow(network, injection.real, chosen)
    start = begin.p_mw, begin.q_mvar
    answer = dispatch(network, injection.real, injection.imag, chosen, voltages=True, apparent=True, start=start)
    assert answer.feasible.all() and answer.passes[0] <= 20
    other = ipopt_dispatch(network, injection[0], chosen, answer.state.u[0], voltages=True, apparent=True)
    assert other.solved and answer.cost_eur_h[0] == pytest.approx(other.cost, rel=1e-6)


def congested() -> GridTables:
    """The PJM case with quadratic and piecewise costs and a phase shifter."""
    tables = published("case5_pjm")
    dispatches = tuple(
        replace(row, c2_eur_mw2h=0.01 * k) if row.element != "g3" else row for k, row in enumerate(tables.dispatches)
    )
    corners = (("a", 0.0, 0.0), ("b", 100.0, 2800.0), ("c", 300.0, 9500.0), ("d", 520.0, 18000.0))
    points = tuple(CostPoint(name, "g3", mw, cost) for name, mw, cost in corners)
    branches = tuple(replace(row, shift_degree=2.0) if row.branch == "1-4" else row for row in tables.branches)
    return replace(tables, dispatches=dispatches, cost_points=points, branches=branches)


def withdrawn(tables: GridTables, bus: str, mw: float) -> OptimalFlow:
    network = build(tables)
    chosen, constant = called(tables, network)
    p = injected(tables, network).real
    p[0, network.node_of(bus)] -= mw
    return dc_optimal_flow(network, p, chosen, constant)


@pytest.mark.spec("GRID-13")
@pytest.mark.parametrize("bus", ["1", "2", "3", "4", "5"])
def test_a_dc_price_is_the_change_of_cost_when_more_is_withdrawn(bus: str) -> None:
    tables = congested()
    whole = optimal_flow(tables)
    step = 0.01
    up, down = (withdrawn(tables, bus, sign * step).objective_eur_h[0] for sign in (1, -1))
    place = whole.node_names.index(bus)
    assert whole.price[0, place] == pytest.approx((up - down) / (2 * step), abs=1e-3)
    assert len(whole.binding) and len(set(np.round(whole.price[0], 3))) > 3


@pytest.mark.spec("GRID-13")
@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_scipy_finds_the_same_cost_with_distribution_factors(seed: int) -> None:
    from scipy.optimize import linprog

    rng = np.random.default_rng(seed)
    tables = published("case5_pjm")
    loads = tuple(replace(row, p_mw=row.p_mw * rng.uniform(0.5, 1.1)) for row in tables.loads)
    branches = tuple(replace(row, rating_mva=row.rating_mva * rng.uniform(0.8, 1.2)) for row in tables.branches)
    tables = replace(tables, loads=loads, branches=branches)
    flow = optimal_flow(tables)
    network = build(tables)
    # Factors by hand from the reactances, with bus 4 as the reference.
    b = np.array([1 / row.x_pu for row in tables.branches])
    ends = [(network.node_of(row.from_bus), network.node_of(row.to_bus)) for row in tables.branches]
    incidence = np.array([np.eye(5)[i] - np.eye(5)[j] for i, j in ends])
    factors = (b[:, None] * incidence) @ np.linalg.pinv(incidence.T @ (b[:, None] * incidence))
    rows = tables.dispatches
    at = np.array([np.eye(5)[network.node_of_element[row.element]] for row in rows])
    fixed = injected(tables, network).real[0]
    rating = np.array([row.rating_mva for row in branches])
    limits = np.concatenate([rating - factors @ fixed, rating + factors @ fixed])
    answer = linprog(
        [row.c1_eur_mwh for row in rows],
        A_ub=np.concatenate([factors @ at.T, -factors @ at.T]),
        b_ub=limits,
        A_eq=np.ones((1, len(rows))),
        b_eq=[-fixed.sum()],
        bounds=[(row.p_min_mw, row.p_max_mw) for row in rows],
    )
    assert (answer.status == 0) == bool(flow.feasible[0])
    if answer.status == 0:
        assert flow.objective_eur_h[0] == pytest.approx(answer.fun, rel=1e-8)


@pytest.mark.spec("GRID-13")
def test_a_shunt_s_conductance_is_a_load() -> None:
    tables = published("case5_pjm")
    shunt = replace(tables, shunts=(Shunt("s", "2", 10.0, 0.0, 2, 3),))
    load = replace(tables, loads=(*tables.loads, Load("s", "2", 20.0, 0.0, "", "")))
    found, other = optimal_flow(shunt), optimal_flow(load)
    assert found.objective_eur_h == pytest.approx(other.objective_eur_h) and found.price == pytest.approx(other.price)


@pytest.mark.spec("GRID-13")
def test_demand_that_nothing_covers_is_told_by_bus_with_what_binds() -> None:
    tables = published("case5_pjm")
    branches = tuple(replace(row, rating_mva=100.0) if "2" in row.branch else row for row in tables.branches)
    flow = optimal_flow(replace(tables, branches=branches))
    assert not flow.feasible[0]
    # Bus 2 has 300 MW of load and two lines of 100 MW each.
    assert flow.uncovered_mw[0] == pytest.approx([0.0, 100.0, 0.0, 0.0, 0.0], abs=1e-6)
    assert {"loading 1-2", "loading 2-3"} <= {name for _, name in flow.binding}
    assert flow.p_mw.sum() == pytest.approx(900.0)


@pytest.mark.spec("GRID-13")
def test_tables_without_a_dispatch_are_refused() -> None:
    with pytest.raises(Refused) as refused:
        optimal_flow(replace(published("case5_pjm"), dispatches=()))
    assert [finding.code for finding in refused.value.findings] == ["empty"]


@pytest.mark.spec("GRID-13")
def test_ac_prices_differ_from_dc_by_losses_and_both_name_the_same_line() -> None:
    dc, ac = (optimal_flow(published("case5_pjm"), model) for model in ("dc", "ac"))
    assert {name for _, name in ac.binding} == {name for _, name in dc.binding} == {"loading 4-5"}
    assert ac.objective_eur_h[0] > dc.objective_eur_h[0]
    assert ac.p_mw.sum() > dc.p_mw.sum() == pytest.approx(1000.0)
