"""Days on which the operator first sets its own means: what they solve is not bought, and what is bought is enough."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from coflex.adapters.exchange.tables.case_folder import write_case
from coflex.adapters.store.memory import MemoryStore
from coflex.domain.clearing import Award
from coflex.domain.need import LocalNeed
from coflex.grid.network import build
from coflex.grid.tables import GridTables, Shunt, Switch
from coflex.market.design import Design, load_design, read_design
from coflex.process.activate import activate
from coflex.process.day import Day
from coflex.process.measure import grid_states, measure
from coflex.process.operation import operation
from coflex.process.ports import Case
from coflex.process.report import report
from coflex.process.settle import settle
from coflex.simulation.devices import SimulatedDevices
from support.command import coflex, contents
from support.days import cleared_day
from support.second_engine import pandapower_net, run
from support.small_case import small_case
from support.verbs import Kept

COIL = Shunt("coil", "B2", 0.0, -0.3, 0, 2)
MEANS = ("taps", "capacitors")


def design(*means: str) -> Design:
    """The six sessions, whose local ones set means first."""
    return read_design(document(*means), "mine.yaml")


def document(*means: str) -> str:
    body = load_design("beflexible_six").model_dump(mode="json")
    for session in body["sessions"]:
        if session["needs"] == "assessment":
            session["own_means"] = list(means)
    return yaml.safe_dump(body | {"id": "mine"})


def regulated() -> Case:
    """Noon lifts feeder B over a limit that one more tap and two steps of a coil keep only in part."""
    case = small_case()
    grid = case.grid
    grid = replace(
        grid,
        transformers=tuple(replace(row, tap_max=2) for row in grid.transformers),
        buses=tuple(replace(row, v_min_pu=0.95, v_max_pu=1.012) for row in grid.buses),
        shunts=(COIL,),
    )
    return replace(case, grid=grid)


def ringed(v_min: float) -> Case:
    """Feeder B is heavy, feeder A light, and every line of the open ring between them has a switch."""
    case = small_case()
    grid = case.grid
    heavy = {load.bus: 2.0 if load.bus.startswith("B") else 0.3 for load in grid.loads}
    ends = tuple(Switch(f"s {row.line}", "line", row.from_bus, row.line, True) for row in grid.lines[:-1])
    grid = replace(
        grid,
        loads=tuple(
            replace(row, p_mw=row.p_mw * heavy[row.bus], q_mvar=row.q_mvar * heavy[row.bus]) for row in grid.loads
        ),
        buses=tuple(replace(row, v_min_pu=v_min, v_max_pu=1.06) for row in grid.buses),
        switches=grid.switches + ends,
    )
    return replace(case, grid=grid)


DAYS: dict[str, tuple[Case, tuple[str, ...]]] = {
    "taps and a coil": (regulated(), MEANS),
    "switching": (ringed(0.99), ("switching",)),
    "switching that solves all": (ringed(0.985), ("switching",)),
    "taps that solve all": (small_case(), MEANS),
}


@lru_cache(maxsize=8)
def past(name: str, with_means: bool = True) -> tuple[Day, MemoryStore]:
    case, means = DAYS[name]
    chosen = design(*(means if with_means else ()))
    store = MemoryStore(case.zone)
    cleared_day(case, store, design=chosen)
    return Day(case, chosen), store


def bought(store: MemoryStore) -> tuple[int, float, float]:
    """Needs over the day's local sessions; what the DSO definitively bought, in kW quarter-hours and EUR."""
    with store.transaction() as t:
        awards = t.all(Award, buyer="dso")
        cost = sum(float(award.price_eur_mwh) * award.quantity_kw for award in awards) / 4000
        return len(t.all(LocalNeed)), sum(award.quantity_kw for award in awards), cost


def settings_of(store: MemoryStore) -> dict[str, Any]:
    with store.transaction() as t:
        return dict(t.document("operation") or {})


def at_setting(grid: GridTables, departs: dict[str, Any]) -> GridTables:
    """The tables with the positions that a quarter-hour's document names, put in by hand."""
    taps, steps, closed = (departs.get(kind, {}) for kind in ("taps", "steps", "closed"))
    return replace(
        grid,
        transformers=tuple(replace(row, tap_pos=taps.get(row.transformer, row.tap_pos)) for row in grid.transformers),
        shunts=tuple(replace(row, step=steps.get(row.shunt, row.step)) for row in grid.shunts),
        switches=tuple(replace(row, closed=closed.get(row.switch, row.closed)) for row in grid.switches),
    )


@pytest.mark.spec("GRID-04")
@pytest.mark.parametrize("name", ["taps and a coil", "switching"])
def test_what_the_means_solve_in_part_leaves_fewer_needs_and_costs_less(name: str) -> None:
    (_, without), (_, having) = past(name, with_means=False), past(name)
    before, after = bought(without), bought(having)
    assert settings_of(having) and not settings_of(without)
    assert all(0 < less < more for less, more in zip(after, before, strict=True))


@pytest.mark.spec("GRID-04")
@pytest.mark.parametrize("name", ["taps that solve all", "switching that solves all"])
def test_nothing_is_bought_on_a_day_that_the_means_solve(name: str) -> None:
    _, without = past(name, with_means=False)
    assert min(bought(without)) > 0
    day, having = past(name)
    assert bought(having) == (0, 0, 0.0)
    with having.transaction() as t:
        planned = [t.document(f"planned/{plan.id}") or {} for plan in day.plans if plan.session.own_means]
    assert sum(one["violations"] for one in planned) > 0
    assert all(one["spared"] == one["violations"] and one["needs"] == 0 for one in planned)


@pytest.mark.spec("GRID-04")
@pytest.mark.parametrize("name", list(DAYS))
def test_a_second_engine_at_the_settings_in_force_finds_no_violation_in_the_planned_day(name: str) -> None:
    import pandapower as pp

    day, store = past(name)
    departs = settings_of(store)
    assert departs
    with store.transaction() as t:
        planned = grid_states(day, t, np.zeros((len(day.units), len(day.case.axis))))["planned"]
        states = {one: build(at_setting(day.case.grid, one_setting)) for one, one_setting in departs.items()}
    nets: dict[str, Any] = {}
    for k, start in enumerate(day.case.axis):
        setting = departs.get(start.isoformat(), {})
        tables = at_setting(day.case.grid, setting)
        if repr(setting) not in nets:
            net = nets[repr(setting)] = pandapower_net(tables)
            place = {bus: index for index, bus in net.bus.name.items()}
            for row in tables.shunts:
                pp.create_shunt(net, place[row.bus], -row.q_mvar, row.p_mw, step=row.step, max_step=row.step_max)
        network = states.get(start.isoformat(), day.network)
        net = run(nets[repr(setting)], network, planned.p_mw[k], planned.q_mvar[k])
        at = [place[bus] for bus in network.bus_names]
        assert np.abs(net.res_bus.vm_pu.to_numpy()[at] - planned.vm[k, day.network.node_of_bus]).max() < 1e-7
        fed = (net.bus.name != "H").to_numpy()
        vm = net.res_bus.vm_pu.to_numpy()[fed]
        assert np.max(vm - net.bus.max_vm_pu.to_numpy()[fed]) <= 1e-6
        assert np.max(net.bus.min_vm_pu.to_numpy()[fed] - vm) <= 1e-6
        assert np.nanmax(net.res_line.loading_percent) <= 100.0001
        assert np.nanmax(net.res_trafo.loading_percent) <= 100.0001
    assert len(nets) > 1


@pytest.mark.spec("GRID-04")
def test_means_that_would_leave_more_to_buy_stay_where_they_are() -> None:
    """At noon B2 and B3 are too high together. With B3 on the other feeder one limit is broken instead of two, and B2,
    which has lost B3's load, by more."""
    case = small_case()
    ends = tuple(Switch(f"s {row.line}", "line", row.from_bus, row.line, True) for row in case.grid.lines[:-1])
    case = replace(case, grid=replace(case.grid, switches=case.grid.switches + ends))
    stores = [MemoryStore(case.zone) for _ in range(2)]
    for store, means in zip(stores, ((), ("switching",)), strict=True):
        cleared_day(case, store, design=design(*means))
    without, having = (bought(store) for store in stores)
    assert all(less <= more for less, more in zip(having, without, strict=True))


@pytest.mark.spec("GRID-04")
def test_the_grid_that_the_verbs_see_is_built_from_the_settings_that_were_kept() -> None:
    day, store = past("taps and a coil")
    departs = settings_of(store)
    with store.transaction() as t:
        runs = operation(day, t, day.case.axis)
    for start, there in zip(day.case.axis, runs.of_period.tolist(), strict=True):
        setting = departs.get(start.isoformat(), {})
        alone, seen = build(at_setting(day.case.grid, setting)), runs.networks[there]
        assert np.array_equal(seen.tap, alone.tap) and np.array_equal(seen.node_shunt, alone.node_shunt)
        assert bool(there) == bool(setting)


@pytest.mark.spec("GRID-04", "GRID-09")
def test_the_tables_of_the_day_tell_every_setting_and_every_profile_that_was_sent() -> None:
    case, means = DAYS["taps and a coil"]
    store, chosen = MemoryStore(case.zone), design(*means)
    cleared_day(case, store, design=chosen)
    day = Day(case, chosen)
    activate(day, store)
    measure(day, store, SimulatedDevices(day.units, case.settings.devices, case.settings.seed, case.axis))
    settle(day, store)
    kept = Kept()
    report(day, store, kept)
    tables = kept.given[0][0]
    told: dict[str, Any] = {}
    for row in tables["settings"].rows:
        kind = {"tap": "taps", "step": "steps"}[row.kind]
        told.setdefault(row.start.isoformat(), {}).setdefault(kind, {})[row.device] = row.position
    assert told == settings_of(store)
    sent = Counter(row.session for row in tables["substation_profiles"].rows)
    horizons = {plan.id: len(plan.horizon) for plan in day.plans}
    assert sent and all(count == horizons[session] for session, count in sent.items())


@pytest.mark.slow
@pytest.mark.spec("GRID-04", "MKT-19")
def test_a_day_run_at_once_and_again_verb_by_verb_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "regulated"
    case = regulated()
    write_case(folder, replace(case, settings=replace(case.settings, id="regulated", design="mine")))
    (folder / "mine.yaml").write_text(document(*MEANS), encoding="utf-8")
    steps = (["register"], ["qualify"], ["clear", "--all"], ["activate"], ["measure"], ["settle"], ["report"])
    for out, commands in (("once", [["run"]]), ("steps", steps)):
        for name, *flags in commands:
            done = coflex(name, folder, *flags, "--out", tmp_path / out)
            assert done.exit_code == 0, done.output
    found = []
    for out in ("once", "steps"):
        files = contents(tmp_path / out / "regulated")
        found.append({name: data for name, data in files.items() if name not in ("coflex.db", "timings.json")})
    assert found[0] == found[1]
    assert found[0]["settings.csv"].count(b"\n") > 1 and found[0]["substation_profiles.csv"].count(b"\n") > 1
