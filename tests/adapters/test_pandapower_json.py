"""Nets of pandapower as tables: both find the same voltages, element by element and on its own networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandapower as pp
import pandapower.networks as nw
import pytest

from coflex.adapters.grids.pandapower_json import read_pandapower
from coflex.adapters.grids.pandapower_net import tables_of
from coflex.domain.errors import CoflexError, Refused
from coflex.grid.network import build
from support.foreign import apart, pandapower_voltages, solved
from support.simbench_grids import net_of

NETS: dict[str, Callable[[], Any]] = {
    "mv_oberrhein": nw.mv_oberrhein,
    "cigre_hv": nw.create_cigre_network_hv,
    "cigre_mv": nw.create_cigre_network_mv,
    "cigre_mv_pv_wind": lambda: nw.create_cigre_network_mv(with_der="pv_wind"),
    "cigre_mv_all": lambda: nw.create_cigre_network_mv(with_der="all"),
    "cigre_lv": nw.create_cigre_network_lv,
    "kerber_landnetz": nw.create_kerber_landnetz_freileitung_1,
    "kerber_dorfnetz": nw.create_kerber_dorfnetz,
    "kerber_vorstadt": nw.create_kerber_vorstadtnetz_kabel_1,
    "multivoltage": nw.example_multivoltage,
    "european_lv": nw.ieee_european_lv_asymmetric,
    **{case: getattr(nw, case) for case in ("case4gs", "case9", "case14", "case33bw", "case39", "case118")},
}


def named(net: Any) -> Any:
    """Buses named, so that both engines' results can be told apart by name."""
    net.bus["name"] = [f"bus {i}" for i in net.bus.index]
    return net


@pytest.fixture
def net() -> Any:
    """A net of three buses at 20 kV behind a transformer, with a load."""
    net = pp.create_empty_network(f_hz=50.0)
    kv = (110.0, 20.0, 20.0, 20.0)
    buses = [pp.create_bus(net, v, name=f"bus {i}", min_vm_pu=0.95, max_vm_pu=1.05) for i, v in enumerate(kv)]
    pp.create_ext_grid(net, buses[0], vm_pu=1.02, s_sc_max_mva=5000.0, rx_max=0.1, name="above")
    pp.create_transformer(net, buses[0], buses[1], "25 MVA 110/20 kV", name="T")
    for a, b in ((1, 2), (2, 3)):
        pp.create_line(net, buses[a], buses[b], 4.0, "NA2XS2Y 1x150 RM/25 12/20 kV", name=f"L{a}")
    pp.create_load(net, buses[3], 2.0, 0.7, name="load")
    return net


def agrees(net: Any, model: str = "pi", within: float = 1e-8) -> Any:
    tables, _ = tables_of(net, "t" if model == "t" else "pi")
    assert apart(tables, pandapower_voltages(net, model)) < within
    return tables


# ---------------------------------------------------------------- whole nets


LARGE = ("kerber_vorstadt", "european_lv", "multivoltage")
EVERY = [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in NETS]


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize("name", EVERY)
def test_pandapower_finds_the_same_voltages_on_its_own_nets(name: str) -> None:
    agrees(named(NETS[name]()))


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize("name", ["mv_oberrhein", "multivoltage", "kerber_dorfnetz"])
def test_the_t_model_is_read_as_the_pi_it_is_equal_to(name: str) -> None:
    net = named(NETS[name]())
    plain, _ = tables_of(net)
    theirs = pandapower_voltages(net, "t")
    assert apart(tables_of(net, "t")[0], theirs) < 1e-8
    # The nameplates read as a pi differ from that by a few millionths, which is what choosing a model means.
    assert 1e-8 < apart(plain, theirs) < 1e-5


@pytest.mark.spec("GRID-01", "GRID-02")
@pytest.mark.parametrize(
    "code",
    [
        "1-LV-rural1--0-sw",
        pytest.param("1-MV-urban--0-sw", marks=pytest.mark.slow),
        pytest.param("1-MVLV-comm-3.403-2-no_sw", marks=pytest.mark.slow),
    ],
)
def test_pandapower_finds_the_same_voltages_on_simbench_grids(code: str, grids: Path) -> None:
    net = named(net_of(code, grids))
    net.trafo["tap_pos"] += 1
    agrees(net)


@pytest.mark.spec("GRID-01")
def test_a_file_gives_what_the_net_gives_and_no_bus_is_lost(tmp_path: Path) -> None:
    net = NETS["cigre_mv_all"]()
    pp.to_json(net, str(tmp_path / "net.json"))
    tables, notes = read_pandapower(tmp_path / "net.json")
    assert notes == tables_of(net)[1]
    assert apart(tables, pandapower_voltages(net)) < 1e-8
    assert len(tables.buses) == len(net.bus) and len(tables.lines) == len(net.line)
    assert [line.line for line in tables.lines] == list(net.line.name)
    # The batteries work in the net, and rest here until called: what they do stands beside them.
    assert [s.storage for s in tables.storages] == list(net.storage.name)
    schedule = {load.load: load.p_mw for load in tables.loads if load.load.endswith("(schedule)")}
    assert schedule == {f"{row.name} (schedule)": row.p_mw for row in net.storage.itertuples()}
    assert {load.load for load in tables.loads} == {*net.load.name, *schedule}
    assert {note.code for note in notes} == {"limits_assumed", "no_energy", "scheduled"}
    assert {bus.perimeter for bus in tables.buses} == {"", "F01", "F02"}


@pytest.mark.parametrize("text", ["{}", "no json", '{"_module": "pandapower.auxiliary"}'])
def test_what_is_no_net_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "net.json").write_text(text)
    with pytest.raises(CoflexError, match=r"net\.json"):
        read_pandapower(tmp_path / "net.json")


# ---------------------------------------------------------------- names


def test_names_given_once_are_kept_and_others_are_the_table_and_the_index(net: Any) -> None:
    pp.create_load(net, 2, 0.1, name="twice")
    pp.create_sgen(net, 2, 0.1, name="twice")
    pp.create_load(net, 2, 0.1)
    pp.create_load(net, 2, 0.1, name="load 3")  # would be another's name
    net.line["name"] = [None, "L2"]
    tables = agrees(net)
    assert [load.load for load in tables.loads] == ["load", "load 1", "load 2", "load 3"]
    assert [unit.generator for unit in tables.generators] == ["sgen 0"]
    assert [line.line for line in tables.lines] == ["line 0", "L2"]
    assert tables.sources[0].source == "above"
    assert (tables.sources[0].s_sc_mva, tables.sources[0].rx) == (5000.0, 0.1)


def test_places_are_read_in_the_new_and_the_old_way(net: Any) -> None:
    import pandas as pd

    net.bus["geo"] = [f'{{"coordinates": [{8 + i}, 50.5], "type": "Point"}}' for i in net.bus.index]
    assert [(b.longitude, b.latitude) for b in tables_of(net)[0].buses] == [(8 + i, 50.5) for i in range(4)]
    net.bus["geo"] = None
    net["bus_geodata"] = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "y": 5.0})
    assert [(b.longitude, b.latitude) for b in tables_of(net)[0].buses] == [(1 + i, 5) for i in range(4)]


# ---------------------------------------------------------------- element by element


def tap_of_two_sides(net: Any) -> None:
    net.trafo["tap_pos"], net.trafo["tap_changer_type"] = 3, "Ratio"
    for column, value in {"pos": 2, "neutral": 0, "min": -2, "max": 2, "step_percent": 2.5, "side": "lv"}.items():
        net.trafo[f"tap2_{column}"] = value
    net.trafo["tap2_changer_type"] = "Ratio"


def tap_that_turns(net: Any) -> None:
    net.trafo["tap_pos"], net.trafo["tap_changer_type"], net.trafo["tap_step_degree"] = 3, "Ratio", 60.0


def tap_that_turns_the_low_side(net: Any) -> None:
    tap_that_turns(net)
    net.trafo["tap_side"] = "lv"


def ideal_shifter(net: Any) -> None:
    net.trafo["tap_pos"], net.trafo["tap_changer_type"] = -4, "Ideal"
    net.trafo["tap_step_percent"], net.trafo["tap_step_degree"], net.trafo["tap_side"] = np.nan, 2.0, "lv"


def tap_without_kind(net: Any) -> None:
    net.trafo["tap_pos"], net.trafo["tap_changer_type"] = 5, None


def tap_from_a_table(net: Any) -> None:
    import pandas as pd

    net["trafo_characteristic_table"] = pd.DataFrame(
        {
            "id_characteristic": [0, 0],
            "step": [0, 2],
            "voltage_ratio": [1.0, 1.031],
            "angle_deg": [0.0, 0.7],
            "vk_percent": [12.0, 12.9],
            "vkr_percent": [0.4, 0.47],
        }
    )
    net.trafo["tap_pos"], net.trafo["tap_dependency_table"] = 2, True
    net.trafo["id_characteristic_table"], net.trafo["tap_changer_type"] = 0, "Tabular"


def parallel_devices(net: Any) -> None:
    net.trafo["parallel"], net.line["parallel"] = 2, 3


def conductance(net: Any) -> None:
    net.line["g_us_per_km"] = 40.0
    pp.create_switch(net, 3, 1, "l", closed=True)


def negative_reactance(net: Any) -> None:
    net.line.loc[1, "x_ohm_per_km"] = -0.2
    net.trafo["vk_percent"] = -10.0


def sixty_hertz(net: Any) -> None:
    net.f_hz = 60.0


def contact_resistance(net: Any) -> None:
    pp.create_switch(net, 3, pp.create_bus(net, 20.0, name="bus 4"), "b", z_ohm=1.5)
    pp.create_load(net, 4, 0.8, 0.1)


def dead_line_end(net: Any) -> None:
    far = pp.create_bus(net, 20.0, name="bus 4", in_service=False)
    pp.create_line(net, 3, far, 25.0, "NA2XS2Y 1x150 RM/25 12/20 kV")
    pp.create_load(net, far, 1.0)


def open_line_end(net: Any) -> None:
    far = pp.create_bus(net, 20.0, name="bus 4")
    line = pp.create_line(net, 3, far, 25.0, "NA2XS2Y 1x150 RM/25 12/20 kV")
    pp.create_switch(net, far, line, "l", closed=False)


def three_windings(net: Any) -> None:
    mv, lv = pp.create_bus(net, 20.0, name="bus 4"), pp.create_bus(net, 10.0, name="bus 5")
    pp.create_transformer3w(net, 0, mv, lv, "63/25/38 MVA 110/20/10 kV", tap_pos=3, tap_changer_type="Ratio")
    pp.create_load(net, mv, 12.0, 4.0)
    pp.create_load(net, lv, 9.0, -1.0)


def star_point_tap(net: Any) -> None:
    three_windings(net)
    net.trafo3w["tap_at_star_point"], net.trafo3w["tap_step_degree"] = True, 0.0
    net.trafo3w["tap_side"], net.trafo3w["tap_pos"] = "mv", -2


def losses_elsewhere(net: Any) -> None:
    three_windings(net)
    net.trafo3w["loss_side"], net.trafo3w["shift_lv_degree"] = "lv", 30.0
    net.trafo3w["tap_side"], net.trafo3w["i0_percent"] = "lv", 2.0


def shunts_in_steps(net: Any) -> None:
    pp.create_shunt(net, 2, q_mvar=-0.4, p_mw=0.01, vn_kv=21.0, step=3, max_step=5)


def wards(net: Any) -> None:
    pp.create_ward(net, 2, ps_mw=0.5, qs_mvar=0.1, pz_mw=0.3, qz_mvar=-0.2)
    pp.create_xward(net, 3, 0.2, 0.1, 0.1, 0.05, r_ohm=3.0, x_ohm=9.0, vm_pu=1.01)


def impedance(net: Any) -> None:
    pp.create_impedance(net, 1, 3, rft_pu=0.02, xft_pu=0.11, sn_mva=10.0, gf_pu=0.001, bf_pu=0.02)
    net.impedance[["gt_pu", "bt_pu"]] = [[0.001, 0.02]]


def direct_current(net: Any) -> None:
    pp.create_dcline(net, 1, 3, p_mw=0.6, loss_percent=3.0, loss_mw=0.01, vm_from_pu=1.01, vm_to_pu=1.0)


def motor(net: Any) -> None:
    pp.create_motor(net, 3, pn_mech_mw=0.5, cos_phi=0.85, efficiency_percent=93.0, loading_percent=80.0)


def constant_impedance(net: Any) -> None:
    pp.create_load(net, 2, 0.9, 0.4, const_z_p_percent=40.0, const_z_q_percent=70.0, scaling=0.8)


def unbalanced(net: Any) -> None:
    pp.create_asymmetric_load(net, 3, 0.1, 0.2, 0.0, 0.03, 0.04, 0.0, name="house")
    pp.create_asymmetric_sgen(net, 2, 0.0, 0.0, 0.3, name="roof")


def held_voltage(net: Any) -> None:
    pp.create_gen(net, 3, 1.2, vm_pu=1.015, scaling=0.5)


def slack_generator(net: Any) -> None:
    net.ext_grid.drop(index=0, inplace=True)
    pp.create_gen(net, 0, 0.0, vm_pu=1.01, slack=True, name="plant")


def storage_at_work(net: Any) -> None:
    pp.create_storage(net, 3, p_mw=0.4, max_e_mwh=2.0, q_mvar=-0.1, sn_mva=0.5, scaling=1.5)


def out_of_service(net: Any) -> None:
    pp.create_load(net, 3, 50.0, in_service=False)
    pp.create_line(net, 1, 3, 1.0, "NA2XS2Y 1x150 RM/25 12/20 kV", in_service=False)


CHANGES = [
    *(
        tap_of_two_sides,
        tap_that_turns,
        tap_that_turns_the_low_side,
        ideal_shifter,
        tap_without_kind,
        tap_from_a_table,
        parallel_devices,
    ),
    *(conductance, negative_reactance, sixty_hertz, contact_resistance, dead_line_end, open_line_end, three_windings),
    *(star_point_tap, losses_elsewhere, shunts_in_steps, wards, impedance, direct_current, motor, constant_impedance),
    *(unbalanced, held_voltage, slack_generator, storage_at_work, out_of_service),
]


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_an_element_is_converted_exactly(net: Any, change: Callable[[Any], None]) -> None:
    # Every change but these two moves voltages or adds some: otherwise agreement would prove nothing.
    before = pandapower_voltages(net)
    change(net)
    after = pandapower_voltages(net)
    moved = max(abs(after.get(bus, 0) - before.get(bus, 0)) for bus in after.keys() | before.keys())
    assert bool(moved > 1e-6) is (change not in (tap_without_kind, out_of_service))
    agrees(net)


@pytest.mark.spec("GRID-01")
def test_taps_of_nets_older_than_pandapower_3_count(net: Any) -> None:
    net.trafo["tap_pos"], net.trafo["tap_changer_type"] = 5, "Ratio"
    theirs = pandapower_voltages(net)
    net.trafo.drop(columns="tap_changer_type", inplace=True)
    assert apart(tables_of(net)[0], theirs) > 1e-3  # no word about the kind: left out
    net.trafo["tap_phase_shifter"] = False
    assert apart(tables_of(net)[0], theirs) < 1e-8


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize("model", ["pi", "t"])
def test_three_windings_agree_in_both_models(net: Any, model: str) -> None:
    losses_elsewhere(net)
    agrees(net, model)


def test_an_open_winding_has_an_open_switch_at_its_arm(net: Any) -> None:
    three_windings(net)
    pp.create_switch(net, 5, 0, "t3", closed=False, name="off")
    net.load.drop(index=net.load.index[-1], inplace=True)
    tables, notes = tables_of(net)
    # Nothing is behind the open winding, so its bus and its arm are left out, and said to be.
    assert [note.place for note in notes if note.code == "not_fed"] == ["buses.csv: bus bus 5"]
    theirs = pandapower_voltages(net)
    assert "bus 5" not in theirs
    assert apart(tables, theirs) < 1e-8


def test_what_is_behind_an_open_switch_and_carries_power_is_refused_by_name(net: Any) -> None:
    open_line_end(net)
    assert "bus 4" not in {bus.bus for bus in tables_of(net)[0].buses}
    pp.create_load(net, 4, 0.5)
    with pytest.raises(Refused) as refused:
        build(tables_of(net)[0])
    assert [(f.place, f.code) for f in refused.value.findings] == [("buses.csv: bus bus 4", "island")]


def test_taps_keep_their_range_where_they_can_move(net: Any) -> None:
    net.trafo["tap_changer_type"], net.trafo["tap_pos"] = "Ratio", -2
    tap = agrees(net).transformers[0]
    assert (tap.tap_side, tap.tap_neutral, tap.tap_min, tap.tap_max, tap.tap_pos) == ("hv", 0, -9, 9, -2)
    assert (tap.tap_step_percent, tap.vector_group, tap.shift_degree) == (1.5, "YNd5", 150.0)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (tap_without_kind, "tap_left_out"),
        (tap_that_turns, "tap_fixed"),
        (constant_impedance, "constant_impedance"),
        (direct_current, "two_generators"),
        (dead_line_end, "open_end"),
        (storage_at_work, "scheduled"),
    ],
)
def test_what_is_converted_with_a_grain_of_salt_is_said(net: Any, change: Callable[[Any], None], code: str) -> None:
    change(net)
    assert code in {note.code for note in tables_of(net)[1]}


def test_loads_on_phases_keep_their_phase(net: Any) -> None:
    unbalanced(net)
    tables, _ = tables_of(net)
    assert [(x.load, x.phase, x.p_mw, x.q_mvar) for x in tables.loads[1:]] == [
        ("house a", "a", 0.1, 0.03),
        ("house b", "b", 0.2, 0.04),
    ]
    assert [(x.generator, x.phase, x.p_mw) for x in tables.generators] == [("roof c", "c", 0.3)]


# ---------------------------------------------------------------- refusals


def test_what_has_no_counterpart_is_refused_all_at_once_by_name(net: Any) -> None:
    pp.create_load(net, 2, 0.1, 0.1, const_i_p_percent=50.0, name="lamps")
    pp.create_impedance(net, 1, 3, rft_pu=0.02, xft_pu=0.1, sn_mva=10.0, rtf_pu=0.03, xtf_pu=0.1, name="Z")
    pp.create_svc(net, 3, 10.0, -10.0, 1.0, 90.0, name="svc")
    pp.create_ext_grid(net, 0, vm_pu=1.02, va_degree=5.0, name="second")
    with pytest.raises(Refused) as refused:
        tables_of(net)
    assert {(f.place, f.code) for f in refused.value.findings} == {
        ("net.load: lamps", "constant_current"),
        ("net.impedance: Z", "unequal_ends"),
        ("net.svc: svc 0", "not_converted"),
        ("net.ext_grid: second", "several_angles"),
    }


def test_a_missing_value_is_refused_where_the_network_is_built(net: Any) -> None:
    net.trafo["vk_percent"] = np.nan
    with pytest.raises(Refused) as refused:
        build(tables_of(net)[0])
    assert {f.place for f in refused.value.findings} == {"transformers.csv: T"}
    assert "not_a_number" in {f.code for f in refused.value.findings}


# ---------------------------------------------------------------- dispatch


@pytest.mark.spec("GRID-01")
def test_costs_and_limits_become_dispatch_with_injection_positive(net: Any) -> None:
    plant = pp.create_gen(net, 3, 1.0, 1.0, min_p_mw=0.2, max_p_mw=3.0, min_q_mvar=-1.0, max_q_mvar=2.0, name="plant")
    pp.create_poly_cost(net, plant, "gen", cp1_eur_per_mw=40.0, cp2_eur_per_mw2=0.5, cp0_eur=7.0)
    limits = {"min_p_mw": 0.0, "max_p_mw": 2.0, "min_q_mvar": 0.0, "max_q_mvar": 0.7}
    pp.create_load(net, 2, 1.5, 0.4, controllable=True, name="shift", **limits)
    pp.create_poly_cost(net, 1, "load", cp1_eur_per_mw=-90.0)
    pp.create_pwl_cost(net, 0, "ext_grid", [[-5.0, 0.0, 10.0], [0.0, 5.0, 50.0]])
    tables, _ = tables_of(net)
    rows = {row.element: row for row in tables.dispatches}
    assert set(rows) == {"above", "plant", "shift"}
    assert (rows["plant"].p_min_mw, rows["plant"].p_max_mw) == (0.2, 3.0)
    assert (rows["plant"].q_min_mvar, rows["plant"].q_max_mvar) == (-1.0, 2.0)
    assert (rows["plant"].c2_eur_mw2h, rows["plant"].c1_eur_mwh, rows["plant"].c0_eur_h) == (0.5, 40.0, 7.0)
    # Consuming 1 MW more brings 90 EUR: an injection of -1 MW costs -90 EUR.
    assert (rows["shift"].p_min_mw, rows["shift"].p_max_mw, rows["shift"].c1_eur_mwh) == (-2.0, 0.0, 90.0)
    corners = [(point.element, point.p_mw, point.cost_eur_h) for point in tables.cost_points]
    assert corners == [("above", -5.0, -50.0), ("above", 0.0, 0.0), ("above", 5.0, 250.0)]
    build(tables)


def test_a_cost_curve_that_falls_or_of_what_cannot_be_called_is_refused(net: Any) -> None:
    pp.create_pwl_cost(net, 0, "ext_grid", [[0.0, 5.0, 50.0], [5.0, 9.0, 20.0]])
    direct_current(net)
    pp.create_poly_cost(net, 0, "dcline", cp1_eur_per_mw=1.0)
    with pytest.raises(Refused) as refused:
        tables_of(net)
    assert {(f.place, f.code) for f in refused.value.findings} == {
        ("net.ext_grid: above", "not_convex"),
        ("net.dcline: dcline 0", "cost_of_other"),
    }


def test_the_published_state_of_the_feeder_of_baran_and_wu_comes_out() -> None:
    tables, _ = tables_of(nw.case33bw())
    network, state = solved(tables)
    assert 1000 * state.losses_mw[0] == pytest.approx(202.677, abs=5e-4)
    assert state.vm[0].min() == pytest.approx(0.91309, abs=5e-6)
    # The literature counts buses from 1.
    assert int(network.node_names[int(state.vm[0].argmin())]) + 1 == 18
