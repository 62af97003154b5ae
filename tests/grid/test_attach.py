"""Distribution grids attached to a transmission grid: the whole agrees with its parts and with pandapower."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coflex.domain.errors import Refused
from coflex.grid.attach import Attachment, attach
from coflex.grid.network import build
from coflex.grid.planning import profiles
from coflex.grid.powerflow import solve
from coflex.grid.tables import Bus, Dispatch, GridTables, Line, Load, Source
from support import second_engine
from support.small_grids import injections, meshed, radial


def transmission() -> GridTables:
    """Three 110 kV buses in a triangle, fed at N, with a load at S."""
    buses = tuple(Bus(name, 110.0, 0.9, 1.1, 8.0, 50.0, "") for name in ("N", "E", "S"))
    lines = tuple(
        Line(f"{a}-{b}", a, b, 30.0, 1.8, 11.7, 280.0, 600.0, 100.0) for a, b in (("N", "E"), ("E", "S"), ("S", "N"))
    )
    return GridTables(
        buses=buses,
        lines=lines,
        transformers=(),
        switches=(),
        sources=(Source("grid", "N", 1.03),),
        loads=(Load("town", "S", 40.0, 12.0, "", ""),),
        generators=(),
        storages=(),
    )


def joined() -> GridTables:
    return attach(
        transmission(),
        [Attachment("east", radial(), "E"), Attachment("south", meshed(), "S"), Attachment("west", radial(), "S")],
    )


@pytest.mark.spec("GRID-13")
def test_pandapower_finds_the_same_state_of_the_whole() -> None:
    tables = joined()
    network = build(tables)
    p, q = injections(tables, network)
    state = solve(network, p, q)
    net = second_engine.run(second_engine.pandapower_net(tables), network, p[0], q[0])
    for row in net.bus.itertuples():
        assert state.vm[0, network.node_of(row.name)] == pytest.approx(net.res_bus.vm_pu[row.Index], abs=1e-8)


@pytest.mark.spec("GRID-13")
def test_each_part_alone_agrees_with_the_whole_at_its_interface() -> None:
    tables = joined()
    network = build(tables)
    whole = solve(network, *injections(tables, network))
    for name, own, bus in (("east", radial(), "E"), ("west", radial(), "S")):
        at_border = float(whole.vm[0, network.node_of(bus)])
        part = build(replace(own, sources=(replace(own.sources[0], vm_pu=at_border),)))
        alone = solve(part, *injections(own, part))
        for inner in ("A3", "B2"):
            there = whole.vm[0, network.node_of(f"{name}/{inner}")]
            assert alone.vm[0, part.node_of(inner)] == pytest.approx(there, abs=1e-9)
    # Seen from above, each grid is the load that its own profile says.
    above = build(transmission())
    p, q = injections(transmission(), above)
    for own, bus in ((radial(), "E"), (meshed(), "S"), (radial(), "S")):
        at_border = float(whole.vm[0, network.node_of(bus)])
        part = build(replace(own, sources=(replace(own.sources[0], vm_pu=at_border),)))
        state = solve(part, *injections(own, part))
        profile = profiles(part, state)
        p[0, above.node_of(bus)] -= sum(one.p_mw[0] for one in profile)
        q[0, above.node_of(bus)] -= sum(one.q_mvar[0] for one in profile)
    alone = solve(above, p, q)
    assert alone.interface_p_mw[0] == pytest.approx(whole.interface_p_mw[0], abs=1e-6)
    assert np.abs(alone.vm[0] - [whole.vm[0, network.node_of(b)] for b in above.node_names]).max() < 1e-9


@pytest.mark.spec("GRID-13")
def test_names_and_perimeters_say_which_grid_they_are_of() -> None:
    tables = joined()
    assert {bus.perimeter for bus in tables.buses} == {
        "",
        *(f"{g}/{p}" for g in ("east", "south", "west") for p in "AB"),
    }
    assert [source.source for source in tables.sources] == ["grid"]
    assert build(tables).node_of("east/H") == build(tables).node_of("E")


@pytest.mark.spec("GRID-13")
def test_the_cost_of_a_source_goes_with_it_and_that_of_a_generator_stays() -> None:
    priced = replace(
        radial(),
        dispatches=(
            Dispatch("above", 0.0, 50.0, -9.0, 9.0, 0.0, 40.0, 0.0),
            Dispatch("pv A3", 0.0, 1.0, 0.0, 0.0, 0.0, 5.0, 0.0),
        ),
    )
    tables = attach(transmission(), [Attachment("east", priced, "E")])
    assert [row.element for row in tables.dispatches] == ["east/pv A3"]


@pytest.mark.spec("GRID-13")
def test_grids_that_do_not_fit_are_refused_with_every_fault() -> None:
    twice = replace(radial(), sources=(Source("a", "H", 1.0), Source("b", "M0", 1.0)))
    low = replace(radial(), sources=(Source("a", "M0", 1.0),))
    with pytest.raises(Refused) as refused:
        attach(
            transmission(),
            [Attachment("x", radial(), "nowhere"), Attachment("x", twice, "E"), Attachment("y", low, "E")],
        )
    codes = sorted((finding.place, finding.code) for finding in refused.value.findings)
    assert codes == [
        ("attachment x", "named_twice"),
        ("attachment x", "several_sources"),
        ("attachment x", "unknown_bus"),
        ("attachment y", "voltages_joined"),
    ]


def test_the_order_of_attachments_changes_nothing() -> None:
    parts = [Attachment("east", radial(), "E"), Attachment("south", meshed(), "S")]
    assert attach(transmission(), parts) == attach(transmission(), parts[::-1])
