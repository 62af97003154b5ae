"""Drawn cases: enough of everything, sound by the rules of the register, and the same on every run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import fields, replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from coflex.adapters.exchange.tables.case_folder import check_case, read_case, write_case
from coflex.adapters.grids.simbench import SimbenchGrid, load_grid
from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Floats
from coflex.domain.unit import Level, Scope, Technology
from coflex.process.ports import Case, CaseSettings, DeviceSettings, TsoSettings
from coflex.simulation.cases import draw_case, scaled

CODE = "1-MV-urban--0-sw"
SETTINGS = CaseSettings(
    id="urban",
    title="Urban grid, the day of 100 quarter-hours",
    grid=CODE,
    day=date(2016, 10, 30),
    zone="Europe/Berlin",
    seed=7,
    design="beflexible_six",
    load_scale=0.8,
    pv_scale=2.0,
    tso=TsoSettings(5.0, 4.0, Decimal(400)),
    devices=DeviceSettings(0.02, 0.03),
)
FLEXIBLE = {Technology.HEAT_PUMP, Technology.EV_CHARGING, Technology.WATER_PUMP, Technology.INDUSTRIAL_LOAD}


@pytest.fixture(scope="module")
def source(grids: Path) -> SimbenchGrid:
    return load_grid(CODE, grids)


@pytest.fixture(scope="module")
def case(source: SimbenchGrid) -> Case:
    return draw_case(source.grid, source.profiles, SETTINGS)


def perimeters(case: Case) -> dict[str, str]:
    """Perimeter of each unit in the modelled grid."""
    of_bus = {bus.bus: bus.perimeter for bus in case.grid.buses}
    bus_of = {point.id: point.bus for point in case.points}
    return {unit.id: of_bus[bus_of[unit.connection_point]] for unit in case.units if unit.element}


@pytest.mark.spec("REG-02", "REG-05")
def test_a_drawn_case_has_no_faults(source: SimbenchGrid) -> None:
    for seed in range(5):
        settings = replace(SETTINGS, seed=seed, load_scale=0.5 + 0.2 * seed, pv_scale=1.0 + seed)
        assert check_case(draw_case(source.grid, source.profiles, settings)) == ()


@pytest.mark.spec("REG-02")
def test_a_case_has_units_and_providers_enough_on_buses_with_loads(case: Case) -> None:
    inside = [unit for unit in case.units if unit.element]
    plants = [unit for unit in case.units if not unit.element]
    assert len(inside) == 320 and len(plants) == 3
    assert len({unit.provider for unit in inside}) == 14 and len({unit.provider for unit in plants}) == 2
    assert {unit.technology for unit in inside} == set(Technology) - {Technology.HYDRO, Technology.POWER_PLANT}
    with_loads = {load.bus for load in case.grid.loads}
    level = {point.id: (point.level, point.bus) for point in case.points}
    assert all(level[unit.connection_point][1] in with_loads for unit in inside)
    assert all(level[unit.connection_point] == (Level.TRANSMISSION, "") for unit in plants)
    assert all(10_000 <= unit.up_kw == unit.down_kw <= 25_000 for unit in plants)
    assert all(max(unit.up_kw, unit.down_kw) >= 5 and unit.full_activation_time_s <= 900 for unit in case.units)


@pytest.mark.spec("XCH-04")
def test_a_drawn_case_reads_back_to_the_bit(case: Case, tmp_path: Path) -> None:
    write_case(tmp_path / "urban", case)
    read = read_case(tmp_path / "urban")
    assert len(read.axis) == 100
    for field in fields(Case):
        if field.name != "profiles":
            assert getattr(read, field.name) == getattr(case, field.name)
    assert (read.profiles.names, read.profiles.axis) == (case.profiles.names, case.profiles.axis)
    assert read.profiles.values.tobytes() == case.profiles.values.tobytes()


def test_the_parts_of_a_load_add_to_it_in_every_digit(case: Case, source: SimbenchGrid) -> None:
    parts = defaultdict(list)
    for load in case.grid.loads:
        whole, _, kind = load.load.rpartition(" ")
        parts[whole if kind in set(FLEXIBLE) else load.load].append(load)
    carved = 0
    for load in scaled(source.grid, SETTINGS.load_scale, SETTINGS.pv_scale).loads:
        rows = parts.pop(load.load)
        for column in ("p_mw", "q_mvar"):
            total = sum(Decimal(repr(getattr(row, column))) for row in rows)
            assert total == Decimal(repr(getattr(load, column)))
        assert {(row.bus, row.profile_p, row.profile_q) for row in rows} == {(load.bus, load.profile_p, load.profile_q)}
        shares = [row.p_mw / load.p_mw for row in rows if row.load != load.load]
        assert all(0.0999 < share < 0.3501 for share in shares) and sum(shares) < 0.3501
        carved += len(shares)
    assert parts == {} and carved == sum(unit.technology in FLEXIBLE for unit in case.units)


def test_units_are_their_elements(case: Case) -> None:
    highest = dict(zip(case.profiles.names, case.profiles.values.max(axis=1).tolist(), strict=True))
    loads = {load.load: load for load in case.grid.loads}
    generators = {item.generator: item for item in case.grid.generators}
    storages = {item.storage: item for item in case.grid.storages}
    for unit in case.units:
        if unit.technology in FLEXIBLE:
            load = loads[unit.element]
            assert unit.up_kw == unit.down_kw <= load.p_mw * highest[load.profile_p] * 1000 + 1e-3
            assert unit.up_kw > load.p_mw * highest[load.profile_p] * 1000 - 1.001
            assert unit.tan_phi == pytest.approx(load.q_mvar / load.p_mw, rel=1e-2)
        elif unit.technology is Technology.PV:
            assert (unit.up_kw, unit.down_kw) == (0, int(generators[unit.element].p_mw * 1000))
        elif unit.technology is Technology.CHP:
            assert unit.up_kw == unit.down_kw == round(generators[unit.element].p_mw * 1000)
            assert generators[unit.element].profile == "chp_res"
        elif unit.technology is Technology.BATTERY:
            storage = storages[unit.element]
            assert unit.up_kw == unit.down_kw == round(storage.p_rated_mw * 1000)
            stored = storage.energy_mwh * 1000 * storage.soc_initial
            assert unit.energy_up_kwh == pytest.approx(stored * 0.95, abs=1)
            assert unit.energy_down_kwh == pytest.approx(stored / 0.95, abs=1)
            assert 1.9 < storage.energy_mwh / storage.p_rated_mw < 4.1
    assert len({unit.element for unit in case.units if unit.element}) == 320


def test_each_feeder_has_flexibility_for_about_a_third_of_its_peak_and_most_of_its_sun(
    case: Case, source: SimbenchGrid
) -> None:
    of_bus = {bus.bus: bus.perimeter for bus in source.grid.buses}
    grid = scaled(source.grid, SETTINGS.load_scale, SETTINGS.pv_scale)
    curves: dict[str, Floats] = defaultdict(lambda: np.zeros(len(source.profiles.axis)))
    for load in grid.loads:
        curves[of_bus[load.bus]] += 1000 * load.p_mw * source.profiles.row(load.profile_p)
    up, down, sun = Counter[str](), Counter[str](), Counter[str]()
    where = perimeters(case)
    for unit in case.units:
        if unit.element:
            up[where[unit.id]] += unit.up_kw
            (sun if unit.technology is Technology.PV else down)[where[unit.id]] += unit.down_kw
    peaks = {feeder: curve.max() for feeder, curve in curves.items() if feeder}
    assert len(peaks) == 10
    for feeder, peak in peaks.items():
        assert 0.2 < up[feeder] / peak < 0.45 and 0.2 < down[feeder] / peak < 0.45
    assert 0.25 < sum(up.values()) / sum(peaks.values()) < 0.45
    installed = Counter[str]()
    for generator in grid.generators:
        if generator.technology == Technology.PV:
            installed[of_bus[generator.bus]] += 1000 * generator.p_mw
    assert sum(sun.values()) / sum(installed.values()) > 0.8


@pytest.mark.spec("REG-05")
def test_providers_offer_in_groups_of_some_size_in_a_few_perimeters(case: Case) -> None:
    inside = [group for group in case.groups if group.perimeter]
    assert all(3 <= len(group.units) <= 10 for group in inside)
    for scope in Scope:
        spread = Counter(group.provider for group in inside if group.scope is scope)
        assert len(spread) == 14 and set(spread.values()) <= {3, 4}
    members = {scope: {name for g in inside if g.scope is scope for name in g.units} for scope in Scope}
    everyone = {unit.id for unit in case.units if unit.element}
    assert members[Scope.LOCAL] | members[Scope.GLOBAL] == everyone
    assert 0 < len(everyone - members[Scope.LOCAL]) < 40 and 0 < len(everyone - members[Scope.GLOBAL]) < 40
    outside = [(group.scope, len(group.units)) for group in case.groups if not group.perimeter]
    assert sorted(outside) == [(Scope.GLOBAL, 1), (Scope.GLOBAL, 2)]


def test_chp_follows_the_heat_of_the_day_and_of_the_year(case: Case) -> None:
    local = [instant.astimezone(case.zone) for instant in case.profiles.axis]
    level = case.profiles.row("chp_res")
    running = np.array([6 <= moment.hour < 22 for moment in local])
    assert (level[~running] == 0).all()
    assert level[running].min() == pytest.approx(0.6, abs=1e-4) and level[running].max() == pytest.approx(1.0, abs=1e-4)
    winter = np.array([moment.month in (12, 1, 2) for moment in local])
    summer = np.array([moment.month in (6, 7, 8) for moment in local])
    assert level[winter & running].min() > 0.9 and level[summer & running].max() < 0.7


def test_the_order_of_the_grids_rows_does_not_matter(case: Case, source: SimbenchGrid) -> None:
    turned = {field.name: tuple(reversed(getattr(source.grid, field.name))) for field in fields(source.grid)}
    again = draw_case(replace(source.grid, **turned), source.profiles, SETTINGS)
    assert (again.units, again.groups, again.points) == (case.units, case.groups, case.points)
    assert (again.grid.loads, again.grid.generators) == (case.grid.loads, case.grid.generators)
    other = draw_case(source.grid, source.profiles, replace(SETTINGS, seed=8))
    assert other.units != case.units


def test_a_case_is_the_same_bytes_under_another_hash_seed(case: Case, grids: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; "
        "from coflex.adapters.exchange.tables.case_folder import read_case, write_case; "
        "from coflex.adapters.grids.simbench import load_grid; from coflex.simulation.cases import draw_case; "
        f"here = Path(sys.argv[1]); grid = load_grid('{CODE}', Path(sys.argv[2])); "
        "settings = read_case(here / 'one').settings; "
        "write_case(here / 'two', draw_case(grid.grid, grid.profiles, settings))"
    )
    write_case(tmp_path / "one", case)
    environment = os.environ | {"PYTHONHASHSEED": "20161030"}
    subprocess.run([sys.executable, "-c", script, str(tmp_path), str(grids)], env=environment, check=True)
    for path in sorted((tmp_path / "one").iterdir()):
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()


def test_a_grid_without_room_for_the_units_asked_is_refused(source: SimbenchGrid) -> None:
    with pytest.raises(CoflexError, match="has room for"):
        draw_case(source.grid, source.profiles, SETTINGS, units=600)
