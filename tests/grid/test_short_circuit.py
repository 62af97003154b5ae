"""Short circuits by IEC 60909 against pandapower and by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coflex.domain.errors import Refused
from coflex.grid.network import build
from coflex.grid.short_circuit import Case, Conditions, Fault, short_circuits
from coflex.grid.tables import GridTables, Source
from support.low_voltage import balanced, four_wire, pandapower_phases
from support.second_engine import pandapower_net
from support.small_grids import meshed, radial

KINDS = {Fault.THREE_PHASE: "3ph", Fault.SINGLE_PHASE: "1ph"}


def at_neutral_tap(tables: GridTables) -> GridTables:
    """Off the neutral tap pandapower refers impedances by the rated ratio, we by the actual one."""
    transformers = tuple(replace(t, tap_pos=t.tap_neutral) for t in tables.transformers)
    return replace(tables, transformers=transformers)


def with_source(net: Any, mva: float, rx: float) -> Any:
    for case in ("max", "min"):
        net.ext_grid[f"s_sc_{case}_mva"], net.ext_grid[f"rx_{case}"] = mva, rx
        net.ext_grid[f"x0x_{case}"], net.ext_grid[f"r0x0_{case}"] = 1.0, rx
    net.line["endtemp_degree"] = 80.0
    return net


@pytest.fixture(scope="module", params=[("Dyn5", 150.0, 0.0), ("Dyn5", 150.0, 4.4), ("YNyn0", 0.0, 0.0)], ids=str)
def low_voltage(request: pytest.FixtureRequest) -> tuple[GridTables, Any]:
    group, shift, vk0 = request.param
    tables = at_neutral_tap(four_wire(group, shift, vk0=vk0))
    return tables, with_source(pandapower_phases(tables), 1000.0, 0.1)


@pytest.mark.spec("GRID-12")
@pytest.mark.parametrize("case", Case)
@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("tolerance", [0.06, 0.10])
def test_pandapower_finds_the_same_currents_in_a_four_wire_grid(
    low_voltage: tuple[GridTables, Any], case: Case, fault: Fault, tolerance: float
) -> None:
    import pandapower.shortcircuit as sc

    tables, net = low_voltage
    found = short_circuits(tables, build(tables), None, case, fault, Conditions(tolerance))
    sc.calc_sc(net, fault=KINDS[fault], case=case[:3], lv_tol_percent=round(100 * tolerance))
    # Of single-phase currents pandapower counts the capacitance of lines, which the standard leaves out.
    accuracy = 1e-10 if fault is Fault.THREE_PHASE else 3e-6
    assert found.current_ka == pytest.approx(net.res_bus_sc.ikss_ka.to_numpy(), rel=accuracy)
    assert found.current_ka[1] > 7 > found.current_ka[2]


@pytest.mark.spec("GRID-12")
@pytest.mark.parametrize("tables", [radial(), meshed()], ids=["open ring", "closed ring"])
@pytest.mark.parametrize("case", Case)
def test_pandapower_finds_the_same_power_at_every_node_of_a_medium_voltage_grid(tables: Any, case: Case) -> None:
    import pandapower.shortcircuit as sc

    tables = replace(at_neutral_tap(tables), sources=(Source("above", "H", 1.02, 3000.0, 0.15),))
    network = build(tables)
    net = with_source(pandapower_net(tables), 3000.0, 0.15)
    net.sgen["in_service"] = False
    sc.calc_sc(net, fault="3ph", case=case[:3])
    found = short_circuits(tables, network, None, case)
    assert found.power_mva[network.node_of_bus] == pytest.approx(net.res_bus_sc.skss_mw.to_numpy(), rel=1e-10)
    interface = short_circuits(tables, network, np.array([network.slack]), case)
    assert interface.power_mva == pytest.approx([3000.0], rel=1e-12) and interface.node.tolist() == [network.slack]


@pytest.mark.spec("GRID-12")
def test_converters_add_what_pandapower_says_they_add() -> None:
    import pandapower as pp
    import pandapower.shortcircuit as sc

    tables = at_neutral_tap(four_wire())
    net = with_source(pandapower_phases(tables), 1000.0, 0.1)
    pp.create_sgen(net, 6, 0.008, sn_mva=0.008, k=1.2, current_source=True)
    sc.calc_sc(net, fault="3ph", case="max")
    plain, more = (short_circuits(tables, build(tables), conditions=Conditions(converter_factor=k)) for k in (0.0, 1.2))
    assert more.current_ka == pytest.approx(net.res_bus_sc.ikss_ka.to_numpy(), rel=1e-10)
    # At its own bus it adds 1.2 times its rated current.
    assert (more.current_ka - plain.current_ka)[6] == pytest.approx(1.2 * 0.008 / (np.sqrt(3) * 0.4), rel=1e-9)
    assert (more.current_ka > plain.current_ka).all()


@pytest.mark.spec("GRID-12")
def test_a_transformers_short_circuit_power_is_the_textbooks() -> None:
    """1 / (c / S_Q + K_T vk / S_T) by hand; a tap of 5 % changes the voltage below and not the driving c Un."""
    tables = radial(sn_mva=40.0)
    t = tables.transformers[0]
    z_t = complex(t.vkr_percent, np.sqrt(t.vk_percent**2 - t.vkr_percent**2)) / 100
    for position in (0, 4, -4):
        turns = 1 + position * t.tap_step_percent / 100
        given = replace(
            tables, sources=(Source("s", "H", 1.0, 2500.0, 0.1),), transformers=(replace(t, tap_pos=position),)
        )
        z_q = 1.1 / 2500 * complex(0.1, 1) / abs(complex(0.1, 1)) / turns**2
        k_t = 0.95 * 1.1 / (1 + 0.6 * z_t.imag)
        network = build(given)
        found = short_circuits(given, network, np.array([network.node_of("M0")]))
        assert found.power_mva[0] == pytest.approx(1.1 / abs(z_q + k_t * z_t / t.sn_mva), rel=1e-9)


@pytest.mark.spec("GRID-12")
def test_currents_fall_away_from_the_source_and_smallest_ones_are_smaller() -> None:
    tables = four_wire()
    network = build(tables)
    high, low = (short_circuits(tables, network, None, case) for case in Case)
    assert (low.current_ka[1:] < high.current_ka[1:]).all()
    for line in tables.lines:
        a, b = network.node_of(line.from_bus), network.node_of(line.to_bus)
        assert high.current_ka[b] < high.current_ka[a] and low.current_ka[b] < low.current_ka[a]
    stronger = replace(tables, sources=(replace(tables.sources[0], s_sc_mva=2000.0),))
    assert (short_circuits(stronger, network).current_ka > high.current_ka).all()


@pytest.mark.spec("GRID-12")
def test_without_an_earthed_star_point_a_fault_to_earth_carries_no_such_current() -> None:
    tables = balanced(four_wire("Dd0", 0.0))
    found = short_circuits(tables, build(tables), fault=Fault.SINGLE_PHASE)
    assert found.current_ka[0] > 0 and not found.current_ka[1:].any()


@pytest.mark.spec("GRID-12")
def test_a_source_of_unknown_power_is_refused_and_an_unknown_rx_is_told() -> None:
    tables = four_wire()
    network = build(tables)
    with pytest.raises(Refused) as refused:
        short_circuits(replace(tables, sources=(Source("above", "M", 1.0),)), network, conditions=Conditions(0.2))
    assert {f.code for f in refused.value.findings} == {"no_short_circuit_power", "impossible_value"}
    told = short_circuits(replace(tables, sources=(Source("above", "M", 1.0, 1000.0),)), network)
    assert [f.code for f in told.assumed] == ["rx_assumed"]
    assert told.current_ka == pytest.approx(short_circuits(tables, network).current_ka, rel=1e-12)
