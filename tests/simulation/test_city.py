"""A city: no two substations alike, the same on every run, and a day ahead at each in any number of processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from coflex.adapters.grids.simbench import YEAR, SimbenchGrid, _write_cache, load_grid
from coflex.adapters.store.memory import MemoryStore
from coflex.app import run_city
from coflex.domain.clearing import Holding
from coflex.domain.errors import CoflexError, Refused
from coflex.domain.offer import Offer
from coflex.domain.series import Series
from coflex.domain.time import QUARTER, Axis
from coflex.grid.assess import violations
from coflex.grid.powerflow import solve
from coflex.market.design import load_design
from coflex.process.day import Day
from coflex.process.ports import Case
from coflex.simulation.city import KINDS, SUBSTATIONS, MediumVoltage, compose, day_ahead, substation
from support.second_engine import pandapower_net
from support.small_grids import radial

DESIGN = load_design("beflexible_six")


def small(axis: Axis, sn_mva: float) -> MediumVoltage:
    """The feeder pair behind its transformer, with loads in the evening and the sun at noon."""
    clock = np.arange(len(axis)) % 96 / 96
    load = 0.4 + 0.2 * np.sin(2 * np.pi * (clock - 0.55)) ** 2
    sun = np.maximum(0.0, np.sin(np.pi * (clock - 0.25) / 0.5))
    tables = radial(v_min=0.975, v_max=1.03, sn_mva=sn_mva)
    tables = replace(
        tables,
        loads=tuple(replace(row, profile_p="load", profile_q="load") for row in tables.loads),
        generators=tuple(replace(row, profile="sun") for row in tables.generators),
        storages=(),
    )
    return MediumVoltage(tables, Series(("load", "sun"), axis, np.round(np.vstack([load, sun]), 6)))


@lru_cache(maxsize=1)
def grids() -> Mapping[str, MediumVoltage]:
    """Five weeks of a grid of each kind."""
    axis = Axis(YEAR[96 * 155], 96 * 36, QUARTER)
    return {kind: small(axis, 9.0 + k) for k, kind in enumerate(KINDS)}


def shares(case: Case) -> list[tuple[float, float]]:
    """Of each grid of a substation the highest withdrawal, and the highest feed-in of its own photovoltaics, of the
    year as shares of its transformers' rated power."""
    values = dict(zip(case.profiles.names, case.profiles.values, strict=True))
    found = []
    for name in sorted({row.bus.split("/")[0] for row in case.grid.loads}):
        rated = sum(row.sn_mva for row in case.grid.transformers if row.transformer.startswith(f"{name}/"))
        load = sum(row.p_mw * values[row.profile_p] for row in case.grid.loads if row.load.startswith(f"{name}/"))
        sun = sum(
            row.p_mw * values[row.profile]
            for row in case.grid.generators
            if row.generator.startswith(f"{name}/") and row.technology == "pv"
        )
        found.append((float(np.max(load)) / rated, float(np.max(sun)) / rated))
    return found


# ---------------------------------------------------------------- what a city is composed of


def test_a_substation_is_the_same_alone_and_in_any_city() -> None:
    long, short = list(compose(4, 3, grids())), list(compose(2, 3, grids()))
    for number, case in enumerate(long):
        for other in [substation(number, 3, grids()), *short[number : number + 1]]:
            assert (other.settings, other.grid, other.units, other.groups) == (
                case.settings,
                case.grid,
                case.units,
                case.groups,
            )
            assert other.profiles.names == case.profiles.names
            assert np.array_equal(other.profiles.values, case.profiles.values)
    assert substation(0, 4, grids()).grid != long[0].grid


def test_no_two_substations_are_alike_and_each_beginning_of_the_city_is_mixed() -> None:
    cases = list(compose(len(SUBSTATIONS), 1, grids()))
    found = np.array([np.mean(shares(case), axis=0) for case in cases])
    assert len({tuple(row) for row in found.round(6).tolist()}) == len(cases)
    assert found.min() >= 0.2 * 0.9 and found[:, 0].max() <= 0.85 * 1.1 and found[:, 1].max() <= 1.2 * 1.1
    for count in (5, 10, 25):
        spread = np.ptp(found[:count], axis=0) / np.ptp(found, axis=0)
        assert (spread > 0.6).all(), count
        assert (np.abs(found[:count].mean(axis=0) - found.mean(axis=0)) < 0.2 * np.ptp(found, axis=0)).all(), count


def test_a_grid_feels_nothing_of_its_neighbours_at_the_substation() -> None:
    """The bus above holds its voltage, so pandapower's answer for each grid by itself is that of the whole."""
    import pandapower as pp

    case = substation(1, 1, grids())
    day = Day(case, DESIGN)
    p, q = (x[40:41] for x in day.injections(day.truth(case.axis)))
    whole = solve(day.network, p, q)
    tables = grids()["comm"].tables
    net = pandapower_net(replace(tables, sources=(replace(tables.sources[0], vm_pu=1.025),)))
    for index, name in net.bus.name.items():
        mine = [k for k, node in enumerate(day.network.node_of_bus) if day.network.bus_names[k] == f"comm-2/{name}"]
        node = int(day.network.node_of_bus[mine[0]])
        first = day.network.node_names[node] == f"comm-2/{name}"
        net.sgen.loc[net.sgen.bus == index, ["p_mw", "q_mvar"]] = (p[0, node], q[0, node]) if first else (0.0, 0.0)
    pp.runpp(net, calculate_voltage_angles=True, tolerance_mva=1e-10, trafo_model="pi", numba=False)
    for index, name in net.bus.name.items():
        node = day.network.node_of(f"comm-2/{name}")
        assert abs(net.res_bus.vm_pu[index] - whole.vm[0, node]) < 1e-8


def test_grids_that_do_not_fit_together_are_refused_with_every_fault() -> None:
    with pytest.raises(Refused) as missing:
        substation(1, 1, {"rural": grids()["rural"]})
    assert [finding.place for finding in missing.value.findings] == ["grid comm", "grid semiurb"]
    other = grids()["comm"].profiles
    twice = {**grids(), "comm": replace(grids()["comm"], profiles=replace(other, values=other.values * 0.5))}
    with pytest.raises(Refused) as refused:
        substation(1, 1, twice)
    assert [(f.place, f.code) for f in refused.value.findings] == [
        ("grid comm, profile load", "named_twice"),
        ("grid comm, profile sun", "named_twice"),
    ]
    dark = replace(grids()["urban"], tables=replace(grids()["urban"].tables, generators=()))
    with pytest.raises(CoflexError, match="no photovoltaics"):
        substation(0, 1, {**grids(), "urban": dark})


@pytest.mark.slow
def test_of_simbench_25_substations_have_600_feeders_and_some_of_them_are_congested(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    room = tmp_path_factory.mktemp("grids")
    read = {kind: load_grid(f"1-MV-{kind}--0-sw", room) for kind in KINDS}
    given = {kind: MediumVoltage(one.grid, one.profiles) for kind, one in read.items()}
    feeders, congested = 0, 0
    for case in compose(25, 1, given):
        day = Day(case, DESIGN)
        feeders += len(day.perimeters)
        state = solve(day.network, *day.injections(day.truth(case.axis)))
        congested += bool(violations(day.network, state, case.axis))
    assert feeders == 600
    assert 5 <= congested <= 20


# ---------------------------------------------------------------- a day ahead


def test_a_day_ahead_names_its_needs_clears_them_and_lights_every_perimeter() -> None:
    case, store = substation(1, 1, grids()), MemoryStore()
    found = day_ahead(case, DESIGN, store)
    day = Day(case, DESIGN)
    local = day.plans[0]
    assert (found.name, found.feeders, found.nodes) == ("city-02", 6, day.network.n)
    assert sum(found.lights.values()) == 6 * 2 * 96
    with store.transaction() as t:
        outlook, held, offers = t.series(f"{local.id}/forecast"), t.all(Holding), t.all(Offer, session=local.id)
    assert outlook is not None
    p, q = day.injections(outlook)
    assert found.needs == found.violations == len(violations(day.network, solve(day.network, p, q), local.horizon)) > 0
    change_p, change_q = day.changes(day.held_kw(held, local.horizon))
    after = violations(day.network, solve(day.network, p + change_p, q + change_q), local.horizon)
    assert found.uncovered == 0 and after == ()
    assert found.offers == len(offers) and found.cost_eur > Decimal(0)
    assert np.isclose(found.awarded_mwh, sum(one.quantity_kw for one in held) / 4000)
    assert found == day_ahead(case, DESIGN, MemoryStore())


def test_processes_answer_in_the_order_of_the_city_and_as_one_alone(tmp_path: Path) -> None:
    given = {kind: small(YEAR, 9.0 + k) for k, kind in enumerate(KINDS)}
    for kind, grid in given.items():
        _write_cache(tmp_path / f"1-MV-{kind}--0-sw", SimbenchGrid(grid.tables, grid.profiles))
    before = dict(os.environ)
    told: list[str] = []
    found = run_city(3, 1, 2, told.append, tmp_path)
    alone = [day_ahead(case, DESIGN, MemoryStore(case.zone)) for case in compose(3, 1, given)]
    assert list(found) == alone
    assert [one.name for one in found] == ["city-01", "city-02", "city-03"]
    assert told[-1] == "city-03 done, 3 of 3" and os.environ == before
    assert all(one.seconds.composing > 0 and one.seconds.day_ahead > 0 for one in found)


def test_a_city_without_substations_or_processes_is_none(tmp_path: Path) -> None:
    for count, workers in ((0, 1), (1, 0)):
        with pytest.raises(CoflexError, match="at least"):
            run_city(count, 1, workers, print, tmp_path)


def test_a_design_that_does_not_light_what_it_has_cleared_is_refused() -> None:
    short = DESIGN.model_copy(update={"sessions": DESIGN.sessions[:1]})
    with pytest.raises(CoflexError, match="does not begin"):
        day_ahead(substation(0, 1, grids()), short, MemoryStore())
