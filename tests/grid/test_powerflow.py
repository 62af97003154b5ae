"""Power flow against pandapower and against bookkeeping."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coflex.adapters.grids.simbench import SimbenchGrid, pandapower_of, read_simbench
from coflex.domain.errors import GridFailure
from coflex.grid import current, powerflow
from coflex.grid.injection import element_powers, node_injections
from coflex.grid.network import Network, build
from coflex.grid.powerflow import GridState, Method, mismatch, solve
from support import second_engine
from support.simbench_grids import net_of
from support.small_grids import injections, meshed, radial, solved

# Quarter-hours of the year 2016 (UTC): a winter night, a winter evening, a spring noon, a summer noon, an autumn dusk.
QUARTERS = (100, 1_560, 11_280, 17_760, 27_000)


@pytest.fixture(scope="module")
def network(urban: SimbenchGrid) -> Network:
    return build(urban.grid)


@pytest.fixture(scope="module")
def states(urban: SimbenchGrid, network: Network) -> GridState:
    """The five quarter-hours as they are, then with all injections doubled."""
    p, q = (node_injections(network, x)[list(QUARTERS)] for x in element_powers(urban.grid, urban.profiles))
    return solve(network, np.concatenate([p, 2 * p]), np.concatenate([q, 2 * q]))


@pytest.fixture(scope="module")
def net(grids: Path) -> Any:
    return net_of("1-MV-urban--0-sw", grids)


def load_net(net: Any, urban: SimbenchGrid, quarter: int, scale: float) -> None:
    """Put the year's own profiles on pandapower's loads and generators, by their profile columns."""
    for frame, pairs in (
        (net.load, (("p_mw", "_pload"), ("q_mvar", "_qload"))),
        (net.sgen, (("p_mw", "_res"), ("q_mvar", "_res"))),
    ):
        for column, suffix in pairs:
            if f"rated_{column}" not in frame:
                frame[f"rated_{column}"] = frame[column]
            share = [urban.profiles.row(f"{name}{suffix}")[quarter] for name in frame.profile]
            frame[column] = frame[f"rated_{column}"] * share * scale


@pytest.mark.spec("GRID-02")
@pytest.mark.parametrize("case", range(0, 10, 3))
def test_pandapower_finds_the_same_voltages_loadings_and_losses(
    urban: SimbenchGrid, network: Network, states: GridState, net: Any, case: int
) -> None:
    import pandapower as pp

    load_net(net, urban, QUARTERS[case % 5], 1.0 + case // 5)
    pp.runpp(net, trafo_model="pi", calculate_voltage_angles=True, tolerance_mva=1e-9, numba=False)
    assert np.abs(net.res_bus.vm_pu - states.vm[case, network.node_of_bus]).max() < 1e-8
    where = {name: i for i, name in enumerate(network.branch_names)}
    own = states.loading[case] * 100
    lines = own[[where[name] for name in net.line.name]]
    transformers = own[[where[name] for name in net.trafo.name]]
    connected = net.res_line.loading_percent.notna()
    assert connected.sum() >= 140
    assert np.abs(net.res_line.loading_percent - lines)[connected].max() < 1e-3
    assert np.abs(net.res_trafo.loading_percent - transformers).max() < 1e-3
    assert np.isclose(net.res_ext_grid.p_mw.sum(), states.interface_p_mw[case], atol=1e-6)
    assert np.isclose(net.res_ext_grid.q_mvar.sum(), states.interface_q_mvar[case], atol=1e-6)
    losses = net.res_line.pl_mw.sum() + net.res_trafo.pl_mw.sum()
    assert np.isclose(losses, states.losses_mw[case], atol=1e-6)


@pytest.mark.slow
@pytest.mark.spec("GRID-02")
@pytest.mark.parametrize("code", ["1-MV-rural--0-sw", "1-MV-comm--0-sw", "1-LV-rural1--0-sw", "1-LV-urban6--0-sw"])
def test_other_simbench_grids_agree_with_pandapower_to_1e_8(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads and generators at their rated power, three times as much, and half of it; both methods."""
    import pandapower as pp

    net = pandapower_of(code)
    # SimBench is slow to read; what it gives is read once and taken for both.
    monkeypatch.setattr("simbench.get_simbench_net", lambda _: deepcopy(net))
    tables = read_simbench(code).grid
    network = build(tables)
    net.storage["in_service"] = False
    rated = {"load": net.load[["p_mw", "q_mvar"]].copy(), "sgen": net.sgen[["p_mw", "q_mvar"]].copy()}
    scales = (1.0, 3.0, 0.5) if "MV" in code else (1.0, 1.5, 0.5)
    pairs = [injections(tables, network, scale, scale) for scale in scales]
    p, q = (np.concatenate(x) for x in zip(*pairs, strict=True))
    found = [solve(network, p, q, method) for method in Method]
    for t, scale in enumerate(scales):
        for kind, frame in rated.items():
            net[kind][["p_mw", "q_mvar"]] = scale * frame
        pp.runpp(net, trafo_model="pi", calculate_voltage_angles=True, tolerance_mva=1e-10, numba=False, init="dc")
        there = net.res_bus[net.bus.in_service.astype(bool)]
        for state in found:
            u = state.u[t, network.node_of_bus]
            assert np.abs(there.vm_pu - np.abs(u)).max() < 1e-8
            assert np.abs(np.exp(1j * np.radians(there.va_degree)) - u / np.abs(u)).max() < 1e-8


@pytest.mark.spec("GRID-02")
@pytest.mark.parametrize("stress", [0.5, 2.0, 4.5])
@pytest.mark.parametrize("tables", [radial(), meshed()], ids=["open ring", "closed ring"])
def test_iterative_current_finds_what_newton_finds(tables: Any, stress: float) -> None:
    network = build(tables)
    p, q = injections(tables, network, load=stress)
    exact, quick = (solve(network, p, q, method) for method in Method)
    assert np.abs(exact.u - quick.u).max() < 1e-8
    assert mismatch(network, quick.u, p, q).max() < 1e-8


@pytest.mark.spec("GRID-02")
def test_what_iterative_current_leaves_open_newton_solves(monkeypatch: pytest.MonkeyPatch) -> None:
    """With three steps the heavily loaded period is not there yet, the light ones are."""
    tables = radial()
    network = build(tables)
    p, q = (np.concatenate([0.001 * x, 3 * x, 0.001 * x]) for x in injections(tables, network))
    exact = solve(network, p, q)
    monkeypatch.setattr(current, "STEPS", 3)
    again = []
    by_newton = powerflow._by_newton

    def counted(network: Network, p: Any, q: Any) -> Any:
        again.append(p[:, network.not_slack].sum(axis=1).tolist())
        return by_newton(network, p, q)

    monkeypatch.setattr(powerflow, "_by_newton", counted)
    quick = solve(network, p, q, Method.CURRENT)
    assert again == [[pytest.approx(p[1].sum())]]
    assert np.abs(exact.u - quick.u).max() < 1e-8


@pytest.mark.spec("GRID-02")
def test_more_states_than_fit_at_a_time_are_the_states_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = meshed()
    network = build(tables)
    p, q = (np.linspace(0, 3, 11)[:, None] * x for x in injections(tables, network))
    together = solve(network, p, q, Method.CURRENT)
    monkeypatch.setattr(current, "ROOM", 4 * network.n)
    assert np.abs(together.u - solve(network, p, q, Method.CURRENT).u).max() < 1e-9


@pytest.mark.spec("GRID-02")
@pytest.mark.parametrize("method", Method)
def test_no_method_answers_for_an_injection_that_no_grid_can_carry(method: Method) -> None:
    tables = radial()
    network = build(tables)
    p, q = injections(tables, network)
    with pytest.raises(GridFailure, match=r"period 1 has no solution \(2 of 4"):
        solve(network, np.concatenate([p, 1000 * p, p, 1000 * p]), np.concatenate([q, 1000 * q, q, 1000 * q]), method)


@pytest.mark.spec("GRID-02")
def test_an_injection_that_is_no_number_is_named_and_not_taken_for_nothing() -> None:
    tables = radial()
    network = build(tables)
    p, q = injections(tables, network)
    p[0, network.node_of("B2")] = np.nan
    with pytest.raises(GridFailure, match="B2 in period 0"):
        solve(network, p, q)
    p[0, network.node_of("B2")], p[0, network.slack] = 0.0, np.nan
    assert np.isfinite(solve(network, p, q).u).all()


@pytest.mark.spec("GRID-02")
@pytest.mark.parametrize("tables", [radial(), meshed()], ids=["open ring", "closed ring"])
@pytest.mark.parametrize(("side", "position"), [("hv", -3), ("hv", 4), ("lv", 2)])
def test_taps_on_either_side_and_open_line_ends_agree_with_pandapower(tables: Any, side: str, position: int) -> None:
    tapped = replace(tables, transformers=(replace(tables.transformers[0], tap_side=side, tap_pos=position),))
    network, state = solved(tapped)
    net = second_engine.run(second_engine.pandapower_net(tapped), network, state.p_mw[0], state.q_mvar[0])
    assert np.abs(net.res_bus.vm_pu.to_numpy() - state.vm[0, network.node_of_bus]).max() < 1e-9
    assert np.abs(net.res_line.loading_percent.to_numpy() / 100 - state.loading[0, :-1]).max() < 1e-8
    assert np.isclose(net.res_trafo.loading_percent[0] / 100, state.loading[0, -1], atol=1e-8)


@pytest.mark.spec("GRID-02")
def test_a_line_open_at_its_far_end_draws_its_charging_current_only() -> None:
    network, state = solved(radial())
    dangling = network.branch_names.index("A3-B3")
    assert network.from_on[dangling] and not network.to_on[dangling]
    tables = radial()
    row = next(line for line in tables.lines if line.line == "A3-B3")
    phase_v = state.vm[0, network.node_of("A3")] * 20e3 / np.sqrt(3)
    charging_a = 2 * np.pi * 50 * row.c_nf * 1e-9 * phase_v
    assert np.isclose(state.loading_from[0, dangling] * row.i_max_a, charging_a, rtol=1e-4)
    assert state.loading_to[0, dangling] == 0


@pytest.mark.spec("GRID-02")
@pytest.mark.parametrize("tables", [radial(), meshed()], ids=["open ring", "closed ring"])
def test_injections_losses_and_interface_add_to_zero(tables: Any) -> None:
    _, state = solved(tables, load=1.7, generation=0.4)
    current_a = state.loading[0] * np.array([line.i_max_a for line in tables.lines] + [0.0])
    joule = sum(3 * i**2 * line.r_ohm / 1e6 for i, line in zip(current_a, tables.lines, strict=False))
    assert np.isclose(state.interface_p_mw[0] + state.p_mw[0].sum(), state.losses_mw[0])
    # Of lines the series current lies between the two ends' terminal currents; the rest is the transformer's.
    t = tables.transformers[0]
    copper = t.vkr_percent / 100 * t.sn_mva * state.loading[0, -1] ** 2
    iron = t.pfe_kw / 1000
    assert np.isclose(state.losses_mw[0], joule + copper + iron, rtol=0.02)


@pytest.mark.spec("GRID-02")
def test_many_periods_at_once_equal_each_by_itself() -> None:
    tables = radial()
    network = build(tables)
    scales = np.linspace(0, 2, 7)[:, None]
    p, q = injections(tables, network)
    together = solve(network, p * scales, q * scales)
    for t in range(7):
        alone = solve(network, p * scales[t], q * scales[t])
        assert np.allclose(together.u[t], alone.u[0], atol=1e-12)
    assert np.allclose(together.part(np.array([4])).u, together.u[[4]])


@pytest.mark.spec("GRID-02")
def test_an_injection_that_no_grid_can_carry_is_named_not_answered() -> None:
    tables = radial()
    network = build(tables)
    p, q = injections(tables, network)
    with pytest.raises(GridFailure, match="period 1 "):
        solve(network, np.concatenate([p, 1000 * p]), np.concatenate([q, 1000 * q]))


@pytest.mark.spec("GRID-02")
def test_no_periods_give_an_empty_state() -> None:
    network = build(radial())
    state = solve(network, np.zeros((0, network.n)), np.zeros((0, network.n)))
    assert state.u.shape == (0, network.n) and state.loading.shape == (0, network.m)
