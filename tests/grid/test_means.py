"""The operator's own means: against every setting tried, and by what they spare the market."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.quantity import Floats
from coflex.grid.means import BURDEN, Means, OperatedGrid, Setting, apply, burden, schedule
from coflex.grid.network import Network, build, moved
from coflex.grid.powerflow import solve
from coflex.grid.rows import AcGrid, Guard, RowKeys
from coflex.grid.tables import GridTables, Shunt, Switch
from support.small_grids import injections, radial

BANK = Shunt("bank", "B2", 0.0, 0.4, 0, 3)


def switched(tables: GridTables) -> GridTables:
    """The ring with a switch at the first bus of every line, open at A3-B3 alone."""
    ends = tuple(Switch(f"s {row.line}", "line", row.from_bus, row.line, row.line != "A3-B3") for row in tables.lines)
    return replace(tables, switches=(tables.switches[0], *ends))


def day(tables: GridTables, network: Network, load: list[float], generation: list[float]) -> tuple[Floats, Floats]:
    pairs = [injections(tables, network, a, b) for a, b in zip(load, generation, strict=True)]
    p, q = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return p, q


@pytest.mark.spec("GRID-04")
@settings(max_examples=12, deadline=None)
@given(load=st.floats(0.2, 1.6), generation=st.floats(0.0, 6.0))
def test_no_setting_of_taps_and_bank_burdens_the_limits_less_by_more_than_a_step_is_worth(
    load: float, generation: float
) -> None:
    tables = replace(radial(v_min=0.97, v_max=1.02), shunts=(BANK,))
    means = Means(("T",), ("bank",))
    network = build(tables)
    p, q = injections(tables, network, load, generation)
    plan = schedule(tables, means, p, q)
    every = [Setting((tap,), (step,), frozenset()) for tap, step in product(range(-9, 10), range(4))]
    least = min(
        float(burden(there, solve(there, p, q), Guard())[0])
        for there in (build(apply(tables, means, setting)) for setting in every)
    )
    chosen = plan.settings[plan.of_period[0]]
    assert plan.burden_after[0] <= least + (chosen.distance(plan.settings[0]) + 1) / BURDEN + 1e-9
    assert plan.burden_after[0] <= plan.burden_before[0]


@pytest.mark.spec("GRID-04")
def test_moving_the_open_point_relieves_an_overloaded_line_and_keeps_the_grid_radial() -> None:
    tables = switched(radial(i_max_a=130.0, v_min=0.9))
    other = {"A3": 1.9, "B3": 0.4}
    heavy = tuple(replace(row, p_mw=other.get(row.bus, row.p_mw)) for row in tables.loads)
    tables = replace(tables, loads=heavy, generators=())
    network = build(tables)
    p, q = injections(tables, network)
    means = Means(switches=Means.all_of(tables).switches)
    plan = schedule(tables, means, p, q)
    assert plan.burden_before[0] > 0 and plan.burden_after[0] == 0
    chosen = plan.settings[plan.of_period[0]]
    assert "s A3-B3" not in chosen.open and len(chosen.open) == 1
    # Every bus is still fed, once: as many closed branches as nodes beside the source.
    there = plan.operation.networks[plan.of_period[0]]
    assert (there.from_on & there.to_on).sum() == there.n - 1


@pytest.mark.spec("GRID-04")
def test_a_network_moved_to_a_setting_is_the_one_built_from_its_tables() -> None:
    tables = switched(replace(radial(), shunts=(BANK,)))
    means = Means.all_of(tables)
    there = apply(tables, means, Setting((-4,), (2,), frozenset({"s B2-B3"})))
    one, other = moved(build(tables), there), build(there)
    assert abs(one.admittance - other.admittance).max() < 1e-12
    p, q = injections(tables, one)
    assert np.abs(solve(one, p, q).u - solve(other, p, q).u).max() < 1e-12


@pytest.mark.spec("GRID-04")
def test_nothing_moves_where_nothing_is_broken() -> None:
    tables = switched(replace(radial(), shunts=(BANK,)))
    network = build(tables)
    p, q = day(tables, network, [0.5] * 4, [1.0] * 4)
    plan = schedule(tables, Means.all_of(tables), p, q)
    assert plan.operations == 0 and len(plan.settings) == 1


@pytest.mark.spec("GRID-04")
def test_a_device_stays_where_it_is_between_two_periods_that_need_it() -> None:
    tables = radial(v_min=0.97, v_max=1.03)
    network = build(tables)
    p, q = day(tables, network, [1.5, 0.9, 1.5], [0.0, 0.5, 0.0])
    means = Means(("T",))
    plan = schedule(tables, means, p, q)
    alone = [schedule(tables, means, p[[t]], q[[t]]) for t in range(3)]
    assert [one.operations for one in alone] == [alone[0].operations, 0, alone[0].operations]
    # The middle quarter-hour bears the setting of its neighbours, so nothing moves back and forth.
    assert plan.operations == alone[0].operations
    assert (plan.burden_after <= np.array([float(one.burden_after[0]) for one in alone]) + 1 / BURDEN).all()


@pytest.mark.spec("GRID-04")
def test_each_period_is_seen_at_its_own_setting() -> None:
    tables = radial(v_min=0.975, v_max=1.02)
    network = build(tables)
    p, q = day(tables, network, [1.5, 0.1, 1.4], [0.0, 7.0, 0.0])
    plan = schedule(tables, Means(("T",)), p, q)
    assert len(plan.settings) > 1
    together = plan.operation.solve(p, q)
    for t in range(3):
        alone = solve(plan.operation.networks[plan.of_period[t]], p[[t]], q[[t]])
        assert np.abs(together.u[t] - alone.u[0]).max() < 1e-10
    grid = OperatedGrid(plan.operation, p, q, Guard(voltage_pu=0.004))
    none = np.zeros_like(p)
    everywhere = np.arange(3)
    seen = grid.look(none, none, everywhere, RowKeys.none())
    assert len(seen.broken)
    rows = grid.rows(seen.state, everywhere, seen.broken, none, none)
    for r in range(len(rows)):
        t = int(rows.period[r])
        there = AcGrid(plan.operation.networks[plan.of_period[t]], p, q, grid.guard)
        state = there.look(none, none, np.array([t]), RowKeys.none()).state
        key = RowKeys(seen.broken.period[[r]], seen.broken.form[[r]], seen.broken.index[[r]])
        one = there.rows(state, np.array([t]), key, none, none)
        assert (one.names[0], one.room[0]) == (rows.names[r], rows.room[r])
        assert np.abs(one.dp[0] - rows.dp[r]).max() < 1e-12
    assert np.array_equal(grid.headroom(seen.state, everywhere, seen.broken), rows.room)


@pytest.mark.spec("GRID-04")
def test_the_order_of_devices_does_not_change_the_burden_that_is_left() -> None:
    tables = switched(replace(radial(v_min=0.98, i_max_a=110.0), shunts=(BANK,)))
    turned = replace(tables, switches=tables.switches[::-1], lines=tables.lines[::-1])
    left = []
    for one in (tables, turned):
        network = build(one)
        p, q = day(one, network, [1.3, 1.0], [0.2, 0.2])
        left.append(schedule(one, Means.all_of(one), p, q).burden_after)
    assert np.abs(left[0] - left[1]).max() < 1 / BURDEN
