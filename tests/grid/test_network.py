"""From tables to a network: what is joined, and every fault with its place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coflex.domain.errors import Refused
from coflex.grid.network import build, check
from coflex.grid.powerflow import solve
from coflex.grid.tables import Bus, GridTables, Source, Switch
from support.small_grids import injections, line, radial


def codes(tables: GridTables) -> set[tuple[str, str]]:
    return {(finding.place, finding.code) for finding in check(tables)}


def with_bus(tables: GridTables, name: str) -> GridTables:
    return replace(tables, buses=(*tables.buses, Bus(name, 20.0, 0.95, 1.05, 0.0, 0.0, "")))


@pytest.mark.spec("GRID-01")
def test_two_buses_joined_by_a_closed_switch_are_one_node() -> None:
    network = build(radial())
    assert network.n == len(radial().buses) - 1
    assert network.node_of("M0") == network.node_of("M1")
    assert network.node_names[network.node_of("M1")] == "M0"


@pytest.mark.spec("GRID-01")
def test_an_open_switch_keeps_two_buses_apart_and_names_the_island() -> None:
    tables = radial()
    opened = replace(tables, switches=(replace(tables.switches[0], closed=False), tables.switches[1]))
    with pytest.raises(Refused) as refused:
        build(opened)
    (island,) = refused.value.findings
    assert island.code == "island" and island.place == "buses.csv: bus M1" and "A4" in island.message


@pytest.mark.spec("GRID-01")
def test_a_node_keeps_the_tightest_limits_of_its_buses() -> None:
    tables = radial()
    narrow = tuple(replace(bus, v_min_pu=0.97, v_max_pu=1.03) if bus.bus == "M1" else bus for bus in tables.buses)
    network = build(replace(tables, buses=narrow))
    node = network.node_of("M0")
    assert (network.v_min[node], network.v_max[node]) == (0.97, 1.03)


@pytest.mark.spec("GRID-01")
def test_the_order_of_rows_in_the_tables_does_not_change_any_voltage() -> None:
    tables = radial()
    turned = GridTables(*(tuple(reversed(getattr(tables, name))) for name in tables.__dataclass_fields__))
    a, b = build(tables), build(turned)
    first, second = solve(a, *injections(tables, a)), solve(b, *injections(turned, b))
    for bus in tables.buses:
        assert np.isclose(first.u[0, a.node_of(bus.bus)], second.u[0, b.node_of(bus.bus)], atol=1e-10)


@pytest.mark.spec("GRID-01")
def test_faults_are_found_together_each_with_its_place() -> None:
    tables = with_bus(radial(), "A1")
    broken = replace(
        tables,
        buses=(*tables.buses, replace(tables.buses[4], bus="X1", v_min_pu=1.2)),
        lines=(*tables.lines, line("A1", "nowhere", 1.0, 100.0), line("A1", "A2", 1.0, -1.0)),
        transformers=(replace(tables.transformers[0], tap_pos=12, vkr_percent=20.0),),
        switches=(*tables.switches, Switch("s", "line", "A1", "no line", True), Switch("r", "fuse", "A1", "A2", True)),
        loads=(*tables.loads, replace(tables.loads[0], load="stray", bus="nowhere")),
        generators=(*tables.generators, replace(tables.generators[0], bus="A1")),
    )
    assert codes(broken) >= {
        ("buses.csv", "named_twice"),
        ("lines.csv", "named_twice"),
        ("loads.csv, generators.csv, storages.csv", "named_twice"),
        ("lines.csv: A1-nowhere", "unknown_bus"),
        ("loads.csv: stray", "unknown_bus"),
        ("switches.csv: s", "unknown_element"),
        ("switches.csv: r", "unknown_kind"),
        ("buses.csv: X1", "impossible_value"),
        ("lines.csv: A1-A2", "impossible_value"),
        ("transformers.csv: T", "impossible_value"),
        ("transformers.csv: T", "impossible_tap"),
    }


@pytest.mark.spec("GRID-01")
def test_several_sources_and_none_at_all_are_refused() -> None:
    tables = radial()
    second = replace(tables, sources=(*tables.sources, Source("other", "A3", 1.0)))
    assert codes(second) == {("sources.csv", "several_sources")}
    assert codes(replace(tables, sources=())) == {("sources.csv", "no_source")}


@pytest.mark.spec("GRID-01")
def test_several_sources_are_found_beside_an_unknown_bus() -> None:
    tables = radial()
    broken = replace(
        tables,
        sources=(*tables.sources, Source("other", "A3", 1.0)),
        loads=(replace(tables.loads[0], bus="nowhere"), *tables.loads[1:]),
    )
    assert {code for _, code in codes(broken)} == {"several_sources", "unknown_bus"}


@pytest.mark.spec("GRID-01")
def test_buses_of_different_voltage_are_not_joined() -> None:
    tables = radial()
    joined = replace(tables, switches=(*tables.switches, Switch("wrong", "bus", "H", "M0", True)))
    assert any(code == "voltages_joined" for _, code in codes(joined))


@pytest.mark.spec("GRID-01")
def test_a_line_between_two_voltage_levels_is_found() -> None:
    tables = radial()
    wrong = replace(tables, lines=(*tables.lines, line("H", "A1", 5.0, 300.0)))
    assert any(place == "lines.csv: H-A1" for place, _ in codes(wrong))


@pytest.mark.spec("GRID-01")
def test_a_bypassed_branch_is_found_or_carries_nothing() -> None:
    tables = radial()
    bypass = replace(tables, switches=(*tables.switches, Switch("bypass", "bus", "A1", "A2", True)))
    if not any("A1-A2" in place for place, _ in codes(bypass)):
        network = build(bypass)
        state = solve(network, *injections(bypass, network))
        assert network.node_of("A1") == network.node_of("A2") and np.isfinite(state.u).all()


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_found_with_their_place(value: float) -> None:
    tables = radial()
    wrong = replace(
        tables,
        lines=(replace(tables.lines[0], c_nf=value), *tables.lines[1:]),
        sources=(replace(tables.sources[0], vm_pu=value),),
        loads=(replace(tables.loads[0], p_mw=value), *tables.loads[1:]),
        generators=(replace(tables.generators[0], q_mvar=value), *tables.generators[1:]),
    )
    places = {place for place, _ in codes(wrong)}
    for wanted in ("lines.csv: M1-A1", "sources.csv: above", "loads.csv: load A1", "generators.csv: pv A3"):
        assert any(place.startswith(wanted) for place in places)


@pytest.mark.spec("GRID-01")
def test_a_source_without_voltage_is_found() -> None:
    tables = radial()
    dead = replace(tables, sources=(replace(tables.sources[0], vm_pu=0.0),))
    assert ("sources.csv: above", "impossible_value") in codes(dead)
