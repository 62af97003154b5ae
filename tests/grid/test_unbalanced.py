"""Unbalanced power flow against pandapower, PowerFactory's published numbers, the balanced engine and Kirchhoff."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.errors import GridFailure, Refused
from coflex.domain.phase import PhaseLimit
from coflex.domain.time import Axis
from coflex.grid import network as balanced_network
from coflex.grid import powerflow, unbalanced
from coflex.grid.tables import Branch, Bus, Generator, GridTables, Line, Load, Source, Transformer
from coflex.grid.unbalanced import TO_PHASES, PhaseGrid, PhaseLimits, PhaseState, violations
from support.books import START
from support.low_voltage import balanced, elements, four_wire, pandapower_phases

GROUPS = {
    "Dyn5": ("Dyn5", 150.0, 0.0),
    "Dyn11 with its own vk0": ("Dyn11", -30.0, 3.8),
    "YNyn0": ("YNyn0", 0.0, 4.4),
    "YNyn6": ("YNyn6", 180.0, 0.0),
}


def grid_of(tables: GridTables) -> PhaseGrid:
    return unbalanced.build(tables, balanced_network.build(tables))


def solved(tables: GridTables, scale: float = 1.0) -> PhaseState:
    grid = grid_of(tables)
    return unbalanced.solve(grid, *(unbalanced.injections(grid, x) for x in elements(tables, scale)))


def without_iron(tables: GridTables) -> GridTables:
    """pandapower's unbalanced transformer is a T, ours a pi; without magnetising they are the same."""
    return replace(tables, transformers=tuple(replace(t, pfe_kw=0.0, i0_percent=0.0) for t in tables.transformers))


@pytest.mark.spec("GRID-02")
@pytest.mark.parametrize("group", GROUPS)
def test_pandapower_finds_the_same_phase_voltages_currents_and_unbalance(group: str) -> None:
    name, shift, vk0 = GROUPS[group]
    tables = without_iron(four_wire(name, shift, vk0=vk0))
    state, net = solved(tables), pandapower_phases(tables)
    vm = net.res_bus_3ph[["vm_a_pu", "vm_b_pu", "vm_c_pu"]].to_numpy()
    assert np.ptp(vm[3]) > 0.03, "the phases of B2 are far apart"
    assert np.abs(vm - state.vm[0]).max() < 1e-7
    loading = net.res_line_3ph[["loading_a_percent", "loading_b_percent", "loading_c_percent"]].to_numpy() / 100
    assert np.abs(loading - state.loading[0, :-1]).max() < 1e-6
    neutral = net.res_line_3ph[["i_n_from_ka", "i_n_to_ka"]].max(axis=1) / net.line.max_i_ka
    assert np.abs(neutral - state.neutral_loading[0, :-1]).max() < 1e-6 and neutral.max() > 0.1
    assert np.abs(net.res_bus_3ph.unbalance_percent / 100 - state.unbalance[0]).max() < 1e-7
    delivered = net.res_ext_grid_3ph[[f"{q}_{f}_{unit}" for f in "abc" for q, unit in (("p", "mw"), ("q", "mvar"))]]
    ours = np.stack([state.interface[0].real, state.interface[0].imag], axis=1).ravel()
    assert np.abs(delivered.to_numpy()[0] - ours).max() < 1e-7


def source_behind_impedance(
    buses: tuple[Bus, ...], lines: tuple[Line, ...], loads: tuple[Load, ...], mva: float
) -> Any:
    """A grid whose first bus stands behind the impedance 1.1 Un^2 / mva, R/X 0.1, the same in zero sequence, its
    positive sequence held at 1 pu: what the published numbers were made with."""
    z = 1.1 * buses[0].vn_kv ** 2 / mva * complex(0.1, 1) / abs(complex(0.1, 1))
    feeder = Line("feeder", "above", buses[0].bus, 1.0, z.real, z.imag, 0.0, 0.0, 100.0, z.real, z.imag, 0.0)
    ideal = replace(buses[0], bus="above")
    vm = 1.0
    for _ in range(30):
        tables = GridTables((ideal, *buses), (feeder, *lines), (), (), (Source("source", "above", vm),), loads, (), ())
        state = solved(tables)
        vm /= abs(state.sequences[0, 1, 1])
    return state.vm[0, 1:]


def loads_of(bus: str, powers: tuple[float, ...]) -> tuple[Load, ...]:
    """Active and reactive power of phases a, b and c in turn."""
    return tuple(Load(f"{bus}{f}", bus, powers[2 * i], powers[2 * i + 1], "", "", f) for i, f in enumerate("abc"))


@pytest.mark.spec("GRID-02")
def test_a_low_voltage_line_has_the_voltages_that_powerfactory_published() -> None:
    """Numbers by DIgSILENT PowerFactory in pandapower's tests (test_3ph_two_bus_line_powerfactory, 0.4 km N2XRY)."""
    km, third = 0.4, 0.01 / 3
    buses = tuple(Bus(name, 0.4, 0.9, 1.1, 0.0, 0.0, "") for name in ("one", "two"))
    values = (0.1013 * km, 0.06911504 * km, 690 * km, 440.0, 100.0, 0.4053 * km, 0.2764602 * km, 312.4 * km)
    lines = (Line("cable", "one", "two", km, *values),)
    powers = (0.02 + third, 0.01 + third, 0.015 + third, 0.005 + third, 0.025 + third, 0.01 + third)
    vm = source_behind_impedance(buses, lines, loads_of("two", powers), 10.0)
    published = [[0.99939853552, 1.0013885141, 0.99921580141], [0.97401782343, 0.98945593737, 0.96329605983]]
    assert np.abs(vm - published).max() < 4e-6


@pytest.mark.spec("GRID-02")
def test_a_meshed_grid_has_the_voltages_that_powerfactory_published() -> None:
    """Numbers by DIgSILENT PowerFactory in pandapower's tests (test_4bus_network)."""
    buses = tuple(Bus(name, 110.0, 0.5, 1.5, 0.0, 0.0, "") for name in "nkmp")
    third = (0.0385, 0.1319469, 170.0, 741.0, 100.0, 0.154, 0.5277876, 170.4)
    lines = (
        Line("nm", "n", "m", 1.0, *third),
        Line("np", "n", "p", 1.0, *third),
        Line("nk", "n", "k", 1.0, 0.0251, 0.1225221, 210.0, 890.0, 100.0, 0.1005, 0.4900884, 200.5),
        Line("km", "k", "m", 1.0, 0.0212, 0.1162389, 230.0, 963.0, 100.0, 0.0848, 0.4649556, 230.6),
        Line("kp", "k", "p", 1.0, 0.0762, 0.1507964, 140.0, 531.0, 100.0, 0.3048, 0.6031856, 140.3),
    )
    loads = (
        *loads_of("k", (50, 20, 80, 60, 20, 5)),
        *loads_of("m", (50, 50, 10, 15, 10, 5)),
        *loads_of("p", (50, 20, 60, 20, 10, 5)),
    )
    published = [
        [0.98085729, 0.97711997, 1.04353786],
        [0.97828577, 0.97534651, 1.04470864],
        [0.97774307, 0.97648197, 1.04421233],
        [0.9780892, 0.97586805, 1.04471106],
    ]
    assert np.abs(source_behind_impedance(buses, lines, loads, 5000.0) - published).max() < 2e-8


@pytest.mark.slow
@pytest.mark.spec("GRID-02")
def test_the_ieee_european_low_voltage_feeder_agrees_with_pandapower() -> None:
    """906 low-voltage buses, 55 single-phase customers, 800 kVA Dyn1: the test feeder's peak (minute 566)."""
    import pandapower as pp
    import pandapower.networks

    net = pandapower.networks.ieee_european_lv_asymmetric("on_peak_566")
    net.ext_grid["s_sc_max_mva"] = 1e9
    net.trafo["mag0_percent"] = 1e10
    pp.runpp_3ph(net, numba=False, tolerance_mva=1e-11, max_iteration=200)
    state = solved(european_feeder(net))
    assert state.vm.shape == (1, 907, 3) and len(state.p_mw[state.p_mw != 0]) == 55
    # pandapower stops at 3e-8 MVA of mismatch a node whatever it is asked for; here there are 907 of them.
    assert np.abs(net.res_bus_3ph[["vm_a_pu", "vm_b_pu", "vm_c_pu"]].to_numpy() - state.vm[0]).max() < 3e-6
    assert np.abs(net.res_bus_3ph.unbalance_percent / 100 - state.unbalance[0]).max() < 3e-6
    missing = (state.delivered - (state.p_mw + 1j * state.q_mvar))[:, state.grid.network.not_slack]
    assert np.abs(missing).max() < 1e-10
    assert 0.99 < state.vm[0, 1:].min() < state.vm[0, 1:].max() < 1.07


def european_feeder(net: Any) -> GridTables:
    buses = tuple(Bus(f"b{i}", vn, 0.9, 1.1, 0.0, 0.0, "") for i, vn in net.bus.vn_kv.items())
    lines = []
    for i, row in net.line.iterrows():
        zero = (row.r0_ohm_per_km, row.x0_ohm_per_km, row.c0_nf_per_km)
        values = [row.length_km * x for x in (row.r_ohm_per_km, row.x_ohm_per_km, row.c_nf_per_km)]
        ends = f"b{row.from_bus}", f"b{row.to_bus}"
        rated = (row.max_i_ka * 1000, 100.0, *(row.length_km * x for x in zero))
        lines.append(Line(f"l{i}", *ends, row.length_km, *values, *rated))
    t = net.trafo.iloc[0]
    nameplate = (t.sn_mva, t.vn_hv_kv, t.vn_lv_kv, t.vk_percent, t.vkr_percent, 0.0, 0.0, t.shift_degree)
    transformer = Transformer("t", f"b{t.hv_bus}", f"b{t.lv_bus}", *nameplate, "hv", 0, -2, 2, 2.5, 0, 100.0, "Dyn1")
    loads = tuple(
        Load(f"load {i}{f}", f"b{row.bus}", row[f"p_{f}_mw"], row[f"q_{f}_mvar"], "", "", f)
        for i, row in net.asymmetric_load.iterrows()
        for f in "abc"
        if row[f"p_{f}_mw"]
    )
    source = Source("above", f"b{net.ext_grid.bus[0]}", float(net.ext_grid.vm_pu[0]))
    return GridTables(buses, tuple(lines), (transformer,), (), (source,), loads, (), ())


@pytest.mark.spec("GRID-02")
@pytest.mark.parametrize("group", GROUPS)
def test_balanced_elements_give_the_state_of_the_balanced_engine(group: str) -> None:
    name, shift, vk0 = GROUPS[group]
    tables = balanced(four_wire(name, shift, vk0=vk0))
    network = balanced_network.build(tables)
    p, q = (network.element_incidence.T @ x for x in elements(tables))
    one = powerflow.solve(network, p.T, q.T)
    three = solved(tables)
    assert np.abs(three.u - one.u[..., None] * TO_PHASES[:, 1]).max() < 1e-10
    assert np.abs(three.loading - one.loading[..., None]).max() < 1e-10
    assert three.unbalance.max() < 1e-10 and three.neutral_loading.max() < 1e-10
    assert three.losses_mw == pytest.approx(one.losses_mw, abs=1e-12)


@pytest.mark.spec("GRID-02")
@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["Dyn5", "YNyn0", "YNyn6", "Yzn5", "Dzn0"]),
    st.lists(st.floats(-0.01, 0.01), min_size=18, max_size=18),
    st.sampled_from([0.0, 3.6, 5.0]),
)
def test_at_every_node_the_powers_of_each_phase_add_to_zero(group: str, kw: list[float], vk0: float) -> None:
    """Currents come from our own admittances of the three sequences, voltages from the engine: both must be right."""
    shift = {"Dyn5": 150.0, "YNyn6": 180.0, "Yzn5": 150.0}.get(group, 0.0)
    grid = grid_of(four_wire(group, shift, vk0=vk0))
    p = np.zeros((1, grid.network.n, 3))
    p[0, 1:] = np.reshape(kw, (6, 3))
    state = unbalanced.solve(grid, p, 0.3 * p)
    missing = (state.delivered - (state.p_mw + 1j * state.q_mvar))[:, grid.network.not_slack]
    assert np.abs(missing).max() < 1e-11
    assert state.losses_mw[0] > 0
    assert state.interface.real.sum() + state.p_mw.sum() == pytest.approx(state.losses_mw[0], abs=1e-12)
    # Nothing of the neutral's current passes a delta.
    if group.startswith("D"):
        assert np.abs(state.currents[0][0, -1].sum()) < 1e-9


@pytest.mark.spec("GRID-02")
def test_joule_losses_of_phases_and_neutral_are_the_losses_of_a_four_wire_line() -> None:
    """r0 = 4 r is a neutral like the phases: losses are r times the squares of four currents."""
    tables = without_iron(four_wire(zero=False))
    lines = tuple(replace(line, c_nf=0.0) for line in tables.lines)
    tables = replace(tables, lines=lines, transformers=(replace(tables.transformers[0], vkr_percent=0.0),))
    state = solved(tables)
    ampere = np.abs(state.currents[0][0, :-1]) * 1e6 / (np.sqrt(3) * 400)
    neutral = np.abs(state.currents[0][0, :-1].sum(axis=1)) * 1e6 / (np.sqrt(3) * 400)
    watts = sum(line.r_ohm * ((ampere[b] ** 2).sum() + neutral[b] ** 2) for b, line in enumerate(tables.lines))
    assert state.losses_mw[0] * 1e6 == pytest.approx(watts, rel=1e-6)
    assert neutral.max() > 20


@pytest.mark.spec("GRID-02")
def test_a_medium_voltage_grid_without_a_neutral_above_leaves_the_phases_below_as_they_are() -> None:
    """An isolated 20 kV grid behind YNd5 and the same transformer at a stiff bus differ by the drop of 20 kV only."""
    tables = four_wire()
    above = Transformer(
        "HV", "H", "G", 40.0, 110.0, 20.0, 12.0, 0.3, 0.0, 0.0, 150.0, "hv", 0, 0, 0, 0.0, 0, 100.0, "YNd5"
    )
    buses = (*(Bus(name, kv, 0.9, 1.1, 0, 0, "") for name, kv in (("H", 110.0), ("G", 20.0))), *tables.buses)
    feeder = Line("feeder", "G", "M", 1.0, 0.16, 0.12, 250.0, 300.0, 100.0)
    wider = replace(
        tables,
        buses=buses,
        lines=(*tables.lines, feeder),
        transformers=(above, *tables.transformers),
        sources=(Source("grid", "H", 1.02),),
    )
    grid = grid_of(wider)
    assert [grid.network.node_names[i] for i in np.flatnonzero(~grid.neutral)] == ["G", "M"]
    state, near = solved(wider), solved(tables)
    assert np.abs(state.vm[0, 2:] - near.vm[0]).max() < 1e-3
    medium = state.sequences[0, 2]
    assert abs(medium[0]) < 1e-8 < abs(medium[2])
    missing = (state.delivered - (state.p_mw + 1j * state.q_mvar))[:, grid.network.not_slack]
    assert np.abs(missing).max() < 1e-10


@pytest.mark.spec("GRID-02")
def test_many_periods_at_once_are_the_states_one_by_one() -> None:
    tables = four_wire()
    grid = grid_of(tables)
    p, q = (unbalanced.injections(grid, np.concatenate([x, 0.5 * x, 1.6 * x], axis=1)) for x in elements(tables))
    together = unbalanced.solve(grid, p, q)
    for t, scale in enumerate((1.0, 0.5, 1.6)):
        assert np.abs(together.u[t] - solved(tables, scale).u[0]).max() < 1e-10
    assert unbalanced.solve(grid, p[:0], q[:0]).u.shape == (0, 7, 3)


@pytest.mark.spec("GRID-03")
def test_every_limit_of_every_phase_is_listed_once() -> None:
    tables = four_wire()
    grid = grid_of(tables)
    p, q = (unbalanced.injections(grid, np.concatenate([x, 2.2 * x], axis=1)) for x in elements(tables))
    state = unbalanced.solve(grid, p, q)
    found = violations(state, Axis(START, 2), PhaseLimits(unbalance=0.02, neutral=0.5))
    network, inner = grid.network, np.arange(grid.network.n) != grid.network.slack
    expected = (
        (inner[:, None] & (state.vm < 0.9)).sum()
        + (state.loading > 1).sum()
        + (state.neutral_loading > 0.5).sum()
        + (inner & (state.unbalance > 0.02)).sum()
    )
    assert len(found) == len(set(found)) == expected > 10
    assert {v.kind for v in found} == set(PhaseLimit) - {PhaseLimit.VOLTAGE_HIGH}
    assert all(v.excess > 0 and (v.phase is None) == (v.kind in ("neutral", "unbalance")) for v in found)
    low = next(v for v in found if v.kind is PhaseLimit.VOLTAGE_LOW)
    t = Axis(START, 2).position(low.start)
    assert low.value == state.vm[t, network.node_of(low.element), "abc".index(low.phase or "")]


@pytest.mark.spec("GRID-02")
def test_what_the_tables_do_not_say_is_assumed_and_told() -> None:
    told = grid_of(four_wire("", zero=False)).assumed
    assert {finding.code for finding in told} == {"zero_sequence_assumed", "vector_group_assumed"}
    assert grid_of(four_wire(vk0=3.8)).assumed == ()
    usual, given_ = solved(four_wire("", zero=False)), solved(four_wire("Dyn5", zero=False))
    assert np.abs(usual.u - given_.u).max() < 1e-12


@pytest.mark.spec("GRID-02")
def test_what_has_no_phases_is_refused_all_at_once() -> None:
    tables = four_wire()
    wrong = replace(
        tables,
        transformers=(replace(tables.transformers[0], vector_group="Dyn11"),),
        loads=(replace(tables.loads[0], phase="d"), *tables.loads[1:]),
        generators=(replace(tables.generators[0], vm_pu=1.0),),
        branches=(Branch("x", "B3", "B5", 0.1, 0.1, 0, 0, 1.0, 0.0, 1.0, 0.0, 100.0),),
    )
    with pytest.raises(Refused) as refused:
        grid_of(wrong)
    codes = {finding.code for finding in refused.value.findings}
    assert codes == {"vector_group_turn", "unknown_phase", "voltage_held", "no_zero_sequence"}


@pytest.mark.spec("GRID-02")
@pytest.mark.parametrize(("group", "shift"), [("Yyn0", 0.0), ("Dd0", 0.0), ("Yd5", 150.0)])
def test_a_single_phase_load_without_a_neutral_is_refused(group: str, shift: float) -> None:
    with pytest.raises(Refused) as refused:
        grid_of(four_wire(group, shift))
    assert {finding.code for finding in refused.value.findings} == {"no_neutral"}
    assert not grid_of(balanced(four_wire(group, shift))).neutral[1:].any()


@pytest.mark.spec("GRID-02")
@pytest.mark.parametrize("power", [np.nan, -3.0])
def test_a_state_that_cannot_be_is_named_by_its_period(power: float) -> None:
    grid = grid_of(four_wire())
    p = np.zeros((3, 7, 3))
    p[1, 4, 2] = power
    with pytest.raises(GridFailure, match="period 1 "):
        unbalanced.solve(grid, p, np.zeros_like(p))


def test_a_generator_stands_on_its_own_phase() -> None:
    tables = replace(four_wire(), loads=(), generators=(Generator("g", "B3", 0.01, 0.0, "pv", "", 0.0, "c"),))
    state = solved(tables)
    assert state.p_mw[0, 4].tolist() == [0.0, 0.0, 0.01]
    assert state.vm[0, 4, 2] > max(state.vm[0, 4, :2]) + 0.003
