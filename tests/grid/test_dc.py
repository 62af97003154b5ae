"""The dc model against pandapower's, its own flows, and the published optimum of a small market."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from coflex.domain.errors import GridFailure
from coflex.domain.quantity import Floats
from coflex.grid.dc import DcGrid, dc_flow
from coflex.grid.network import Network, build
from coflex.grid.rows import FROM, TO, Guard, RowKeys
from coflex.grid.tables import Branch, Bus, GridTables, Shunt, Source
from support.transmission import injections, solved_net, tables_of

SEEDS = st.integers(0, 2**32 - 1)


@pytest.mark.spec("GRID-13")
@pytest.mark.parametrize("case", ["case5", "case9", "case14", "case_ieee30", "case39", "case57", "case118"])
def test_flows_and_angles_are_those_of_pandapower(case: str) -> None:
    import pandapower as pp

    net = solved_net(case)
    tables = tables_of(net)
    network = build(tables)
    p, q = injections(tables, network)
    state = DcGrid(network, p, q).believe(p, q)
    pp.rundcpp(net, trafo_model="pi", calculate_voltage_angles=True, numba=False)
    branch, bus = net._ppc["branch"].real, net._ppc["bus"].real
    flow = dc_flow(network).powers(dc_flow(network).angles(p))
    assert flow[0] == pytest.approx(branch[:, 13], abs=1e-8)
    # Angles there are of the reference's own, which most cases set to zero and some do not.
    assert np.angle(state.u[0], deg=True) == pytest.approx(bus[:, 8] - bus[network.slack, 8], abs=1e-9)
    delivered = flow[0][network.from_node == network.slack].sum() - flow[0][network.to_node == network.slack].sum()
    assert state.interface_p_mw[0] == pytest.approx(delivered + network.node_shunt.real[network.slack], abs=1e-8)
    assert state.losses_mw[0] == pytest.approx(network.node_shunt.real.sum(), abs=1e-8)


# ---- the five-bus system of PJM: F. Li and R. Bo, "Small test systems for power system economic studies" (2010) -----

BRANCHES = (
    ("1", "2", 0.0281, 400.0),
    ("1", "4", 0.0304, 426.0),
    ("1", "5", 0.0064, 426.0),
    ("2", "3", 0.0108, 426.0),
    ("3", "4", 0.0297, 426.0),
    ("4", "5", 0.0297, 240.0),
)
LOADS = {"2": 300.0, "3": 300.0, "4": 400.0}
GENERATORS = (("1", 40.0, 14.0), ("1", 170.0, 15.0), ("3", 520.0, 30.0), ("4", 200.0, 40.0), ("5", 600.0, 10.0))


def five_buses(slack: str = "4", rating: float | None = None) -> tuple[Network, Floats]:
    """Network and its loads as injections (1, n). `rating` in place of all ratings, where given."""
    tables = GridTables(
        buses=tuple(Bus(name, 230.0, 0.9, 1.1, 0.0, 0.0, "") for name in "12345"),
        lines=(),
        transformers=(),
        switches=(),
        sources=(Source("above", slack, 1.0),),
        loads=(),
        generators=(),
        storages=(),
        branches=tuple(
            Branch(f"{a}-{b}", a, b, 0.0, x, 0.0, 0.0, 1.0, 0.0, 100.0, rating or mva, 100.0)
            for a, b, x, mva in BRANCHES
        ),
    )
    network = build(tables)
    p = np.zeros((1, network.n))
    for bus, mw in LOADS.items():
        p[0, network.node_of(bus)] -= mw
    return network, p


def least_cost(network: Network, p: Floats) -> tuple[float, dict[str, float]]:
    """EUR/h of the least dispatch and the price at each bus, on rows of either direction of each branch."""
    grid = DcGrid(network, p, 0 * p)
    branch = np.arange(network.m)
    keys = RowKeys(np.zeros(network.m, dtype=np.int64), np.full(network.m, FROM), branch)
    state = grid.believe(p, 0 * p)
    rows = grid.rows(state, np.arange(1), keys, 0 * p, 0 * p)
    node = [network.node_of(bus) for bus, *_ in GENERATORS]
    # A row holds in the direction of the flow; the opposite limit is as far on the other side of zero.
    upper = np.vstack([rows.dp[:, node], -rows.dp[:, node]])
    room = np.concatenate([rows.room, 2 - rows.room])
    found = linprog(
        [price for *_, price in GENERATORS],
        upper,
        room,
        np.ones((1, len(node))),
        [sum(LOADS.values())],
        bounds=[(0, most) for _, most, _ in GENERATORS],
    )
    assert found.success
    price = found.ineqlin.marginals
    slope = np.vstack([rows.dp, -rows.dp])
    return float(found.fun), {
        bus: float(found.eqlin.marginals[0] + price @ slope[:, network.node_of(bus)]) for bus in "12345"
    }


@pytest.mark.spec("GRID-13")
@pytest.mark.parametrize("slack", list("12345"))
def test_the_five_bus_market_has_its_published_cost_and_prices_wherever_the_slack_is(slack: str) -> None:
    cost, prices = least_cost(*five_buses(slack))
    assert cost == pytest.approx(17480, abs=0.5)
    assert prices == pytest.approx({"1": 16.977, "2": 26.384, "3": 30.0, "4": 39.943, "5": 10.0}, abs=6e-4)


def test_without_ratings_one_price_holds_everywhere() -> None:
    cost, prices = least_cost(*five_buses(rating=1e5))
    assert cost == pytest.approx(600 * 10 + 40 * 14 + 170 * 15 + 190 * 30)
    assert set(np.round(list(prices.values()), 9)) == {30.0}


# ---- laws ----------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None, derandomize=True)
@given(SEEDS)
def test_power_is_kept_at_every_node_and_states_add(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network, _ = five_buses()
    flow = dc_flow(network)
    one, two = rng.normal(size=(2, 1, network.n)) * 100
    total = flow.powers(flow.angles(one + two))
    assert total == pytest.approx(flow.powers(flow.angles(one)) + flow.powers(flow.angles(two)), abs=1e-9)
    into = np.zeros(network.n)
    np.add.at(into, network.from_node, total[0])
    np.add.at(into, network.to_node, -total[0])
    inner = network.not_slack
    assert into[inner] == pytest.approx((one + two)[0, inner], abs=1e-9)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(SEEDS)
def test_a_row_is_exact_as_long_as_no_flow_turns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network, p = five_buses(rating=50.0)
    grid = DcGrid(network, p, 0 * p)
    seen = grid.look(0 * p, 0 * p, np.arange(1), RowKeys.none())
    assert len(seen.broken) and set(seen.broken.form.tolist()) <= {FROM, TO}
    rows = grid.rows(seen.state, np.arange(1), seen.broken, 0 * p, 0 * p)
    step = rng.uniform(-5, 5, p.shape)
    after = grid.look(step, 0 * p, np.arange(1), RowKeys.none()).state
    left = rows.room - rows.dp @ step[0]
    assert left == pytest.approx(grid.headroom(after, np.arange(1), seen.broken), abs=1e-9)
    assert not rows.dq.any()


def test_a_guard_takes_its_share_and_voltages_have_no_limit() -> None:
    network, p = five_buses(rating=300.0)
    grid = DcGrid(network, p, 0 * p)
    calm = grid.look(0 * p, 0 * p, np.arange(1), RowKeys.none())
    guarded = grid.with_guard(Guard(voltage_pu=0.04, loading_share=0.25))
    tight = guarded.look(0 * p, 0 * p, np.arange(1), RowKeys.none())
    assert tight.excess == pytest.approx(calm.excess + 0.25)
    assert isinstance(guarded, DcGrid)


def test_a_branch_without_reactance_is_named() -> None:
    net: Any = solved_net("case9")
    tables = tables_of(net)
    odd = tables.branches[0]
    network = build(_with(tables, odd))
    with pytest.raises(GridFailure, match=odd.branch):
        DcGrid(network, np.zeros((1, network.n)), np.zeros((1, network.n))).believe(
            np.zeros((1, network.n)), np.zeros((1, network.n))
        )


def _with(tables: GridTables, branch: Branch) -> GridTables:
    changed = replace(branch, r_pu=0.01, x_pu=0.0)
    return replace(tables, branches=tuple(changed if b is branch else b for b in tables.branches))


def test_a_conductance_to_earth_is_a_load_at_rated_voltage() -> None:
    tables = tables_of(solved_net("case9"))
    bus = tables.loads[4].bus
    shunted = build(replace(tables, shunts=(*tables.shunts, Shunt("resistor", bus, 7.0, 3.0, 1, 1))))
    network = build(tables)
    p, q = injections(tables, network)
    loaded = p.copy()
    loaded[0, network.node_of(bus)] -= 7.0
    mine, other = DcGrid(shunted, p, q).believe(p, q), DcGrid(network, loaded, q).believe(loaded, q)
    assert mine.u == pytest.approx(other.u, abs=1e-12)
    assert mine.interface_p_mw == pytest.approx(other.interface_p_mw, abs=1e-9)
