"""What a DSO tells the TSO for operational planning, by bookkeeping and by power flows made by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from coflex.domain.errors import Refused
from coflex.domain.series import Series
from coflex.domain.time import Axis
from coflex.grid.injection import element_powers
from coflex.grid.means import Operation
from coflex.grid.network import build, moved
from coflex.grid.planning import (
    Outage,
    aggregates,
    changed,
    outages,
    profiles,
    profiles_over,
    substations,
    transfers,
)
from coflex.grid.powerflow import solve
from coflex.grid.tables import Bus, GridTables, Switch
from support.small_grids import injections, line, meshed, radial, solved


def two_substations(i_max_a: float = 300.0, v_min: float = 0.93) -> GridTables:
    """Feeder A behind transformer TA, feeder B behind TB, tied by the open line A3-B3; a switch at each line's head."""
    tables = radial(i_max_a, v_min)
    (t,) = tables.transformers
    switches = [Switch(f"s {row.line}", "line", row.from_bus, row.line, row.line != "A3-B3") for row in tables.lines]
    return replace(
        tables,
        transformers=(replace(t, transformer="TA", lv_bus="M1"), replace(t, transformer="TB")),
        switches=tuple(switches),
    )


@pytest.mark.spec("GRID-09")
def test_profiles_of_substations_add_up_to_the_interface() -> None:
    tables = two_substations()
    network = build(tables)
    pairs = [injections(tables, network, load, pv) for load, pv in ((1.0, 0.0), (0.4, 3.0))]
    state = solve(network, *(np.concatenate(column) for column in zip(*pairs, strict=True)))
    found = profiles(network, state)
    assert [one.substation for one in found] == ["TA", "TB"]
    assert np.abs(sum(one.p_mw for one in found) - state.interface_p_mw).max() < 1e-9
    assert np.abs(sum(one.q_mvar for one in found) - state.interface_q_mvar).max() < 1e-9
    withdrawn = -state.p_mw[:, [network.node_of(b) for b in ("A1", "A2", "A3", "A4")]].sum(axis=1)
    losses = found[0].p_mw - withdrawn
    assert (losses > 0).all() and (losses < 0.1 * np.abs(withdrawn) + 0.1).all()


@pytest.mark.spec("GRID-09")
def test_only_profiles_that_moved_are_sent_again() -> None:
    tables = two_substations()
    network = build(tables)
    p, q = injections(tables, network)
    before = profiles(network, solve(network, p, q))
    p[0, network.node_of("B2")] += 0.2
    now = profiles(network, solve(network, p, q))
    assert [one.substation for one in changed(before, now)] == ["TB"]
    assert changed(now, now) == () and len(changed((), now)) == 2


@pytest.mark.spec("GRID-12")
def test_transformers_in_parallel_are_one_substation() -> None:
    tables = radial()
    double = replace(tables, transformers=(*tables.transformers, replace(tables.transformers[0], transformer="T2")))
    of_node, names = substations(build(double))
    assert names == ("T+T2",) and (of_node >= 0).sum() == len(of_node) - 1


@pytest.mark.spec("GRID-12")
def test_an_outage_in_a_radial_grid_names_who_is_without_supply_and_what_they_miss() -> None:
    network, state = solved(radial(), generation=0.0)
    (found,) = outages(network, state.p_mw, state.q_mvar, [Outage("A1-A2", 0, 1)])
    assert set(found.buses_unfed) == {"A2", "A3", "A4"} and found.unfed_mw == pytest.approx(1.1 + 1.3 + 0.6)


@pytest.mark.spec("GRID-12")
def test_an_outage_in_a_ring_names_the_limits_that_the_way_round_breaks() -> None:
    network, state = solved(meshed(i_max_a=150.0, v_min=0.9), load=1.2, generation=0.0)
    (found,) = outages(network, state.p_mw, state.q_mvar, [Outage("M1-A1", 0, 1)])
    assert not found.buses_unfed and "loading M0-B1" in found.broken
    opened = replace(meshed(i_max_a=150.0, v_min=0.9), lines=())
    without = replace(opened, lines=tuple(row for row in meshed(150.0, 0.9).lines if row.line != "M1-A1"))
    again = build(without)
    check = solve(again, *injections(without, again, 1.2, 0.0))
    k = again.branch_names.index("M0-B1")
    assert found.worst_excess == pytest.approx(
        max(check.loading[0, k] - 1.0, 0.9 - check.vm[0].min(), check.loading[0].max() - 1.0), abs=1e-9
    )


@pytest.mark.spec("GRID-12")
def test_an_outage_nobody_feels_breaks_nothing() -> None:
    network, state = solved(radial())
    (found,) = outages(network, state.p_mw, state.q_mvar, [Outage("A3-B3", 0, 1)])
    assert found.broken == () and found.unfed_mw == 0.0


@pytest.mark.spec("GRID-12")
def test_faults_of_planned_outages_are_named_together() -> None:
    network, state = solved(radial())
    with pytest.raises(Refused) as refused:
        outages(network, state.p_mw, state.q_mvar, [Outage("no", 0, 1), Outage("A1-A2", 1, 1)])
    assert sorted(finding.code for finding in refused.value.findings) == ["outside_horizon", "unknown_branch"]


@pytest.mark.spec("GRID-12")
def test_the_load_that_can_be_moved_is_that_behind_the_best_open_point_which_keeps_all_limits() -> None:
    tables = replace(two_substations(), generators=())
    network = build(tables)
    found = {
        (one.from_substation, one.to_substation): one
        for one in transfers(tables, network, *injections(tables, network))
    }
    # Opening at the head of feeder A moves all of it: 0.9 + 1.1 + 1.3 + 0.6 MW.
    assert found["TA", "TB"].p_mw == pytest.approx(3.9) and found["TA", "TB"].open == "s M1-A1"
    assert found["TB", "TA"].p_mw == pytest.approx(3.0) and found["TB", "TA"].open == "s M0-B1"
    assert {one.close for one in found.values()} == {"s A3-B3"}


@pytest.mark.spec("GRID-12")
def test_a_tighter_cable_bears_less_of_the_transfer() -> None:
    tables = replace(two_substations(i_max_a=150.0), generators=())
    network = build(tables)
    found = {
        (one.from_substation, one.to_substation): one
        for one in transfers(tables, network, *injections(tables, network))
    }
    # M0-B1 at 20 kV bears 5.2 MVA: 3.0 MW of its own and A3 (1.3), not A4 and A2 too.
    assert found["TA", "TB"].p_mw == pytest.approx(1.3) and found["TA", "TB"].open == "s A2-A3"


@pytest.mark.spec("GRID-12")
def test_aggregates_by_technology_hold_every_element_once() -> None:
    tables = two_substations()
    network = build(tables)
    axis = Axis(datetime(2016, 1, 1, tzinfo=UTC), 1)
    p, _ = element_powers(tables, Series((), axis, np.zeros((0, 1))))
    found = {(one.substation, one.kind): float(one.p_mw[0]) for one in aggregates(network, tables, p)}
    assert found == {
        ("TA", "load"): pytest.approx(3.9),
        ("TA", "pv"): pytest.approx(1.0),
        ("TA", "storage"): 0.0,
        ("TB", "load"): pytest.approx(3.0),
        ("TB", "pv"): pytest.approx(1.5),
    }


def test_a_new_bus_behind_a_feeder_belongs_to_its_substation() -> None:
    tables = two_substations()
    tables = replace(
        tables,
        buses=(*tables.buses, Bus("X", 20.0, 0.9, 1.1, 0.0, 0.0, "A")),
        lines=(*tables.lines, line("A4", "X", 1.0, 300.0)),
    )
    network = build(tables)
    of_node, names = substations(network)
    assert names[of_node[network.node_of("X")]] == "TA"


@pytest.mark.spec("GRID-09")
def test_a_substation_that_the_open_point_makes_in_some_periods_alone_takes_nothing_in_the_others() -> None:
    """With the tie closed and the head of feeder A open, all of A hangs from TB and TA feeds nothing but itself; with
    TA off as well, it is no substation at all."""
    tables = two_substations(v_min=0.8)
    normal = build(tables)
    switches = tuple(replace(row, closed=True) if row.element == "A3-B3" else row for row in tables.switches)
    off = Switch("TA off", "transformer", "H", "TA", False)
    joined = moved(normal, replace(tables, switches=(*switches, off)))
    p, q = injections(tables, normal)
    p, q = np.vstack([p, p]), np.vstack([q, q])
    runs = Operation((normal, joined), np.array([0, 1]))
    state = runs.solve(p, q)
    found = {one.substation: one for one in profiles_over(runs, state)}
    assert list(found) == ["TA", "TB"]
    assert found["TA"].p_mw[0] > 0 and found["TA"].p_mw[1] == found["TA"].q_mvar[1] == 0
    assert np.abs(sum(one.p_mw for one in found.values()) - state.interface_p_mw).max() < 1e-9
    ended = changed(tuple(found.values()), [found["TB"]])
    assert [one.substation for one in ended] == ["TA"] and not ended[0].p_mw.any()
    unknown = replace(found["TB"], p_mw=np.array([found["TB"].p_mw[0], np.nan]))
    assert [one.substation for one in changed([found["TA"], unknown], tuple(found.values()))] == ["TB"]
