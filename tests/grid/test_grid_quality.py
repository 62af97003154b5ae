"""Each finding about data is raised by one spoiled table, and by none of a grid that is in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from coflex.adapters.grids.simbench import SimbenchGrid
from coflex.domain.errors import Finding
from coflex.grid.quality import SEVERE, quality
from coflex.grid.tables import Branch, Bus, Generator, GridTables, Line, Load, Source, Switch, Transformer


@pytest.fixture
def grid() -> GridTables:
    """A feeder at 20 kV with a house behind a transformer, nothing to complain of."""
    volts = {"HV": 110.0, "MV": 20.0, "A": 20.0, "B": 20.0, "LV": 0.4, "H": 0.4}
    lines = [("l1", "MV", "A", 1.5, 300.0), ("l2", "A", "B", 0.8, 300.0), ("l3", "LV", "H", 0.2, 270.0)]
    return GridTables(
        buses=tuple(Bus(name, kv, 0.9, 1.1, 0.0, 0.0, "F01" if kv < 110 else "") for name, kv in volts.items()),
        lines=tuple(Line(n, a, b, km, 0.21 * km, 0.12 * km, 250 * km, i, 100.0) for n, a, b, km, i in lines),
        transformers=(
            Transformer("T1", "HV", "MV", 25.0, 110.0, 20.0, 12.0, 0.4, 14.0, 0.1, 0.0, "hv", 0, -9, 9, 1.5, 0, 100.0),
            Transformer("T2", "B", "LV", 0.4, 20.0, 0.4, 6.0, 1.4, 0.9, 0.3, 0.0, "hv", 0, -2, 2, 2.5, 0, 100.0),
        ),
        switches=(Switch("s1", "line", "A", "l2", True),),
        sources=(Source("above", "HV", 1.02),),
        loads=(Load("shop", "A", 0.8, 0.3, "", ""), Load("house", "H", 0.004, 0.001, "", "")),
        generators=(Generator("roof", "H", 0.01, 0.0, "pv", ""),),
        storages=(),
    )


def changed(grid: GridTables, table: str, name: str, **values: Any) -> GridTables:
    """The grid with other values in one row, named by its first column."""
    rows = getattr(grid, table)
    key = {"buses": "bus", "switches": "switch"}.get(table, table.removesuffix("s"))
    assert name in {getattr(row, key) for row in rows}
    return replace(grid, **{table: tuple(replace(r, **values) if getattr(r, key) == name else r for r in rows)})


def row(table: str, name: str, **values: Any) -> Callable[[GridTables], GridTables]:
    return lambda grid: changed(grid, table, name, **values)


def added(table: str, *rows: Any) -> Callable[[GridTables], GridTables]:
    return lambda grid: replace(grid, **{table: (*getattr(grid, table), *rows)})


def loads_in_kw(grid: GridTables) -> GridTables:
    return replace(grid, loads=tuple(replace(x, p_mw=1e-6 * x.p_mw, q_mvar=1e-6 * x.q_mvar) for x in grid.loads))


def a_line_among_others(grid: GridTables) -> GridTables:
    more = tuple(Line(f"x{k}", "A", "B", 1.0, 0.2 + k / 100, 0.12, 0.0, 300.0, 100.0) for k in range(4))
    return changed(replace(grid, lines=(*grid.lines, *more)), "lines", "l1", r_ohm=18.0, x_ohm=0.3)


def cut_off(grid: GridTables) -> GridTables:
    return changed(grid, "switches", "s1", closed=False)


SPOILED: list[tuple[str, str, Callable[[GridTables], GridTables]]] = [
    ("no_rating", "lines.csv", row("lines", "l1", i_max_a=0.0)),
    ("no_rating", "branches.csv", added("branches", Branch("b", "A", "B", 0.1, 0.2, 0, 0, 1, 0, 1, 0, 100))),
    ("no_length", "lines.csv", row("lines", "l2", length_km=0.0)),
    ("low_power_factor", "loads.csv: perimeter F01", row("loads", "shop", q_mvar=1.4)),
    ("power_too_large", "loads.csv: house", row("loads", "house", p_mw=4.0)),
    ("power_too_large", "loads.csv: house", row("loads", "house", p_mw=4000.0)),
    ("power_too_large", "loads.csv: shop", row("loads", "shop", p_mw=800.0)),
    ("power_too_large", "generators.csv: roof", row("generators", "roof", p_mw=10.0)),
    ("power_too_small", "loads.csv", loads_in_kw),
    ("negative_load", "loads.csv: house", row("loads", "house", p_mw=-0.004)),
    ("negative_generation", "generators.csv: roof", row("generators", "roof", p_mw=-0.01)),
    ("impedance_unusual", "lines.csv: l1", row("lines", "l1", r_ohm=300.0)),
    ("impedance_unusual", "lines.csv: l1", row("lines", "l1", x_ohm=0.0001)),
    ("impedance_unusual", "lines.csv: l1", row("lines", "l1", length_km=1500.0)),
    ("impedance_unusual", "lines.csv: l1", row("lines", "l1", r_ohm=30.0, x_ohm=0.18)),
    ("impedance_unusual", "lines.csv: l1", a_line_among_others),
    ("impedance_unusual", "lines.csv: l3", row("lines", "l3", length_km=8.0, r_ohm=2.4, x_ohm=0.9)),
    ("rating_unusual", "lines.csv: l1", row("lines", "l1", i_max_a=0.3)),
    ("rating_unusual", "lines.csv: l1", row("lines", "l1", i_max_a=300_000.0)),
    ("given_twice", "lines.csv: again", lambda g: replace(g, lines=(*g.lines, replace(g.lines[0], line="again")))),
    ("vk_unusual", "transformers.csv: T1", row("transformers", "T1", vk_percent=0.12, vkr_percent=0.01)),
    ("vk_unusual", "transformers.csv: T1", row("transformers", "T1", vk_percent=120.0)),
    ("size_unusual", "transformers.csv: T2", row("transformers", "T2", sn_mva=400.0)),
    ("tap_outside", "transformers.csv: T2", row("transformers", "T2", tap_pos=3)),
    ("tap_range_unusual", "transformers.csv: T1", row("transformers", "T1", tap_step_percent=15.0)),
    ("rated_voltage_off", "transformers.csv: T1", row("transformers", "T1", vn_lv_kv=10.0)),
    ("several_sources", "sources.csv", added("sources", Source("second", "HV", 1.02))),
    ("setpoint_unusual", "sources.csv: above", row("sources", "above", vm_pu=1.2)),
    ("setpoint_unusual", "generators.csv: roof", row("generators", "roof", vm_pu=0.8)),
    ("unfed", "buses.csv: B", cut_off),
    ("bus_alone", "buses.csv", added("buses", Bus("nowhere", 20.0, 0.9, 1.1, 0.0, 0.0, ""))),
    ("limits_inverted", "buses.csv: A", row("buses", "A", v_min_pu=1.1, v_max_pu=0.9)),
    ("limits_loose", "buses.csv", row("buses", "A", v_max_pu=2.0)),
    ("voltage_unusual", "buses.csv", row("buses", "A", vn_kv=20_000.0)),
]


@pytest.mark.spec("GRID-01")
def test_a_grid_in_order_has_no_findings(grid: GridTables) -> None:
    assert quality(grid) == ()


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize(("code", "place", "spoil"), SPOILED, ids=[f"{k}-{s[0]}" for k, s in enumerate(SPOILED)])
def test_a_spoiled_table_is_found_at_its_place(
    grid: GridTables, code: str, place: str, spoil: Callable[[GridTables], GridTables]
) -> None:
    assert (place, code) in {(finding.place, finding.code) for finding in quality(spoil(grid))}


def test_every_severe_code_is_among_those_proved() -> None:
    assert {code for code, _, _ in SPOILED} >= SEVERE


@pytest.mark.spec("GRID-01")
def test_faults_are_found_all_at_once_and_in_any_order_of_rows(grid: GridTables) -> None:
    spoiled = cut_off(changed(changed(grid, "loads", "house", p_mw=4.0), "transformers", "T2", tap_pos=3))
    found = quality(spoiled)
    assert {"power_too_large", "tap_outside", "unfed"} <= {finding.code for finding in found}
    turned = {"loads": spoiled.loads[::-1], "transformers": spoiled.transformers[::-1], "lines": spoiled.lines[::-1]}
    turned |= {"buses": spoiled.buses[::-1]}
    assert quality(replace(spoiled, **turned)) == found


def test_the_message_names_the_unit_and_the_open_switch(grid: GridTables) -> None:
    def message(tables: GridTables, code: str) -> str:
        return " ".join(finding.message for finding in quality(tables) if finding.code == code)

    assert "kW written as MW" in message(changed(grid, "loads", "house", p_mw=4.0), "power_too_large")
    assert "for W written as MW" in message(changed(grid, "loads", "house", p_mw=40_000.0), "power_too_large")
    assert "close one of s1" in message(cut_off(grid), "unfed")
    many = replace(grid, lines=tuple(replace(grid.lines[0], line=f"n{k}", i_max_a=0.0) for k in range(12)))
    assert "and 4 more" in message(many, "no_rating")


@pytest.mark.spec("GRID-01")
def test_a_grid_of_simbench_is_in_order(urban: SimbenchGrid) -> None:
    assert quality(urban.grid) == ()


@pytest.mark.spec("GRID-01")
def test_a_slip_of_unit_in_a_simbench_grid_is_found_everywhere(urban: SimbenchGrid) -> None:
    grid = urban.grid
    as_kw = replace(grid, loads=tuple(replace(x, p_mw=1000 * x.p_mw, q_mvar=1000 * x.q_mvar) for x in grid.loads))
    found: set[Finding] = {finding for finding in quality(as_kw) if finding.code == "power_too_large"}
    assert len(found) > len(grid.loads) / 2
