"""Voltage reduction: closed forms on two buses, pandapower's loads that follow the voltage, and laws."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import pandapower as pp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from coflex.domain.errors import Refused
from coflex.domain.quantity import Floats
from coflex.domain.series import Series
from coflex.grid.injection import element_powers, node_injections
from coflex.grid.network import build
from coflex.grid.tables import Bus, GridTables, Line, Load, Source, Transformer
from coflex.grid.voltage_reduction import Exponential, LoadModel, Reduction, VoltageLoads, Zip, reduce_voltage
from support.books import axis
from support.small_grids import radial

TINY = 1e-9
NO_PROFILES = Series((), axis(1), np.zeros((0, 1)))


def two_bus(r_pu: float, x_pu: float, v_min: float = 0.9, side: str = "lv", step: float = 2.0) -> GridTables:
    """A source at 1 pu, an ideal transformer with 2 % steps, and a line of r + jx in pu of 1 MVA at 20 kV."""
    buses = tuple(Bus(n, 110.0 if n == "H" else 20.0, v_min, 1.1, 8.0, 50.0, "") for n in ("H", "M", "E"))
    ideal = Transformer("T", "H", "M", 40.0, 110.0, 20.0, 4e-5, 0.0, 0.0, 0.0, 0.0, side, 0, -9, 9, step, 0, 100.0)
    line = Line("M-E", "M", "E", 1.0, 400 * r_pu, 400 * x_pu, 0.0, 0.0, 100.0)
    load = Load("load", "E", 4.0, 1.5, "", "")
    return GridTables(buses, (line,), (ideal,), (), (Source("above", "H", 1.0),), (load,), (), ())


def reduced(tables: GridTables, model: LoadModel, steps: int, p: float = 4.0, q: float = 1.5) -> Reduction:
    network = build(tables)
    node = network.node_of("E")
    inject = np.zeros((2, 1, network.n))
    inject[:, 0, node] = -p, -q
    loads = VoltageLoads(np.array([node]), np.array([[p]]), np.array([[q]]), model)
    return reduce_voltage(tables, ["T"], inject[0], inject[1], loads, steps)


def exponential(kp: float, kq: float) -> Exponential:
    return Exponential(np.array([kp]), np.array([kq]))


# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize("kp", [0.0, 0.5, 1.0, 2.0])
def test_without_impedance_a_step_takes_the_power_of_the_exponent(kp: float) -> None:
    """V is what the tap gives, 0.98, 0.96, 0.94: the load is P0 V^kp."""
    found = reduced(two_bus(TINY, TINY), exponential(kp, 0.0), 3)
    at = 4000 * np.array([1.0, 0.98, 0.96, 0.94]) ** kp
    assert found.change_p_mw.sum(axis=2)[:, 0] * 1000 == pytest.approx(-np.diff(at), abs=1e-3)
    assert found.lowest_pu[:, 0] == pytest.approx([0.98, 0.96, 0.94], abs=1e-6)
    assert found.kw.sum(axis=0).tolist() == [int(4000 - at[-1] + 1e-3)]


def test_behind_a_line_a_load_of_constant_impedance_is_a_voltage_divider() -> None:
    """kp = kq = 2: the load is an impedance, so every voltage is the tap's times that at the normal tap, every power
    its square: 1 - 0.98^2 = 3.96 % of load and of losses alike, whatever the line."""
    found = reduced(two_bus(0.006, 0.009), exponential(2.0, 2.0), 2)
    share = np.array([1 - 0.98**2, 0.98**2 - 0.96**2])
    assert 1000 * found.change_p_mw.sum(axis=2)[:, 0] == pytest.approx(4000 * share, abs=1e-2)
    assert 1000 * found.change_q_mvar.sum(axis=2)[:, 0] == pytest.approx(1500 * share, abs=1e-2)
    b, z2 = 2 * (0.006 * 4 + 0.009 * 1.5) - 1, 0.006**2 + 0.009**2
    v2 = (-b + sqrt(b * b - 4 * z2 * (16 + 2.25))) / 2
    losses = 0.006 * (16 + 2.25) / v2
    assert found.interface_kw[:, 0] == pytest.approx(1000 * (4 + losses) * share, abs=1e-2)
    assert found.lowest_pu[:, 0] == pytest.approx(sqrt(v2) * np.array([0.98, 0.96]), abs=1e-6)


def test_behind_a_resistor_a_load_of_constant_current_keeps_its_drop() -> None:
    """kp = 1, no reactive power: I = P0/V0 stays, so does R I, and the load falls by I times the tap's step."""
    found = reduced(two_bus(0.01, TINY), exponential(1.0, 0.0), 1, q=0.0)
    v0 = (1 + sqrt(1 - 4 * 0.01 * 4)) / 2
    assert 1000 * found.change_p_mw.sum() == pytest.approx(1000 * (4 / v0) * 0.02, abs=1e-2)
    assert found.lowest_pu[0, 0] == pytest.approx(v0 - 0.02, abs=1e-6)


def test_constant_power_gives_nothing_and_costs_losses() -> None:
    found = reduced(two_bus(0.006, 0.009), exponential(0.0, 0.0), 2)
    assert not found.kw.any()
    assert not found.change_p_mw.any()
    assert (found.interface_kw < 0).all()


def test_shares_of_a_zip_load_add_to_its_parts() -> None:
    """Without impedance: z (1 - 0.98^2) + i 0.02 of the load."""
    one = np.ones(1)
    found = reduced(two_bus(TINY, TINY), Zip(0.5 * one, 0.3 * one, 0.0 * one, one), 1)
    assert 1000 * found.change_p_mw.sum() == pytest.approx(4000 * (0.5 * 0.0396 + 0.3 * 0.02), abs=1e-3)
    assert 1000 * found.change_q_mvar.sum() == pytest.approx(1500 * 0.02, abs=1e-3)


def test_turns_on_either_side_lower_the_voltage() -> None:
    """2 % more turns at the hv side: 1/1.02; negative steps and sides are turned the right way."""
    for side, step, low in (("hv", 2.0, 1 / 1.02), ("hv", -2.0, 1 / 1.02), ("lv", 2.0, 0.98), ("lv", -2.0, 0.98)):
        found = reduced(two_bus(TINY, TINY, side=side, step=step), exponential(1.0, 1.0), 1)
        assert found.lowest_pu[0, 0] == pytest.approx(low, abs=1e-6)


# ---------------------------------------------------------------- limits


def test_a_step_below_a_limit_and_all_after_it_give_nothing() -> None:
    found = reduced(two_bus(TINY, TINY, v_min=0.965), exponential(1.0, 1.0), 4)
    assert found.kw[:, 0].tolist() == [80, 0, 0, 0]
    assert not found.change_p_mw[1:].any()
    assert not found.interface_kw[1:].any()
    assert found.lowest_pu[:, 0] == pytest.approx([0.98, 0.96, 0.94, 0.92], abs=1e-6)


def test_periods_stand_for_themselves() -> None:
    tables = two_bus(0.006, 0.009, v_min=0.94)
    network = build(tables)
    node, n = network.node_of("E"), network.n
    p, q = np.zeros((2, n)), np.zeros((2, n))
    p[:, node], q[:, node] = (-1.0, -4.0), (-0.4, -1.5)
    loads = VoltageLoads(np.array([node]), -p[:, [node]], -q[:, [node]], exponential(1.0, 1.0))
    found = reduce_voltage(tables, ["T"], p, q, loads, 2)
    assert (found.kw[:, 0] > 0).all()
    assert found.kw[1, 1] == 0


def test_a_rating_stops_a_step_and_so_do_only_those_limits_that_count() -> None:
    """Constant power at a line at its rating: a lower voltage is more current. Elsewhere nothing is asked."""
    tables = two_bus(TINY, TINY)
    rated = replace(tables, lines=(replace(tables.lines[0], i_max_a=4.05 / (sqrt(3) * 20) * 1000),))
    network = build(rated)
    node, end = network.node_of("M"), network.node_of("E")
    p = np.zeros((1, network.n))
    p[0, [node, end]] = -3.0, -4.0
    loads = VoltageLoads(np.array([node]), np.array([[3.0]]), np.zeros((1, 1)), exponential(1.0, 1.0))
    at_all = reduce_voltage(rated, ["T"], p, np.zeros_like(p), loads, 1)
    none = np.zeros(network.n, dtype=bool), np.zeros(network.m, dtype=bool)
    elsewhere = reduce_voltage(rated, ["T"], p, np.zeros_like(p), loads, 1, none)
    assert (at_all.kw[0, 0], elsewhere.kw[0, 0]) == (0, 60)


def test_a_limit_that_was_broken_before_and_gets_no_worse_stops_nothing() -> None:
    """A node upstream of the transformer lies below its limit; the tap lowers the others alone."""
    tables = two_bus(TINY, TINY)
    far = Bus("X", 110.0, 1.05, 1.1, 8.0, 50.0, "")
    spur = Line("H-X", "H", "X", 1.0, 0.1, 0.1, 0.0, 0.0, 100.0)
    found = reduced(replace(tables, buses=(*tables.buses, far), lines=(*tables.lines, spur)), exponential(1.0, 1.0), 1)
    assert found.kw[0, 0] == 80


# ---------------------------------------------------------------- another engine


def zip_grid() -> tuple[GridTables, Floats, Floats]:
    tables = replace(radial(v_min=0.8), generators=(), storages=())
    rng = np.random.default_rng(4)
    z, i = rng.uniform(0, 0.5, len(tables.loads)), rng.uniform(0, 0.5, len(tables.loads))
    return tables, z, i


def test_pandapower_draws_what_we_draw() -> None:
    """pandapower takes a load's parts of constant impedance, current and power at 1 pu: of one that draws P0 at the
    normal tap's V0 these are z P0/V0^2, i P0/V0 and (1 - z - i) P0. Told of every load and of the grid above."""
    tables, z, i = zip_grid()
    network = build(tables)
    p, q = (node_injections(network, part) for part in element_powers(tables, NO_PROFILES))
    node = np.array([network.node_of(row.bus) for row in tables.loads])
    powers = np.array([[row.p_mw for row in tables.loads]]), np.array([[row.q_mvar for row in tables.loads]])
    found = reduce_voltage(tables, ["T"], p, q, VoltageLoads(node, *powers, Zip(z, i, z, i)), 3)
    v0 = _pandapower(tables, 0, None)[0]
    v0 = np.array([v0[row.bus] for row in tables.loads])
    at_one = z / v0**2, i / v0, 1 - z - i
    drawn = [_pandapower(tables, s, at_one)[1] for s in range(4)]
    ours = 1000 * np.array([found.change_p_mw[s, 0, node] for s in range(3)])
    assert ours == pytest.approx(-1000 * np.diff([d[0] for d in drawn], axis=0), abs=1e-3)
    interface = np.array([d[1] for d in drawn])
    assert found.interface_kw[:, 0] == pytest.approx(-1000 * np.diff(interface), abs=1e-2)


def _pandapower(
    tables: GridTables, steps: int, at_one: tuple[Floats, Floats, Floats] | None
) -> tuple[dict[str, float], tuple[Floats, float]]:
    """Voltages by bus; what each load draws, and what the grid above gives. `at_one`: each load's parts of constant
    impedance, current and power at 1 pu, as shares of its power at the normal tap; None for constant power."""
    net = pp.create_empty_network(f_hz=50.0)
    bus = {row.bus: pp.create_bus(net, row.vn_kv, name=row.bus) for row in tables.buses}
    pp.create_ext_grid(net, bus["H"], vm_pu=tables.sources[0].vm_pu)
    for row in tables.lines:
        km = {"r_ohm_per_km": row.r_ohm, "x_ohm_per_km": row.x_ohm, "c_nf_per_km": row.c_nf, "max_i_ka": 1.0}
        pp.create_line_from_parameters(net, bus[row.from_bus], bus[row.to_bus], 1.0, **km)
    (two,) = tables.transformers
    pp.create_transformer_from_parameters(
        net, bus[two.hv_bus], bus[two.lv_bus], two.sn_mva, two.vn_hv_kv, two.vn_lv_kv, two.vkr_percent, two.vk_percent,
        two.pfe_kw, two.i0_percent, shift_degree=two.shift_degree, tap_side=two.tap_side, tap_neutral=two.tap_neutral,
        tap_min=two.tap_min, tap_max=two.tap_max, tap_step_percent=two.tap_step_percent, tap_pos=two.tap_pos + steps,
        tap_changer_type="Ratio",
    )  # fmt: skip
    for switch in tables.switches:
        if switch.kind == "bus":
            pp.create_switch(net, bus[switch.bus], bus[switch.element], "b", closed=switch.closed)
        else:
            index = [row.line for row in tables.lines].index(switch.element)
            pp.create_switch(net, bus[switch.bus], index, "l", closed=switch.closed)
    for k, row in enumerate(tables.loads):
        shares = {}
        size = 1.0
        if at_one is not None:
            size = sum(part[k] for part in at_one)
            z, i = 100 * at_one[0][k] / size, 100 * at_one[1][k] / size
            shares = {"const_z_p_percent": z, "const_i_p_percent": i, "const_z_q_percent": z, "const_i_q_percent": i}
        pp.create_load(net, bus[row.bus], size * row.p_mw, size * row.q_mvar, **shares)
    pp.runpp(net, trafo_model="pi", tolerance_mva=1e-9, calculate_voltage_angles=True, max_iteration=50)
    vm = {name: float(net.res_bus.vm_pu.at[index]) for name, index in bus.items()}
    return vm, (net.res_load.p_mw.to_numpy(), float(net.res_ext_grid.p_mw.iloc[0]))


# ---------------------------------------------------------------- laws and faults


@settings(max_examples=25, deadline=None)
@given(
    kp=st.floats(0, 3),
    more=st.floats(0, 1),
    kq=st.floats(0, 4),
    p=st.floats(0.1, 5),
    q=st.floats(0, 2),
    r=st.floats(1e-5, 0.01),
)
def test_laws(kp: float, more: float, kq: float, p: float, q: float, r: float) -> None:
    """Never negative; more exponent, more reduction; the steps add to the change as a whole."""
    tables = two_bus(r, r, v_min=0.5)
    less, found = (reduced(tables, exponential(k, kq), 2, p, q) for k in (kp, kp + more))
    assert (found.kw >= 0).all()
    assert found.kw.sum() >= less.kw.sum() - 1
    # Two steps of 2 % are one of 4 %.
    (whole,) = reduced(two_bus(r, r, v_min=0.5, step=4.0), exponential(kp + more, kq), 1, p, q).change_p_mw
    assert_allclose(found.change_p_mw.sum(axis=0), whole, atol=1e-6)
    assert abs(found.kw.sum() - 1000 * whole.sum()) <= 1.0


def test_no_steps_are_no_reduction() -> None:
    assert reduced(two_bus(TINY, TINY), exponential(1.0, 1.0), 0).kw.shape == (0, 1)


def test_every_fault_is_told_at_once() -> None:
    tables = two_bus(TINY, TINY)
    n = build(tables).n
    none = np.zeros((1, n))
    loads = VoltageLoads(np.array([2]), np.array([[-1.0]]), np.zeros((1, 1)), exponential(-1.0, 0.0))
    with pytest.raises(Refused) as caught:
        reduce_voltage(tables, ["T", "U"], none, none, loads, 10)
    assert {f.code for f in caught.value.findings} == {"unknown_transformer", "impossible_tap", "impossible_value"}
    bad = Zip(np.array([0.8]), np.array([0.4]), np.zeros(1), np.zeros(1))
    with pytest.raises(Refused):
        reduce_voltage(tables, [], none, none, VoltageLoads(np.array([2]), -none[:, :1], none[:, :1], bad), 1)
