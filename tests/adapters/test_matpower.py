"""MATPOWER cases: published answers, pandapower on the same cases, and what is refused or remarked."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

from coflex.adapters.grids.matpower import UNLIMITED, parse_matpower, read_matpower
from coflex.domain.errors import Refused
from coflex.domain.series import Series
from coflex.domain.time import Axis
from coflex.grid.injection import element_powers, node_injections
from coflex.grid.network import Network, build, check
from coflex.grid.powerflow import GridState, solve
from coflex.grid.tables import GridTables
from support.transmission import solved_net, voltages

GOLDEN = Path(__file__).parents[1] / "golden"

BUS = [
    [1, 3, 0, 0, 0, 0, 1, 1, 0, 20, 1, 1.1, 0.9],
    [2, 1, 4, 1, 0.1, 0.5, 1, 1, 0, 20, 1, 1.1, 0.9],
    [7, 2, 2, 1, 0, 0, 1, 1, 0, 20, 1, 1.05, 0.95],
]
GEN = [[1, 3, 0, 9, -9, 1.02, 100, 1, 20, 0], [7, 1, 0.5, 2, -2, 1.01, 100, 1, 3, 0.5]]
BRANCH = [
    [1, 2, 0.01, 0.03, 0.002, 30, 0, 0, 0, 0, 1, -360, 360],
    [2, 7, 0.02, 0.04, 0.0, 0, 0, 0, 0, 0, 1, -360, 360],
    [1, 7, 0.02, 0.05, 0.0, 0, 0, 0, 1.02, -3, 0, -360, 360],
]
Rows = list[list[Any]]


def m_file(bus: Rows = BUS, gen: Rows = GEN, branch: Rows = BRANCH, more: str = "", base: float = 10) -> str:
    def matrix(rows: Rows) -> str:
        return "[\n" + "".join("\t".join(str(x) for x in row) + ";\n" for row in rows) + "];"

    head = f"function mpc = small\nmpc.version = '2';\nmpc.baseMVA = {base};\n"
    parts = (f"mpc.bus = {matrix(bus)}", f"mpc.gen = {matrix(gen)}", f"mpc.branch = {matrix(branch)}")
    return head + "\n".join(parts) + "\n" + more


def changed(rows: Rows, row: int, **columns: Any) -> Rows:
    """Rows with some columns (c1 for the first) of one row replaced."""
    copy = [list(one) for one in rows]
    for name, value in columns.items():
        copy[row][int(name[1:]) - 1] = value
    return copy


def flow(tables: GridTables) -> tuple[Network, GridState]:
    network = build(tables)
    none = Series((), Axis(datetime(2016, 1, 1, tzinfo=UTC), 1), np.zeros((0, 1)))
    p, q = (node_injections(network, x) for x in element_powers(tables, none))
    return network, solve(network, p, q)


def findings(text: str) -> list[tuple[str, str]]:
    with pytest.raises(Refused) as refused:
        parse_matpower(text, "small.m")
    return [(finding.place, finding.code) for finding in refused.value.findings]


def remarks(text: str) -> set[str]:
    return {remark.code for remark in parse_matpower(text, "small.m")[1]}


# ---- published answers


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize(
    ("case", "losses_kw", "lowest", "bus"), [("case33bw", 202.677, 0.91309, "18"), ("case69", 224.992, 0.90919, "65")]
)
def test_feeders_in_ohm_and_kilowatt_have_their_published_losses(
    case: str, losses_kw: float, lowest: float, bus: str
) -> None:
    tables, found = read_matpower(GOLDEN / case / f"{case}.m")
    network, state = flow(tables)
    worst = int(np.argmin(state.vm[0]))
    assert state.losses_mw[0] * 1e3 == pytest.approx(losses_kw, abs=5e-4)
    assert state.vm[0, worst] == pytest.approx(lowest, abs=5e-6) and network.node_names[worst] == bus
    assert found == ()


@pytest.mark.spec("GRID-01")
def test_open_ties_stay_as_branches_that_a_switch_can_close() -> None:
    tables, _ = read_matpower(GOLDEN / "case33bw" / "case33bw.m")
    open_ends = [(s.switch, s.bus, s.element) for s in tables.switches]
    assert len(tables.branches) == 37 and len(open_ends) == 10 and not any(s.closed for s in tables.switches)
    assert ("branch 33 from", "21", "branch 33") in open_ends and ("branch 33 to", "8", "branch 33") in open_ends


@pytest.mark.spec("GRID-01")
def test_limits_and_costs_of_pjms_five_buses_give_the_published_dispatch_and_prices() -> None:
    tables, found = read_matpower(GOLDEN / "case5_pjm" / "case5_pjm.m")
    assert {remark.code for remark in found} == {"angle_limits_not_used"}
    bus = {row.bus: i for i, row in enumerate(tables.buses)}
    at = {row.source: row.bus for row in tables.sources} | {row.generator: row.bus for row in tables.generators}
    n, g = len(bus), len(tables.dispatches)
    # Angles (reference 0 at the source) and powers; DC power flow in MW.
    flows, balance = np.zeros((len(tables.branches), n)), np.zeros((n, n + g))
    for k, row in enumerate(tables.branches):
        a, b, y = bus[row.from_bus], bus[row.to_bus], row.sn_mva / row.x_pu
        flows[k, [a, b]] = y, -y
        balance[a, :n] -= flows[k]
        balance[b, :n] += flows[k]
    for k, dispatch in enumerate(tables.dispatches):
        balance[bus[at[dispatch.element]], n + k] = 1
    load = np.zeros(n)
    for item in tables.loads:
        load[bus[item.bus]] += item.p_mw
    rating = np.array([row.rating_mva for row in tables.branches])
    answer = linprog(
        [0.0] * n + [dispatch.c1_eur_mwh for dispatch in tables.dispatches],
        A_ub=np.hstack([np.vstack([flows, -flows]), np.zeros((2 * len(rating), g))]),
        b_ub=np.r_[rating, rating],
        A_eq=balance,
        b_eq=load,
        bounds=[(0, 0) if name == tables.sources[0].bus else (None, None) for name in bus]
        + [(dispatch.p_min_mw, dispatch.p_max_mw) for dispatch in tables.dispatches],
    )
    assert answer.fun == pytest.approx(17_480, abs=0.5)
    assert answer.eqlin.marginals == pytest.approx([16.977, 26.384, 30.0, 39.943, 10.0], abs=5e-4)


# ---- a second engine


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize("case", ["case9", "case14", "case30", "case57", "case118"])
def test_pandapower_finds_the_same_voltages_on_the_case_it_has_written_down(case: str) -> None:
    net = solved_net(case)
    ppc = net._ppc
    rows = {name: ppc[name].real.copy() for name in ("bus", "gen", "branch")}
    # MATPOWER counts buses from 1; these stand apart so that numbers are not taken for places.
    number = 3 * rows["bus"][:, 0] + 5
    rows["bus"][:, 0] = number
    for name, columns in (("gen", [0]), ("branch", [0, 1])):
        rows[name][:, columns] = number[rows[name][:, columns].astype(int)]
    rows["branch"][:, 11:13] = [-360, 360]
    rows["gen"] = rows["gen"][:, :10]
    text = m_file(*(rows[name][:, :13].tolist() for name in ("bus", "gen", "branch")), base=float(ppc["baseMVA"]))
    tables, _ = parse_matpower(text.replace("nan", "0"), f"{case}.m")
    network, state = flow(tables)
    order = [network.node_of(f"{int(k)}") for k in number]
    vm, va = voltages(net)
    angle = np.degrees(np.angle(state.u[0, order])) - va
    assert np.abs(state.vm[0, order] - vm).max() < 1e-8
    assert np.abs(angle - angle[0]).max() < 1e-6
    assert len(order) == len(set(order))


@pytest.mark.spec("GRID-01")
def test_a_case_in_ohm_and_kilowatt_is_the_case_in_per_unit() -> None:
    ohm, kw = 20**2 / 10, 1e3
    branch = [[*row[:2], row[2] * ohm, row[3] * ohm, *row[4:]] for row in BRANCH]
    bus = [[*row[:2], row[2] * kw, row[3] * kw, *row[4:]] for row in BUS]
    code = (
        "define_constants;\n"
        "mpc.branch(:, [BR_R BR_X]) = mpc.branch(:, [BR_R BR_X]) / (mpc.bus(1, BASE_KV)^2 / mpc.baseMVA);\n"
        "mpc.bus(:, [PD, QD]) = mpc.bus(:, [PD, QD]) / 1e3;\n"
    )
    converted = flow(parse_matpower(m_file(bus, GEN, branch, code), "small.m")[0])[1]
    plain = flow(parse_matpower(m_file(), "small.m")[0])[1]
    assert np.abs(converted.u - plain.u).max() < 1e-12


@pytest.mark.slow
@pytest.mark.spec("GRID-01")
def test_every_case_of_a_matpower_distribution_is_read_and_sound() -> None:
    folder = os.environ.get("COFLEX_MATPOWER_DATA")
    if not folder:
        pytest.skip("COFLEX_MATPOWER_DATA names no folder of MATPOWER's cases (40 MB, not part of the tests' packages)")
    cases = sorted(path for path in Path(folder).glob("case*.m") if path.stat().st_size < 3e6)
    assert len(cases) > 70
    for path in cases:
        tables, _ = read_matpower(path)
        assert check(tables) == (), path.name


# ---- what each thing becomes


@pytest.mark.spec("GRID-01")
def test_a_small_case_becomes_the_devices_it_names() -> None:
    tables, found = parse_matpower(m_file(more="mpc.genfuel = {'coal'; 'Solar'};"), "small.m")
    assert found == ()
    assert [(s.source, s.bus, s.vm_pu) for s in tables.sources] == [("gen 1", "1", 1.02)]
    generator = tables.generators[0]
    assert (generator.generator, generator.bus, generator.p_mw, generator.vm_pu) == ("gen 2", "7", 1.0, 1.01)
    assert generator.technology == "pv"
    assert [(load.load, load.p_mw, load.q_mvar) for load in tables.loads] == [
        ("load 2", 4.0, 1.0),
        ("load 7", 2.0, 1.0),
    ]
    shunt = tables.shunts[0]
    assert (shunt.shunt, shunt.bus, shunt.p_mw, shunt.q_mvar, shunt.step) == ("shunt 2", "2", 0.1, 0.5, 1)
    branch = tables.branches[0]
    assert (branch.ratio, branch.rating_mva, branch.sn_mva, branch.b_pu) == (1.0, 30.0, 10.0, 0.002)
    assert (tables.branches[2].ratio, tables.branches[2].shift_degree) == (1.02, -3.0)
    assert [s.closed for s in tables.switches] == [False, False]
    limits = [(d.element, d.p_min_mw, d.p_max_mw, d.q_min_mvar, d.q_max_mvar) for d in tables.dispatches]
    assert limits == [("gen 1", 0.0, 20.0, -9.0, 9.0), ("gen 2", 0.5, 3.0, -2.0, 2.0)]
    assert [(bus.v_min_pu, bus.v_max_pu) for bus in tables.buses][2] == (0.95, 1.05)


@pytest.mark.spec("GRID-01")
def test_generators_hold_the_voltage_where_the_type_of_their_bus_says_so() -> None:
    gen = [
        *GEN,
        [7, 0.5, 0, 1, -1, 1.01, 100, 1, 1, 0],
        [2, 0.3, 0.1, 1, -1, 1.07, 100, 1, 1, 0],
        [1, 2, 0, 1, -1, 1.02, 100, 1, 9, 0],
    ]
    gen += [[2, 9, 9, 1, -1, 1.3, 100, 0, 1, 0]]
    tables, found = parse_matpower(m_file(gen=gen), "small.m")
    assert found == () and [s.source for s in tables.sources] == ["gen 1"]
    assert {g.generator: g.vm_pu for g in tables.generators} == {
        "gen 2": 1.01,
        "gen 3": 1.01,
        "gen 4": 0.0,
        "gen 5": 1.02,
    }
    assert [d.element for d in tables.dispatches] == ["gen 1", "gen 2", "gen 3", "gen 4", "gen 5"]
    network, state = flow(tables)
    assert state.vm[0, network.node_of("7")] == pytest.approx(1.01)
    assert state.losses_mw[0] > 0


@pytest.mark.spec("GRID-01")
def test_the_last_of_two_voltages_at_a_bus_is_held_and_told() -> None:
    text = m_file(gen=[*GEN, [7, 0.5, 0, 1, -1, 1.03, 100, 1, 1, 0]])
    tables, found = parse_matpower(text, "small.m")
    assert {g.vm_pu for g in tables.generators} == {1.03}
    assert [(f.place, f.code) for f in found] == [("small.m, gen, row 3", "several_voltages")]


@pytest.mark.spec("GRID-01")
def test_costs_are_polynomials_to_the_second_order_or_corners() -> None:
    cost = "mpc.gencost = [\n2 5 6 4 0 0.1 20 3;\n1 0 0 3 1 10 2 30 2.5 45;\n];"
    tables, found = parse_matpower(m_file(more=cost.replace("45;", "45 ;").replace("20 3;", "20 3 0 0;")), "small.m")
    assert found == ()
    first = tables.dispatches[0]
    assert (first.c2_eur_mw2h, first.c1_eur_mwh, first.c0_eur_h) == (0.1, 20.0, 3.0)
    # The outer pieces go on to the limits of power, 0.5 and 3 MW.
    assert [(p.element, p.p_mw, p.cost_eur_h) for p in tables.cost_points] == [
        ("gen 2", 0.5, 0.0),
        ("gen 2", 1.0, 10.0),
        ("gen 2", 2.0, 30.0),
        ("gen 2", 2.5, 45.0),
        ("gen 2", 3.0, 60.0),
    ]


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize(
    "row", ["2 0 0 4 1 0 20 3 0", "2 0 0 3 -1 20 3 0 0", "1 0 0 2 1 10 2 30 0", "1 0 0 3 1 9 2 30 3 40"]
)
def test_costs_that_no_convex_program_takes_are_left_out_by_name(row: str) -> None:
    other = f"2 0 0 2 20 3{' 0' * (len(row.split()) - 6)}"
    tables, found = parse_matpower(m_file(more=f"mpc.gencost = [\n{other};\n{row};\n];"), "small.m")
    convex = row.startswith("1 0 0 2")
    assert [d.element for d in tables.dispatches] == (["gen 1", "gen 2"] if convex else ["gen 1"])
    assert [(f.place, f.code) for f in found] == ([] if convex else [("small.m, gencost, row 2", "cost_not_taken")])


@pytest.mark.spec("GRID-01")
def test_infinite_limits_are_large_numbers_and_no_rating_is_zero() -> None:
    gen = changed(GEN, 1, c4="Inf", c5="-Inf", c9="Inf")
    tables, _ = parse_matpower(m_file(gen=gen, branch=changed(BRANCH, 0, c6="Inf")), "small.m")
    last = tables.dispatches[1]
    assert (last.p_max_mw, last.q_min_mvar, last.q_max_mvar) == (UNLIMITED, -UNLIMITED, UNLIMITED)
    assert tables.branches[0].rating_mva == 0.0 and check(tables) == ()


@pytest.mark.spec("GRID-01")
def test_a_branch_without_impedance_is_a_switch_and_keeps_its_charging() -> None:
    bus = [*changed(BUS, 2, c2=1), [8, 1, 1, 0.2, 0, 0, 1, 1, 0, 20, 1, 1.1, 0.9]]
    branch = [*BRANCH, [7, 8, 0, 0, 0.03, 5, 0, 0, 0, 0, 1, -360, 360]]
    tables, found = parse_matpower(m_file(bus, branch=branch), "small.m")
    switch = tables.switches[-1]
    assert (switch.switch, switch.kind, switch.bus, switch.element, switch.closed) == (
        "branch 4",
        "bus",
        "7",
        "8",
        True,
    )
    assert [f.code for f in found] == ["branch_as_switch"]
    # Next to nothing instead of nothing gives the same state.
    near = parse_matpower(m_file(bus, branch=changed(branch, 3, c4=1e-7)), "small.m")[0]
    (a, sa), (b, sb) = flow(tables), flow(near)
    for name in ("2", "7", "8"):
        assert abs(sa.u[0, a.node_of(name)] - sb.u[0, b.node_of(name)]) < 1e-6
    assert sa.interface_q_mvar[0] == pytest.approx(sb.interface_q_mvar[0], abs=1e-5)


@pytest.mark.spec("GRID-01")
def test_an_isolated_bus_goes_with_all_that_is_there() -> None:
    bus = [*BUS, [9, 4, 3, 1, 0, 0, 1, 1, 0, 20, 1, 1.1, 0.9]]
    gen = [*GEN, [9, 5, 0, 1, -1, 1.0, 100, 1, 9, 0]]
    branch = [
        *BRANCH,
        [7, 9, 0.1, 0.1, 0, 0, 0, 0, 0, 0, 1, -360, 360],
        [1, 2, 0.05, 0.1, 0, 0, 0, 0, 0, 0, 1, -360, 360],
    ]
    tables, found = parse_matpower(m_file(bus, gen, branch), "small.m")
    assert [f.code for f in found] == ["isolated_bus"] and "9" in found[0].message
    assert [b.bus for b in tables.buses] == ["1", "2", "7"] and len(tables.generators) == 1
    assert [b.branch for b in tables.branches] == ["branch 1", "branch 2", "branch 3", "branch 5"]
    assert check(tables) == ()


@pytest.mark.spec("GRID-01")
def test_several_references_of_one_voltage_and_angle_are_all_sources() -> None:
    bus = changed(BUS, 2, c2=3)
    tables, _ = parse_matpower(m_file(bus, changed(GEN, 1, c6=1.02), BRANCH[:2]), "small.m")
    assert [s.bus for s in tables.sources] == ["1", "7"] and check(tables) == ()
    assert findings(m_file(bus)) == [("small.m, bus", "several_sources")]
    turned = changed(bus, 2, c9=2.0)
    assert findings(m_file(turned, gen=changed(GEN, 1, c6=1.02))) == [("small.m, bus", "several_sources")]


@pytest.mark.spec("GRID-01")
def test_where_the_reference_has_no_generator_the_first_that_holds_its_voltage_takes_over_and_it_is_told() -> None:
    tables, found = parse_matpower(m_file(gen=changed(GEN, 0, c8=0)), "small.m")
    assert [(s.source, s.bus) for s in tables.sources] == [("gen 2", "7")]
    assert {f.code for f in found} == {"reference_without_source", "reference_moved"}
    none = [changed(GEN, 0, c8=0)[0], changed(GEN, 1, c8=0)[1]]
    assert findings(m_file(gen=none)) == [("small.m, bus", "no_source")]


@pytest.mark.spec("GRID-01")
def test_names_of_buses_are_used_where_each_has_its_own() -> None:
    named, found = parse_matpower(m_file(more="mpc.bus_name = {'North '; 'it''s'; 'South'};"), "small.m")
    assert [b.bus for b in named.buses] == ["North", "it's", "South"] and found == ()
    assert [load.load for load in named.loads] == ["load it's", "load South"]
    plain, found = parse_matpower(m_file(more="mpc.bus_name = {'A'; 'A'; 'B'};"), "small.m")
    assert [b.bus for b in plain.buses] == ["1", "2", "7"] and [f.code for f in found] == ["names_not_used"]


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize(
    ("text", "code"),
    [
        (m_file(branch=changed(BRANCH, 0, c12=-30, c13=30)), "angle_limits_not_used"),
        (m_file(bus=changed(BUS, 1, c10=0)), "no_rated_voltage"),
        (m_file(bus=changed(BUS, 1, c13=0)), "no_voltage_limit"),
        (m_file(gen=changed(GEN, 1, c2=-1, c10=-1, c9=0)), "power_factor_not_kept"),
        (m_file(gen=[[*row, 1, 2, -1, 1, -2, 2] for row in GEN]), "capability_curve_not_taken"),
        (
            m_file(more="mpc.gencost = [2 0 0 2 1 0; 2 0 0 2 1 0; 2 0 0 2 0.5 0; 2 0 0 2 0 0];"),
            "reactive_cost_not_taken",
        ),
        (m_file(more="mpc.dcline = [1 7 1 5 0 0 0 1 1 0 9 -1 1 -1 1 0 0];"), "dc_line_not_taken"),
        (m_file(more="mpc.reserves.zones = [1 1];"), "field_not_read"),
    ],
)
def test_what_is_not_taken_over_is_told(text: str, code: str) -> None:
    assert remarks(text) == {code}


@pytest.mark.spec("GRID-01")
def test_the_old_form_of_a_case_reads_the_same() -> None:
    old = m_file().replace("function mpc = small", "function [baseMVA, bus, gen, branch, areas, gencost] = small")
    old = old.replace("mpc.version = '2';\n", "").replace("mpc.", "") + "areas = [1 1];\nreturn;\n"
    assert parse_matpower(old, "small.m")[0] == parse_matpower(m_file(), "small.m")[0]


# ---- what is refused


@pytest.mark.spec("GRID-01")
def test_every_fault_of_every_row_is_named_at_once() -> None:
    bus = changed(changed(BUS, 1, c3="NaN"), 2, c1=1, c2=6)
    text = m_file(bus, changed(GEN, 1, c1=99), changed(changed(BRANCH, 0, c6=-1), 1, c2=55))
    assert findings(text) == [
        ("small.m, branch, row 1", "impossible_value"),
        ("small.m, branch, row 2", "unknown_bus"),
        ("small.m, branch, row 3", "unknown_bus"),
        ("small.m, bus, row 1", "named_twice"),
        ("small.m, bus, row 2", "not_a_number"),
        ("small.m, bus, row 3", "named_twice"),
        ("small.m, bus, row 3", "unknown_value"),
        ("small.m, gen, row 2", "unknown_bus"),
    ]


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("mpc.bus = [1 2 3];", "baseMVA no_base_power; branch not_a_case; bus missing_column; gen not_a_case"),
        (m_file(more="mpc.gencost = [2 0 0 2 1 0];"), "gencost wrong_row_count"),
        (
            m_file(more="mpc.gencost = [3 0 0 2 1 0; 2 0 0 9 1 0];"),
            "gencost, row 1 unknown_value; gencost, row 2 wrong_cell_count",
        ),
        (m_file(more="mpc.gencost = [1 0 0 2 2 0 1 5; 2 0 0 2 1 0 0 0];"), "gencost, row 1 impossible_value"),
        (m_file(branch=changed(BRANCH, 2, c3=0, c4=0)), "branch, row 3 impossible_value"),
        (m_file(bus=changed(BUS, 0, c12=0.8)), "bus, row 1 impossible_value"),
        (m_file(gen=changed(GEN, 0, c9="NaN")), "gen, row 1 not_a_number"),
        (m_file(more="mpc.bus = scale(mpc.bus);"), "line 18 matlab_not_read"),
    ],
)
def test_a_case_that_cannot_be_is_refused_with_its_place(text: str, found: str) -> None:
    assert "; ".join(f"{place} {code}" for place, code in findings(text)).replace("small.m, ", "") == found


@pytest.mark.spec("GRID-01")
def test_a_three_phase_case_is_refused() -> None:
    assert findings(m_file(more="mpc.bus3p = [1];")) == [("small.m", "three_phase_case")]


@pytest.mark.spec("GRID-01")
def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(Refused, match="1 fault"):
        read_matpower(Path("nowhere.m"))
